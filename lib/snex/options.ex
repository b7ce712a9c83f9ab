defmodule Snex.Options do
  @moduledoc false
  # Tables of options, and what is derived from them: checks, documentation and types.
  #
  # A table is a keyword list with an entry for each option:
  #
  #     stop_timeout: [type: :milliseconds, default: 5_000, doc: "grace between SIGTERM and SIGKILL, ..."]
  #
  #   * `:type` - see `t:type/0`. A function takes the value and returns `{:ok, value}`, in the form that is used later on, or
  #     `{:error, sentence}`, where `sentence` follows the name of the option; see `refuse/2`. It may raise `ArgumentError`.
  #   * `:default` - in the form that users write. An option without one is left out of the result when it is not given.
  #     An option whose default is `nil` accepts `nil` as well.
  #   * `:doc` - for users: what the option does. The default is added.
  #   * `:spec` - the type as quoted code, where `:type` doesn't imply it
  #   * `:alias` - instead of all of these: the option that this is another name of

  @type type() ::
          :any
          | :boolean
          | :string
          | :milliseconds
          | :timeout
          | {:integer, Range.t()}
          | {:in, [atom()]}
          | (term() -> {:ok, term()} | {:error, String.t()})

  @type table() :: [{atom(), keyword()}]

  # The longest time that a `receive` waits.
  @longest 0xFFFF_FFFF

  # A name is near another from this Jaro distance on.
  @near 0.77

  @doc """
  The options as a map, checked and with defaults. Raises `ArgumentError` for one that the table lacks or whose value is
  wrong. `parent` is the option that these are part of. Of an option that is given twice, the first counts. `hint`
  returns what else to say of an unknown one.
  """
  @spec check!(term(), table(), atom(), (atom() -> String.t())) :: %{optional(atom()) => term()}
  def check!(options, table, parent \\ nil, hint \\ fn _name -> "" end) do
    given = given!(options, table, parent, hint)

    for {name, entry} <- table,
        not is_map_key(given, name),
        {:ok, default} <- [Keyword.fetch(entry, :default)],
        into: given do
      {name, value!(name, default, entry, parent)}
    end
  end

  @doc """
  As `check!/4`, without the defaults.
  """
  @spec given!(term(), table(), atom(), (atom() -> String.t())) :: %{optional(atom()) => term()}
  def given!(options, table, parent, hint) do
    options
    |> keyword!(parent)
    |> List.foldr(%{}, fn {name, value}, given ->
      entry = entry!(name, table, parent, hint)
      Map.put(given, entry[:alias] || name, value!(name, value, resolve(entry, table), parent))
    end)
  end

  @doc """
  The options, which have to be a keyword list.
  """
  @spec keyword!(term(), atom()) :: keyword()
  def keyword!(options, parent \\ nil) do
    if Keyword.keyword?(options) do
      options
    else
      expected =
        if parent, do: "option #{inspect(parent)} to be a keyword list", else: "a keyword list of options"

      raise ArgumentError, "expected #{expected}, got: #{show(options)}"
    end
  end

  @doc """
  Checks one value as `check!/3` does, and returns it as it is used later on.
  """
  @spec value!(atom(), term(), table()) :: term()
  def value!(name, value, table),
    do: value!(name, value, name |> entry!(table, nil, fn _name -> "" end) |> resolve(table), nil)

  @doc """
  What to say of a wrong value: for functions that check one.
  """
  @spec refuse(term(), String.t()) :: {:error, String.t()}
  def refuse(value, expected), do: {:error, "cannot be #{show(value)}: expected #{expected}"}

  @doc """
  What follows the complaint about an unknown name: the nearest of the known ones, or all of them.
  """
  @spec suggestion(atom(), [atom()]) :: String.t()
  def suggestion(name, known) do
    nearest = Enum.max_by(known, &similarity(&1, name))

    if similarity(nearest, name) >= @near,
      do: ", did you mean #{inspect(nearest)}?",
      else: "; known are #{known |> Enum.sort() |> Enum.map_join(", ", &inspect/1)}"
  end

  defp similarity(one, other), do: String.jaro_distance(to_string(one), to_string(other))

  @doc """
  The list of options for documentation.
  """
  @spec documentation(table()) :: String.t()
  def documentation(table) do
    Enum.map_join(table, "\n", fn {name, entry} ->
      text = if entry[:alias], do: "the same as `#{inspect(entry[:alias])}`", else: described(entry)
      "  * `#{inspect(name)}` - " <> String.replace(text, ~r/\n(?=.)/, "\n    ")
    end)
  end

  defp described(entry) do
    doc = String.trim(entry[:doc])
    # What is empty, or left to the text, needs no mention.
    if entry[:default] in [nil, [], %{}], do: doc, else: doc <> ". Default: `#{default(entry[:default])}`"
  end

  defp default(value), do: value |> inspect() |> String.replace(~r/(?<=\d)(?=(\d{3})+(?!\d))/, "_")

  @doc """
  The type of one option of the table, as quoted code.
  """
  @spec spec(table()) :: Macro.t()
  def spec(table) do
    table
    |> Enum.map(fn {name, entry} -> {name, entry |> resolve(table) |> value_spec()} end)
    |> Enum.reverse()
    |> Enum.reduce(fn one, others -> quote(do: unquote(one) | unquote(others)) end)
  end

  defp value_spec(entry) do
    with nil <- entry[:spec] do
      case entry[:type] do
        :any ->
          quote(do: term())

        :boolean ->
          quote(do: boolean())

        :string ->
          quote(do: String.t())

        :milliseconds ->
          quote(do: non_neg_integer())

        :timeout ->
          quote(do: timeout())

        {:integer, _range} ->
          quote(do: integer())

        {:in, values} ->
          values |> Enum.reverse() |> Enum.reduce(fn one, all -> quote(do: unquote(one) | unquote(all)) end)
      end
    end
  end

  defp entry!(name, table, parent, hint) do
    with nil <- table[name] do
      inside = if parent, do: " in #{inspect(parent)}"

      raise ArgumentError,
            "unknown option #{inspect(name)}#{inside}#{suggestion(name, Keyword.keys(table))}#{hint.(name)}"
    end
  end

  defp resolve(entry, table), do: if(entry[:alias], do: Keyword.fetch!(table, entry[:alias]), else: entry)

  defp value!(name, value, entry, parent) do
    case checked(entry[:type], value, entry) do
      {:ok, value} -> value
      {:error, sentence} -> raise ArgumentError, "option #{label(name, parent)} #{sentence}"
    end
  end

  defp label(name, nil), do: inspect(name)
  defp label(name, parent), do: "#{inspect(name)} of #{inspect(parent)}"

  defp checked(type, nil, entry) do
    if Keyword.fetch(entry, :default) == {:ok, nil}, do: {:ok, nil}, else: checked(type, nil)
  end

  defp checked(type, value, _entry), do: checked(type, value)

  defp checked(:any, value), do: {:ok, value}
  defp checked(check, value) when is_function(check, 1), do: check.(value)

  defp checked(type, value),
    do: if(valid?(type, value), do: {:ok, value}, else: refuse(value, expected(type)))

  defp valid?(:boolean, value), do: is_boolean(value)
  defp valid?(:string, value), do: is_binary(value)
  defp valid?(:milliseconds, value), do: value in 0..@longest
  defp valid?(:timeout, value), do: value == :infinity or value in 0..@longest
  defp valid?({:integer, range}, value), do: value in range
  defp valid?({:in, values}, value), do: value in values

  defp expected(:boolean), do: "true or false"
  defp expected(:string), do: "a string"
  defp expected(:milliseconds), do: "milliseconds, from 0 to #{@longest}"
  defp expected(:timeout), do: "milliseconds, from 0 to #{@longest}, or :infinity"
  defp expected({:integer, first..last//1}), do: "an integer from #{first} to #{last}"
  defp expected({:in, values}), do: values |> Enum.map(&inspect/1) |> choice()

  defp choice([one]), do: one
  defp choice(several), do: Enum.join(Enum.drop(several, -1), ", ") <> " or " <> List.last(several)

  defp show(value), do: inspect(value, limit: 10, printable_limit: 100)
end
