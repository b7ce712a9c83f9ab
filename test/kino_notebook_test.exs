defmodule Snex.KinoNotebookTest do
  # The tests of kino_snex run this notebook as it is, where Kino can be had. Here its Python is run without Kino.
  use Snex.Case, async: true

  alias Snex.Cell
  alias Snex.Display
  alias Snex.Livebook.Notebook
  alias Snex.Object

  @moduletag :slow
  @moduletag timeout: 600_000

  @notebook Path.expand("../examples/livebook/data_frame_and_plot.livemd", __DIR__)

  test "the Python of data_frame_and_plot.livemd makes what the notebook shows" do
    [_setup, start | cells] =
      for cell <- Notebook.cells!(@notebook), do: {Code.string_to_quoted!(cell.code), cell}

    {{:__block__, _, [_import, {_start, _, [options]}]}, _cell} = start
    {options, []} = Code.eval_quoted(options)
    {:ok, env} = Snex.make_env(start_supervised!({Interpreter, options}))

    # The others read what Python has made.
    [{{:=, _, _} = cities, _cell} | cells] = cells
    {cities, _binding} = Code.eval_quoted(cities)
    sources = for {{:sigil_PY, _, [{:<<>>, _, [source]}, []]}, cell} <- cells, do: {source, cell}

    assert [{frame, [], kept}, {nil, [:figure], []}, {styler, [], []}, {nil, lines, []}, last] =
             for({source, cell} <- sources, do: run!(env, source, %{"cities" => cities}, cell))

    assert {:ok, %Display{type: :table, data: %{"rows" => 1095}}} = Display.of(frame)
    assert [Object.repr!(frame)] == kept
    assert {:ok, %Display{type: "text/html"}} = Display.of(styler)
    assert lines == List.duplicate("image/svg+xml", 3)
    assert {nil, [], []} = last
  end

  # The cell's value, what it has shown before, and the outputs that the notebook keeps.
  defp run!(env, source, vars, cell) do
    test = self()
    display = fn display, _object -> send(test, {:displayed, display.type}) end
    {:ok, %Cell{} = run} = Cell.run(env, source, vars, timeout: 60_000, display: display)
    {run.value, displayed() ++ for(<<0x89, "PNG", _::binary>> <- run.figures, do: :figure), cell.outputs}
  end

  # All of it has arrived before the cell's value has.
  defp displayed do
    receive do
      {:displayed, type} -> [type | displayed()]
    after
      0 -> []
    end
  end
end
