defmodule Snex.Drawings.Shapes do
  @moduledoc """
  Boxes, arrows and text as SVG, 720 wide, on a light panel of their own: they are readable on a page of any colour.
  """

  @width 720
  @ink "#1f2333"
  @muted "#5b6072"

  # Background and border, by what a shape stands for.
  @colours %{
    elixir: {"#e8eafc", "#4b5cc4"},
    python: {"#fff4d1", "#a8801f"},
    native: {"#fbe9e4", "#b8563b"},
    warden: {"#e3f3e8", "#3a8a57"},
    failure: {"#fbdcdc", "#b93a3a"},
    plain: {"#ffffff", "#9aa0b4"}
  }

  @doc "The whole drawing. `description` is the text that screen readers read aloud."
  def svg(description, height, shapes) do
    """
    <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{@width} #{height}" width="#{@width}" height="#{height}" font-family="sans-serif" font-size="13" fill="#{@ink}" role="img" aria-label="#{escape(description)}">
    <defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="#{@muted}"/></marker></defs>
    <rect x="0.5" y="0.5" width="#{@width - 1}" height="#{height - 1}" rx="8" fill="#ffffff" stroke="#d5d8e2"/>
    #{shapes}
    </svg>
    """
    |> String.replace(~r/^\s*\n/m, "")
  end

  @doc "An area with its title in the upper left corner, for boxes to lie in."
  def area(kind, {x, y, width, height}, title) do
    {_fill, stroke} = @colours[kind]

    """
    <rect x="#{x}" y="#{y}" width="#{width}" height="#{height}" rx="8" fill="none" stroke="#{stroke}" stroke-dasharray="5 4"/>
    <text x="#{x + 14}" y="#{y + 22}" font-weight="bold" fill="#{stroke}">#{escape(title)}</text>
    """
  end

  @doc "A box with a title and lines below it, all in its middle. Lines in backquotes are code."
  def box(kind, {x, y, width, height}, title, lines \\ []) do
    {fill, stroke} = @colours[kind]
    # Of the first line: the lines, 17 apart, fill the middle of the box.
    first = y + div(height - 17 * length([title | lines]), 2) + 13

    texts =
      for {line, index} <- Enum.with_index([title | lines]) do
        style = if index == 0, do: [weight: "bold"], else: [size: 12, colour: @muted]
        text({x + div(width, 2), first + 17 * index}, line, [anchor: "middle"] ++ style)
      end

    [
      ~s(<rect x="#{x}" y="#{y}" width="#{width}" height="#{height}" rx="6" fill="#{fill}" stroke="#{stroke}"/>\n),
      texts
    ]
  end

  @doc "A stretch of time: a bar with text in it."
  def bar(kind, {x, y, width}, text) do
    {fill, stroke} = @colours[kind]

    [
      ~s(<rect x="#{x}" y="#{y}" width="#{width}" height="26" rx="4" fill="#{fill}" stroke="#{stroke}"/>\n),
      text({x + div(width, 2), y + 18}, text, anchor: "middle", size: 12)
    ]
  end

  @doc "A line through points, with a tip at its end, or with `tips: :both` or `:none`. `dashed: true` for what is not always there."
  def arrow(points, options \\ []) do
    tips =
      case Keyword.get(options, :tips, :end) do
        :end -> ~s( marker-end="url(#tip\)")
        :both -> ~s( marker-start="url(#tip\)" marker-end="url(#tip\)")
        :none -> ""
      end

    dashes = if options[:dashed], do: ~s( stroke-dasharray="4 3"), else: ""
    points = Enum.map_join(points, " ", fn {x, y} -> "#{x},#{y}" end)
    ~s(<polyline points="#{points}" fill="none" stroke="#{@muted}" stroke-width="1.5"#{dashes}#{tips}/>\n)
  end

  @doc "A line of text. In backquotes it is code. Options: `:anchor`, `:size`, `:weight`, `:colour`."
  def text({x, y}, text, options \\ []) do
    {text, family} =
      case Regex.run(~r/\A`(.*)`\z/, text) do
        [_all, code] -> {code, ~s( font-family="monospace")}
        nil -> {text, ""}
      end

    attributes =
      for {name, option} <- [
            {"text-anchor", :anchor},
            {"font-size", :size},
            {"font-weight", :weight},
            {"fill", :colour}
          ],
          value = options[option],
          do: ~s( #{name}="#{value}")

    ~s(<text x="#{x}" y="#{y}"#{family}#{attributes}>#{escape(text)}</text>\n)
  end

  @doc "A label beside an arrow."
  def label(place, text, options \\ []), do: text(place, text, [size: 12, colour: @muted] ++ options)

  @doc "The number of a step."
  def step({x, y}, number) do
    [
      ~s(<circle cx="#{x}" cy="#{y}" r="10" fill="#{@ink}"/>\n),
      text({x, y + 4}, "#{number}", anchor: "middle", size: 12, weight: "bold", colour: "#ffffff")
    ]
  end

  defp escape(text) do
    for {from, to} <- [{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}],
        reduce: text,
        do: (text -> String.replace(text, from, to))
  end
end
