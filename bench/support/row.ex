defmodule Bench.Row do
  @moduledoc """
  One row of the table: a value, its floor, measured in the same run, and the ratio that is aimed at.

  `floor` and `value` are lists of measurements in `unit`; their medians count. `goal` is `:at_most` or `:at_least`.
  """

  alias Bench.Stats

  @enforce_keys [:name, :what, :floor, :value, :unit, :goal, :target]
  defstruct @enforce_keys

  @doc "The median of the values as a multiple of that of the floor."
  def ratio(row), do: Stats.median(row.value) / max(Stats.median(row.floor), 1.0e-9)

  def met?(%{goal: :at_most} = row), do: ratio(row) <= row.target
  def met?(%{goal: :at_least} = row), do: ratio(row) >= row.target

  @doc "The row as a line of a table."
  def line(row) do
    [
      row.name,
      show(Stats.median(row.floor), row.unit),
      show(Stats.median(row.value), row.unit),
      "±#{round(Stats.spread(row.value) * 100)} %",
      "#{Float.round(ratio(row) * 1.0, 2)} x",
      "#{if row.goal == :at_most, do: "≤", else: "≥"} #{row.target} x",
      if(met?(row), do: "met", else: "MISSED")
    ]
  end

  def headings, do: ~w[row floor value spread ratio target verdict]

  defp show(ns, :ns) when ns < 1_000_000, do: "#{Float.round(ns / 1_000, 1)} us"
  defp show(ns, :ns), do: "#{Float.round(ns / 1_000_000, 1)} ms"
  defp show(number, :per_second), do: "#{round(number)} /s"
  defp show(bytes, :bytes), do: "#{Float.round(bytes / 1024 / 1024, 1)} MiB"

  @doc "The row as a map for JSON."
  def to_map(row) do
    %{
      name: row.name,
      what: row.what,
      unit: row.unit,
      floor: %{median: Stats.median(row.floor), spread: Stats.spread(row.floor)},
      value: %{median: Stats.median(row.value), spread: Stats.spread(row.value)},
      ratio: ratio(row),
      goal: row.goal,
      target: row.target,
      met: met?(row)
    }
  end
end
