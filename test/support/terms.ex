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
