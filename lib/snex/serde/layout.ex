defmodule Snex.Serde.Layout do
  @moduledoc false
  # How this VM lays out structs, as fragments of ETF between which Python writes values; see docs/protocol.md.

  @doc """
  A `MapSet`: what comes before the map of its members, and after each member.
  """
  @spec map_set() :: {binary(), binary()}
  def map_set do
    fields = Map.to_list(MapSet.new([:member]))
    {[map: %{member: value}], others} = Keyword.split(fields, [:map])
    pairs = for {name, term} <- others, do: [etf(name), etf(term)]
    head = [<<116, length(fields)::32>>, pairs, etf(:map)]
    {IO.iodata_to_binary(head), etf(value)}
  end

  @date [:year, :month, :day]
  @time [:hour, :minute, :second, :microsecond]
  @zone [:time_zone, :zone_abbr, :utc_offset, :std_offset]

  @doc """
  Other structs, by the name that Python knows them by: what comes before the value of each field.
  """
  @spec structs() :: [{name :: String.t(), layout :: [binary(), ...]}]
  def structs do
    [
      {"date", layout(~D[2000-01-01], @date)},
      {"time", layout(~T[00:00:00], @time)},
      {"naive_datetime", layout(~N[2000-01-01 00:00:00], @date ++ @time)},
      {"datetime", layout(~U[2000-01-01 00:00:00Z], @date ++ @time ++ @zone)},
      {"duration", layout(%Duration{}, [:day, :second, :microsecond])},
      {"range", layout(1..2, [:first, :last, :step])}
    ] ++ decimal()
  end

  # A library that Snex doesn't depend on.
  defp decimal do
    if Code.ensure_loaded?(Decimal) and function_exported?(Decimal, :__struct__, 0),
      do: [{"decimal", layout(struct!(Decimal), [:sign, :coef, :exp])}],
      else: []
  end

  defp layout(example, fields) do
    # The order of fields does not matter to whoever reads it: those that are always the same come first.
    {values, same} = example |> Map.to_list() |> Keyword.split(fields)
    ^fields = for field <- fields, Keyword.has_key?(values, field), do: field
    pairs = for {name, term} <- same, do: [etf(name), etf(term)]
    [first | others] = Enum.map(fields, &etf/1)
    [IO.iodata_to_binary([<<116, map_size(example)::32>>, pairs, first]) | others]
  end

  defp etf(term) do
    <<131, rest::binary>> = :erlang.term_to_binary(term)
    rest
  end
end
