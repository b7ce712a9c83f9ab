defmodule KinoSnex.Output do
  @moduledoc false
  # The Kino that shows what Python says of an object.

  alias Snex.Display
  alias Snex.Object

  @doc """
  Asks Python in one round trip. An object that fails to show itself is shown with its error.
  """
  @spec of(Object.t()) :: term()
  def of(%Object{} = object) do
    case Display.of(object, timeout: :infinity) do
      {:ok, display} -> new(display, object)
      {:error, error} -> Kino.Text.new(inspect(object) <> "\n" <> Exception.message(error), terminal: true)
    end
  end

  @spec new(Display.t(), Object.t()) :: term()
  def new(%Display{type: :table, data: data}, frame), do: KinoSnex.Frame.new(frame, data)
  def new(%Display{type: "text/html", data: html}, _object), do: Kino.HTML.new(html)
  def new(%Display{type: "image/svg+xml", data: svg}, _object), do: Kino.Image.new(svg, :svg)
  def new(%Display{type: "image/png", data: png}, _object), do: Kino.Image.new(png, :png)
  def new(%Display{type: "image/jpeg", data: jpeg}, _object), do: Kino.Image.new(jpeg, :jpeg)
  def new(%Display{type: "text/markdown", data: text}, _object), do: Kino.Markdown.new(text)
  # Livebook's Markdown sets formulas between dollars.
  def new(%Display{type: "text/latex", data: text}, _object), do: Kino.Markdown.new(text)
  def new(%Display{type: "application/vnd.vegalite+json", data: json}, _object), do: Kino.HTML.new(vega(json))
  def new(%Display{data: text}, _object), do: Kino.Text.new(text, terminal: true)

  # The document is JSON; only a tag could end the script early.
  defp vega(json) do
    """
    <div id="chart"></div>
    <script type="module">
      import embed from "https://cdn.jsdelivr.net/npm/vega-embed@6/+esm";
      embed("#chart", #{String.replace(json, "</", "<\\/")});
    </script>
    """
  end
end

defimpl Kino.Render, for: Snex.Object do
  def to_livebook(object), do: object |> KinoSnex.Output.of() |> Kino.Render.to_livebook()
end

defimpl Table.Reader, for: Snex.Object do
  alias Snex.Display

  # A reader of a large frame holds this many of its rows.
  @page 10_000

  def init(object) do
    case Display.of(object, timeout: :infinity) do
      {:ok, %Display{type: :table, data: %{"columns" => columns, "rows" => rows}}} ->
        {:rows, %{columns: columns, count: rows}, rows(object, rows)}

      _other ->
        :none
    end
  end

  defp rows(frame, count), do: Stream.flat_map(0..(count - 1)//@page, &page!(frame, &1))

  defp page!(frame, offset) do
    case Display.page(frame, offset, @page, timeout: :infinity) do
      {:ok, columns} -> Enum.zip_with(columns, & &1)
      {:error, error} -> raise error
    end
  end
end
