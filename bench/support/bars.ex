defmodule Bench.Bars do
  @moduledoc """
  Groups of horizontal bars as SVG, on a logarithmic axis.
  """

  @width 720
  @labels 250
  @right 90
  @bar 16
  @top 70
  @colours ~w[#4b5cc4 #a9b1de]

  @doc """
  Draws groups, each a label and the values of the series, in nanoseconds. `series` names the bars of a group.
  """
  def svg(heading, title, series, groups) do
    values = for {_label, values} <- groups, value <- values, value, do: value
    low = :math.log(Enum.min(values) / 3)
    range = :math.log(Enum.max(values)) - low
    width = fn value -> round((:math.log(value) - low) / range * (@width - @labels - @right)) end
    step = @bar * length(series) + 14
    height = @top + step * length(groups) + 10

    """
    <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{@width} #{height}" font-family="sans-serif" font-size="12">
    <rect width="100%" height="100%" fill="white"/>
    <text x="12" y="22" font-size="15">#{heading}</text>
    <text x="12" y="40" font-size="11" fill="gray">#{title}</text>
    #{legend(series)}
    #{for {group, index} <- Enum.with_index(groups), do: group(group, @top + index * step, width, length(series))}
    </svg>
    """
    |> String.replace(~r/^\s*\n/m, "")
  end

  defp legend([_one]), do: ""

  defp legend(series) do
    for {{name, colour}, index} <- Enum.with_index(Enum.zip(series, @colours)) do
      x = 12 + index * 260

      """
      <rect x="#{x}" y="48" width="10" height="10" fill="#{colour}"/>
      <text x="#{x + 16}" y="57" font-size="11">#{name}</text>
      """
    end
  end

  defp group({label, values}, y, width, count) do
    bars =
      for {{value, colour}, index} <- Enum.with_index(Enum.zip(values, @colours)), value do
        top = y + index * @bar

        """
        <rect x="#{@labels}" y="#{top}" width="#{width.(value)}" height="#{@bar - 3}" rx="2" fill="#{colour}"/>
        <text x="#{@labels + width.(value) + 6}" y="#{top + 11}" font-size="11">#{show(value)}</text>
        """
      end

    middle = y + div(@bar * count, 2) + 2
    [~s(<text x="#{@labels - 10}" y="#{middle}" text-anchor="end">#{label}</text>\n), bars]
  end

  @doc "A time as people write it."
  def show(ns) when ns < 1_000, do: "#{round(ns)} ns"
  def show(ns) when ns < 10_000, do: "#{Float.round(ns / 1_000, 1)} µs"
  def show(ns) when ns < 1_000_000, do: "#{round(ns / 1_000)} µs"
  def show(ns) when ns < 10_000_000, do: "#{Float.round(ns / 1_000_000, 1)} ms"
  def show(ns), do: "#{round(ns / 1_000_000)} ms"
end
