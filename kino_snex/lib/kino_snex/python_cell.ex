defmodule KinoSnex.PythonCell do
  @moduledoc false
  # The smart cell: an editor for Python, and the name of a variable for its result.

  use Kino.JS
  use Kino.JS.Live
  use Kino.SmartCell, name: "Python (Snex)"

  @impl true
  def init(attrs, ctx) do
    ctx = assign(ctx, variable: attrs["variable"] || "", code: attrs["code"] || "")
    {:ok, ctx, editor: [source: ctx.assigns.code, language: "python"]}
  end

  @impl true
  def handle_connect(ctx), do: {:ok, %{variable: ctx.assigns.variable}, ctx}

  @impl true
  def handle_editor_change(code, ctx), do: {:ok, assign(ctx, code: code)}

  @impl true
  def handle_event("variable", variable, ctx) do
    # A name that no variable can have is refused, and the old one reappears.
    variable = if variable == "" or variable?(variable), do: variable, else: ctx.assigns.variable
    broadcast_event(ctx, "variable", variable)
    {:noreply, assign(ctx, variable: variable)}
  end

  @impl true
  def to_attrs(ctx), do: %{"variable" => ctx.assigns.variable, "code" => ctx.assigns.code}

  @impl true
  def to_source(%{"variable" => variable, "code" => code}) do
    assign = if variable == "", do: "", else: variable <> " = "
    "import Snex.Livebook, only: [sigil_PY: 2]\n\n" <> assign <> sigil(code)
  end

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
      ctx.root.innerHTML = `<label style="font: 14px sans-serif">Python (Snex), result in <input></label>`;
      const input = ctx.root.querySelector("input");
      input.value = payload.variable;
      input.addEventListener("change", () => ctx.pushEvent("variable", input.value));
      ctx.handleEvent("variable", (variable) => { input.value = variable; });
      ctx.handleSync(() => document.activeElement && document.activeElement.dispatchEvent(new Event("change")));
    }
    """
  end
end
