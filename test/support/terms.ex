defmodule Snex.Terms do
  @moduledoc """
  PropEr generators for terms of the table in `Snex.Serde`, as `{what is sent, what comes back}`.
  """

  # PropEr's macros are for Erlang; these are the functions behind them.
  @dialyzer :no_unknown
  @compile {:no_warn_undefined, [:proper, :proper_types]}

  @doc """
  Any term.
  """
  def any_term, do: :proper_types.sized(&term/1)

  defp term(size) when size < 2, do: leaf()

  defp term(size) do
    inner = :proper_types.lazy(fn -> term(div(size, 3)) end)

    :proper_types.frequency([
      {3, leaf()},
      {2, map(:proper_types.list(inner), &unzip(&1, fn items -> items end))},
      {2, map(:proper_types.list(inner), &unzip(&1, fn items -> List.to_tuple(items) end))},
      {2, map(dictionary(inner), & &1)},
      {1, map(:proper_types.non_empty(:proper_types.list(inner)), &improper/1)},
      {1, map(inner, fn {sent, _expected} -> {Snex.Serde.term(sent), sent} end) |> map(&opaque/1)},
      {1, map(inner, fn {sent, expected} -> {%URI{path: sent}, %URI{path: expected}} end)}
    ])
  end

  @doc """
  A struct that has a counterpart in Python, in the form in which it comes back, or lists and maps of such.
  """
  def native_term do
    :proper_types.oneof([
      struct(),
      :proper_types.list(struct()),
      # Numbers that differ may be equal in Python.
      map(:proper_types.list({day(), struct()}), &Map.new/1)
    ])
  end

  # Not a `Time`: the tests have an encoder for it.
  defp struct do
    day = day()
    micro = map(:proper_types.oneof([0, 1, 999_999, 500_000]), &{&1, if(&1 == 0, do: 0, else: 6)})
    second = :proper_types.integer(0, 86_399)
    naive = map({day, second, micro}, &naive/1)

    :proper_types.oneof([
      day,
      naive,
      map(naive, &DateTime.from_naive!(&1, "Etc/UTC")),
      map({:proper_types.integer(0, 999_999_998), second, micro, :proper_types.boolean()}, &duration/1),
      map(
        {:proper_types.oneof([1, -1]), :proper_types.non_neg_integer(), :proper_types.largeint()},
        fn {sign, coef, exp} -> %Decimal{sign: sign, coef: coef * abs(exp), exp: rem(exp, 1_000)} end
      ),
      map({:proper_types.largeint(), :proper_types.largeint(), :proper_types.integer()}, &range/1)
    ])
  end

  defp day, do: map(:proper_types.integer(366, 3_652_424), &Date.from_gregorian_days/1)

  defp naive({day, second, microsecond}) do
    {hour, minute, second} = {div(second, 3600), rem(div(second, 60), 60), rem(second, 60)}
    NaiveDateTime.new!(day, Time.new!(hour, minute, second, microsecond))
  end

  defp duration({day, second, {micro, precision}, negative?}) do
    duration = Duration.new!(day: day, second: second, microsecond: {micro, precision})
    if negative?, do: Duration.negate(duration), else: duration
  end

  defp range({first, last, 0}), do: first..last//1
  defp range({first, last, step}), do: first..last//step

  # A wrapper inside an opaque term comes back as the wrapper.
  defp opaque({wrapped, sent}), do: {wrapped, sent}

  defp leaf do
    :proper_types.oneof([
      same(:proper_types.exactly(nil)),
      same(:proper_types.boolean()),
      same(atom()),
      same(:proper_types.integer()),
      same(map(:proper_types.largeint(), &(&1 * &1 * &1))),
      same(:proper_types.float()),
      same(text()),
      map(:proper_types.binary(), &{Snex.Serde.binary(&1), &1}),
      map(:proper_types.binary(), &{Snex.Serde.binary(&1, :bytearray), &1}),
      same(:proper_types.bitstring()) |> map(&bits/1),
      same(set()),
      same(:proper_types.exactly(self())),
      same(:proper_types.exactly(make_ref())),
      same(:proper_types.exactly(&String.upcase/1)),
      same(:proper_types.exactly(~D[2026-11-21])),
      same(:proper_types.exactly(1..10//3)),
      same(:proper_types.exactly([])),
      same(:proper_types.exactly({}))
    ])
  end

  # A bitstring of whole bytes is a binary, which has to be text or wrapped.
  defp bits({bits, _same}) when is_binary(bits), do: {Snex.Serde.binary(bits), bits}
  defp bits(pair), do: pair

  defp atom, do: :proper_types.oneof([:a, :ok, :"with space", :żółw, Snex.Terms, :"", :__struct])

  defp text do
    map(:proper_types.list(:proper_types.oneof([?a, ?ä, ?€, 0x10FFFF, 0, ?\n])), &List.to_string/1)
  end

  # Keys that Python can hash, of one kind: Python takes 1, 1.0 and True for the same key.
  defp keys(inner_kind) do
    case inner_kind do
      :integer -> :proper_types.integer()
      :text -> text()
      :atom -> atom()
      :tuple -> map({:proper_types.integer(), text()}, & &1)
    end
  end

  defp key_kind, do: :proper_types.oneof([:integer, :text, :atom, :tuple])

  defp set do
    bind(key_kind(), fn kind -> map(:proper_types.list(keys(kind)), &MapSet.new/1) end)
  end

  defp dictionary(inner) do
    bind(key_kind(), fn kind ->
      map(:proper_types.list({keys(kind), inner}), fn pairs ->
        {Map.new(pairs, fn {key, {sent, _}} -> {key, sent} end),
         Map.new(pairs, fn {key, {_, expected}} -> {key, expected} end)}
      end)
    end)
  end

  # An improper list is opaque: what is in it is not looked at, so nothing in it may be wrapped.
  defp improper(pairs) do
    [last | rest] = Enum.map(pairs, fn {_sent, expected} -> expected end)
    tail = if is_list(last), do: :tail, else: last
    list = Enum.reduce([:first | rest], tail, fn item, list -> [item | list] end)
    {list, list}
  end

  defp unzip(pairs, build) do
    {sent, expected} = Enum.unzip(pairs)
    {build.(sent), build.(expected)}
  end

  defp same(type), do: map(type, &{&1, &1})
  defp map(type, fun), do: :proper_types.bind(type, fn value -> :proper_types.exactly(fun.(value)) end, false)
  defp bind(type, fun), do: :proper_types.bind(type, fun, false)
end
