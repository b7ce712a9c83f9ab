defmodule Bench.Plot do
  @moduledoc """
  Lines as SVG, with logarithmic axes.
  """

  @width 640
  @height 400
  @margin 60
  @colours ~w[#4b5cc4 #c4574b #3f9a5f #b08a2e #8a4bc4 #2e9ab0 #666666 #c44b9c #222222]

  @doc "Draws lines, each with its name and its points. The points of a line that stands alone show their values."
  def svg(heading, title, lines) do
    {xs, ys} = lines |> Enum.flat_map(&elem(&1, 1)) |> Enum.unzip()
    x = scale(xs, @margin, @width - @margin)
    y = scale(ys, @height - @margin, @margin)
    coloured = Enum.zip(lines, Stream.cycle(@colours))
    width = if match?([_], lines), do: @width, else: @width + @margin

    """
    <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{width} #{@height}" font-family="sans-serif" font-size="11">
    <rect width="100%" height="100%" fill="white"/>
    <text x="#{@margin}" y="24" font-size="14">#{heading}</text>
    <text x="#{@margin}" y="40" fill="gray">#{title}</text>
    #{for {{_name, points}, colour} <- coloured, do: line(points, x, y, colour)}
    #{for number <- Enum.uniq(xs), do: tick(x.(number), number)}
    #{if match?([_], lines), do: values(points(lines), x, y), else: legend(coloured, y)}
    </svg>
    """
  end

  defp points([{_name, points}]), do: points

  defp line(points, x, y, colour) do
    places = for {a, b} <- points, do: {round(x.(a)), round(y.(b))}

    """
    <polyline points="#{Enum.map_join(places, " ", fn {a, b} -> "#{a},#{b}" end)}" fill="none" stroke="#{colour}" stroke-width="2"/>
    #{for {a, b} <- places, do: ~s(<circle cx="#{a}" cy="#{b}" r="3" fill="#{colour}"/>\n)}
    """
  end

  defp tick(place, number) do
    """
    <text x="#{round(place)}" y="#{@height - @margin + 24}" text-anchor="middle" fill="gray">#{short(number)}</text>
    """
  end

  defp values(points, x, y) do
    for {a, b} <- points do
      """
      <text x="#{round(x.(a))}" y="#{round(y.(b)) - 8}" text-anchor="middle">#{short(b)}</text>
      """
    end
  end

  # Names in the order of the lines' ends, from above, and the values there.
  defp legend(coloured, y) do
    coloured
    |> Enum.sort_by(fn {{_name, points}, _colour} -> y.(elem(List.last(points), 1)) end)
    |> Enum.with_index()
    |> Enum.map(fn {{{name, points}, colour}, index} ->
      """
      <text x="#{@width - @margin + 4}" y="#{@margin + 14 * index}" font-size="9" fill="#{colour}">#{name} #{short(elem(List.last(points), 1))}</text>
      """
    end)
  end

  # From the smallest to the largest value, by their logarithms.
  defp scale(values, from, to) do
    low = :math.log(Enum.min(values))
    range = max(:math.log(Enum.max(values)) - low, 0.1)
    fn value -> from + (:math.log(value) - low) / range * (to - from) end
  end

  defp short(number) when number >= 1_000_000, do: "#{Float.round(number / 1_000_000, 1)}M"
  defp short(number) when number >= 1_000, do: "#{Float.round(number / 1_000, 1)}k"
  defp short(number) when is_float(number) and number < 0.1, do: "#{Float.round(number, 2)}"
  defp short(number) when is_float(number), do: "#{Float.round(number, 1)}"
  defp short(number), do: "#{number}"
end
