defmodule KinoSnex.PythonCell do
  @moduledoc false
  # The smart cell: an editor for Python, the name of an interpreter, and that of a variable for the result.

  use Kino.JS
  use Kino.JS.Live
  use Kino.SmartCell, name: "Python (Snex)"

  @fields ~w[interpreter variable]

  @impl true
  def init(attrs, ctx) do
    fields = Map.new(@fields, &{&1, attrs[&1] || ""})
    code = attrs["code"] || ""
    {:ok, assign(ctx, fields: fields, code: code), editor: [source: code, language: "python"]}
  end

  @impl true
  def handle_connect(ctx), do: {:ok, ctx.assigns.fields, ctx}

  @impl true
  def handle_editor_change(code, ctx), do: {:ok, assign(ctx, code: code)}

  @impl true
  def handle_event(field, text, ctx) when field in @fields do
    # What it cannot be is refused, and the old text reappears.
    fields = if valid?(field, text), do: %{ctx.assigns.fields | field => text}, else: ctx.assigns.fields
    broadcast_event(ctx, field, fields[field])
    {:noreply, assign(ctx, fields: fields)}
  end

  @impl true
  def to_attrs(ctx), do: Map.put(ctx.assigns.fields, "code", ctx.assigns.code)

  @impl true
  def to_source(%{"variable" => variable, "code" => code} = attrs) do
    assign = if variable == "", do: "", else: variable <> " = "

    case attrs["interpreter"] || "" do
      "" -> "import Snex.Livebook, only: [sigil_PY: 2]\n\n" <> assign <> sigil(code)
      name -> "import Snex.Livebook, only: [on: 2]\n\n" <> assign <> "on(#{name}, " <> sigil(code) <> ")"
    end
  end

  # An empty field stands for the notebook's interpreter, or for no variable.
  defp valid?(_field, ""), do: true
  defp valid?("variable", text), do: variable?(text)

  defp valid?("interpreter", text),
    do: text =~ ~r/\A([A-Z][A-Za-z0-9_]*(\.[A-Z][A-Za-z0-9_]*)*|:[a-z_][A-Za-z0-9_]*)\z/

  # Keywords, which look like names, are something else when they are parsed.
  defp variable?(name),
    do: name =~ ~r/\A_?[a-z][A-Za-z0-9_]*\z/ and match?({:ok, {_, _, nil}}, Code.string_to_quoted(name))

  # Returns the first form that Elixir reads as exactly this code. A heredoc cannot hold everything: quotes at the beginning of a line end
  # it, and Elixir takes a backslash before them for its own. The last form can, but is hard to read.
  defp sigil(code) do
    code = code <> "\n"

    forms =
      for form <- [&heredoc/2, &escaped_heredoc/2], quotes <- [~S("""), "'''"], do: form.(code, quotes)

    Enum.find(forms, &(read(&1) == code)) ||
      "sigil_PY(<<#{inspect(code, printable_limit: :infinity)}>>, [])"
  end

  defp heredoc(code, quotes), do: "~PY#{quotes}\n#{code}#{quotes}"

  defp escaped_heredoc(code, quotes),
    do: code |> String.replace(~r/^([ \t]*)(#{quotes})/m, "\\1\\\\\\2") |> heredoc(quotes)

  defp read(source) do
    case Code.string_to_quoted(source, emit_warnings: false) do
      {:ok, {:sigil_PY, _, [{:<<>>, _, [code]}, []]}} -> code
      _error -> nil
    end
  end

  asset "main.js" do
    """
    export function init(ctx, payload) {
      ctx.root.innerHTML = `<style>
        div { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: center; padding-bottom: 8px; font: 14px sans-serif }
        input { margin-left: 4px; width: 11em }
      </style><div><b>Python (Snex)</b>
        <label>in<input name="interpreter" placeholder="the notebook's Python"></label>
        <label>result in<input name="variable" placeholder="no variable"></label></div>`;
      for (const input of ctx.root.querySelectorAll("input")) {
        input.value = payload[input.name];
        input.addEventListener("change", () => ctx.pushEvent(input.name, input.value));
        ctx.handleEvent(input.name, (text) => { input.value = text; });
      }
      ctx.handleSync(() => document.activeElement && document.activeElement.dispatchEvent(new Event("change")));
    }
    """
  end
end
