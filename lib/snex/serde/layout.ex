defmodule Snex.Serde.Layout do
  @moduledoc false
  # How this VM lays out structs, as fragments of ETF between which Python writes values; see docs/protocol.md.

  alias Snex.Array

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
      {"range", layout(1..2, [:first, :last, :step])},
      {"array", layout(%Array{type: nil, shape: nil, data: nil}, [:type, :shape, :data])}
    ] ++ decimal() ++ tensor()
  end

  # A library that Snex doesn't depend on.
  defp decimal do
    case example(Decimal) do
      nil -> []
      decimal -> [{"decimal", layout(decimal, [:sign, :coef, :exp])}]
    end
  end

  # As above. A tensor has the backend that keeps its numbers in a binary, whatever Nx's default is.
  defp tensor do
    with %{data: _, names: _} = tensor <- example(Nx.Tensor),
         %{state: _} = backend <- example(Nx.BinaryBackend) do
      fields = layout(tensor, [:type, :shape, :names, :data])
      [state] = layout(backend, [:state])
      [{"tensor", List.update_at(fields, -1, &(&1 <> state))}]
    else
      _none -> []
    end
  end

  defp example(module) do
    if Code.ensure_loaded?(module) and function_exported?(module, :__struct__, 0),
      do: module.__struct__(),
      else: nil
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
