defmodule Snex.LivebookTest do
  # Not async: the notebook's interpreter has a name.
  use ExUnit.Case

  import Kino.Test

  alias Snex.Livebook
  alias Snex.Object

  setup :configure_livebook_bridge

  @pandas """
  [project]
  name = "kino-snex-test"
  version = "0.0.0"
  requires-python = ">=3.10"
  dependencies = ["pandas>=2.2", "matplotlib>=3.9"]
  """

  # Evaluates a cell as Livebook does: after the one before it, in its binding.
  defp cell(code, binding \\ []) do
    env = Code.env_for_eval(file: "notebook.livemd#cell:1")

    {value, binding, _env} =
      Code.eval_quoted_with_env(Code.string_to_quoted!("import Snex.Livebook\n" <> code), binding, env)

    {value, binding}
  end

  test "without an interpreter, the message says how to start one" do
    if pid = Process.whereis(Livebook.Interpreter), do: Kino.terminate_child(pid)
    assert_raise RuntimeError, ~r/Snex.Livebook.start\(\)/, fn -> cell("~PY'1'") end
  end

  describe "a cell" do
    setup do
      {:ok, python: Livebook.start()}
    end

    test "reads variables, binds names, and has the value of its final expression" do
      assert {5, binding} = cell(~S|~PY"y = x + 1; y + 1"|, x: 3)
      assert binding[:y] == 4
    end

    test "shows no value without a final expression" do
      assert {value, _} = cell(~S|~PY"y = 1"|)
      assert value == Kino.nothing()
      assert {^value, _} = cell(~S|~PY"y;"|)
      assert {nil, _} = cell(~S|~PY"None"|)
      assert {5, _} = cell(~S|~PY"if y: return 5"|, y: 1)
    end

    test "goes on where the one before it ended, and not with what a later one did" do
      cell(~S|~PY"import math; a = [1]"|)
      after_first = Process.get({Livebook, Livebook.Interpreter})
      assert {1.0, _} = cell(~S|~PY"b = 2; math.sqrt(a[0])"|)
      assert {2, _} = cell(~S|~PY"b"|)
      # As Livebook evaluates the second cell again, or a section that branches off.
      Process.put({Livebook, Livebook.Interpreter}, after_first)
      assert %{error: %{exception: %{type: "NameError"}}} = catch_error(cell(~S|~PY"b"|))
    end

    test "runs in another interpreter, where it goes on after the one before it there" do
      Kino.start_child!({Snex.Interpreter, name: KinoSnex.Other, init_script: "here = 'other'"})
      assert {nil, _} = cell(~S|~PY"globals().get('here')"|)
      assert {"other", binding} = cell(~S|on KinoSnex.Other, ~PY"y = x; here"|, x: 3)
      assert binding[:y] == 3

      assert {false, _} = cell(~S|~PY"'y' in globals()"|)

      assert {4, _} = cell(~S|on KinoSnex.Other, ~PY"y + 1"|)
      Kino.terminate_child(Process.whereis(KinoSnex.Other))

      assert %RuntimeError{message: "no interpreter has the name KinoSnex.Other: start one" <> _} =
               catch_error(cell(~S|on KinoSnex.Other, ~PY"1"|))

      assert %ArgumentError{message: "expected the name of an interpreter" <> _} =
               catch_error(cell(~S|on other, ~PY"1"|, other: KinoSnex.Other))
    end

    test "that raises has Python's traceback, with its place in the notebook" do
      error = catch_error(cell("\n~PY\"\"\"\nx = 1\nx / 0\n\"\"\""))
      assert %Livebook.PythonError{} = error
      assert Exception.message(error) =~ ~s(File "notebook.livemd#cell:1", line 5, in <module>)
      assert Exception.message(error) =~ "ZeroDivisionError"
    end

    test "that does not parse says where" do
      assert %Livebook.PythonError{error: %{exception: %{type: "SyntaxError"}}} =
               catch_error(cell(~S|~PY"x = ="|))
    end

    test "shows what display gets, and in what form" do
      cell("""
      ~PY\"\"\"
      class Html:
          def _repr_html_(self): return "<b>"
          def __repr__(self): return "text"
      class Markdown:
          def _repr_markdown_(self): return "*m*"
      class Svg:
          def _repr_svg_(self): return "<svg/>"
      display(Html(), Markdown(), Svg(), 1)
      \"\"\"
      """)

      assert_output(%{type: :js}, 60_000)
      assert_output(%{type: :markdown, text: "*m*"}, 60_000)
      assert_output(%{type: :image, content: "<svg/>", mime_type: "image/svg+xml"}, 60_000)
      assert_output(%{type: :terminal_text, text: "1"}, 60_000)
    end

    test "is interrupted when Livebook stops it", %{python: python} do
      test = self()
      gl = Process.group_leader()

      {pid, monitor} =
        spawn_monitor(fn ->
          Process.group_leader(self(), gl)
          cell("~PY\"\"\"\nawait Elixir.Kernel.send(test, 'running')\nwhile True: pass\n\"\"\"", test: test)
        end)

      assert_receive "running", 60_000
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^monitor, _, _, :killed}, 60_000
      assert Snex.pyeval!(python, "return 1", %{}, timeout: 60_000) == 1
    end

    test "that starts the interpreter starts it anew", %{python: python} do
      os_pid = Snex.Interpreter.os_pid(python)
      again = Livebook.start()
      assert again != python
      assert Snex.Interpreter.os_pid(again) != os_pid
      # The names went with it.
      assert {1, _} = cell(~S|~PY"1"|)
    end
  end

  test "packages that cannot be installed are an error of the cell, with uv's own words" do
    toml = String.replace(@pandas, ~r/dependencies = .*/, ~S(dependencies = ["./no-such-package"]))
    error = catch_error(Livebook.start(pyproject_toml: toml))
    assert Exception.message(error) =~ "no-such-package"
    assert Process.whereis(Livebook.Interpreter) == nil
  end

  @tag :tmp_dir
  @tag :capture_log
  test "Stop ends the installation of packages", %{tmp_dir: folder} do
    # In place of uv: a program that says who it is, and stays.
    uv = Path.join(folder, "uv")
    pid_file = Path.join(folder, "pid")
    version = ~S(if [ "$1" = --version ]; then echo "uv 0.9.9"; exit; fi)

    File.write!(
      uv,
      "#!/bin/sh\n#{version}\necho $$ >'#{pid_file}.new'\nmv '#{pid_file}.new' '#{pid_file}'\nexec sleep 1000\n"
    )

    File.chmod!(uv, 0o755)

    toml =
      String.replace(
        @pandas,
        "kino-snex-test",
        "kino-snex-stopped"
      )

    {pid, monitor} = spawn_monitor(fn -> Livebook.start(pyproject_toml: toml, uv: uv) end)
    eventually(fn -> File.exists?(pid_file) end)
    os_pid = pid_file |> File.read!() |> String.trim()
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, _, _, :killed}, 60_000
    eventually(fn -> elem(System.cmd("kill", ["-0", os_pid], stderr_to_stdout: true), 1) != 0 end)
    assert Process.whereis(Livebook.Interpreter) == nil
  end

  defp eventually(condition, attempts \\ 1200) do
    cond do
      condition.() -> :ok
      attempts == 0 -> flunk("this has not happened")
      true -> Process.sleep(50) && eventually(condition, attempts - 1)
    end
  end

  describe "with pandas and matplotlib," do
    setup do
      {:ok, python: Livebook.start(pyproject_toml: @pandas)}
    end

    test "a data frame is a table, paged and sorted in Python, and tabular" do
      {frame, _} = cell(~S|~PY"import pandas as pd; pd.DataFrame({'n': range(100), 's': ['x'] * 100})"|)
      assert %Object{} = frame
      assert %{type: :js, js_view: %{ref: ref}} = Kino.Render.to_livebook(frame)
      assert is_binary(ref)

      kino = KinoSnex.Output.of(frame)
      data = connect(kino, nil, 60_000)
      assert %{content: %{data: [["0" | _], ["x" | _]], total_rows: 100}} = data
      push_event(kino, "order_by", %{"key" => "0", "direction" => "desc"})
      assert_broadcast_event(kino, "update_content", %{data: [["99" | _], _]}, 60_000)

      assert %{"n" => n, "s" => _} = Table.to_columns(frame)
      assert Enum.take(n, 3) == [0, 1, 2]
    end

    test "a data frame larger than a page is tabular, by rows and by columns" do
      {frame, _} = cell(~S|~PY"import pandas as pd; pd.DataFrame({'n': range(20_001), 's': 'x'})"|)
      assert {:rows, %{columns: ["n", "s"], count: 20_001}, _rows} = Table.Reader.init(frame)
      rows = Table.to_rows(frame)
      assert Enum.take(rows, 1) == [%{"n" => 0, "s" => "x"}]
      assert Enum.map(rows, & &1["n"]) == Enum.to_list(0..20_000)
      assert frame |> Table.to_columns() |> Map.fetch!("n") |> Enum.sum() == Enum.sum(0..20_000)

      {empty, _} = cell(~S|~PY"pd.DataFrame({'n': []})"|)
      assert Enum.to_list(Table.to_rows(empty)) == []
    end

    test "figures that are open are shown at the end of the cell" do
      cell(~S|~PY"import matplotlib.pyplot as plt; plt.plot([1, 2]);"|)
      assert_output(%{type: :image, content: <<0x89, "PNG", _::binary>>, mime_type: "image/png"}, 60_000)
    end
  end
end
