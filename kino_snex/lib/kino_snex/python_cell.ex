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
    # What is no name of a variable is not taken, and the old name reappears.
    variable =
      if variable == "" or variable =~ ~r/\A[a-z_][A-Za-z0-9_]*\z/, do: variable, else: ctx.assigns.variable

    broadcast_event(ctx, "variable", variable)
    {:noreply, assign(ctx, variable: variable)}
  end

  @impl true
  def to_attrs(ctx), do: %{"variable" => ctx.assigns.variable, "code" => ctx.assigns.code}

  @impl true
  def to_source(%{"variable" => variable, "code" => code}) do
    quotes = if String.contains?(code, ~S(""")), do: "'''", else: ~S(""")
    assign = if variable == "", do: "", else: variable <> " = "
    "import Snex.Livebook, only: [sigil_PY: 2]\n\n#{assign}~PY#{quotes}\n#{code}\n#{quotes}"
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
