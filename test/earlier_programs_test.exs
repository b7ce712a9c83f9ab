defmodule Snex.EarlierProgramsTest do
  # What programs for Snex 0.4 do that the migration page doesn't show.
  use Snex.Case

  import ExUnit.CaptureIO
  import Snex.Sigils

  @moduletag :tmp_dir
  @moduletag timeout: 180_000

  test "a project folder, whose code is found by a start_link/1 of one's own", %{tmp_dir: folder} do
    File.write!(Path.join(folder, "pyproject.toml"), """
    [project]
    name = "mine"
    version = "0.0.0"
    requires-python = ">=3.10"
    """)

    File.write!(Path.join(folder, "greetings.py"), "def hello():\n    return 'hello from a file'\n")

    code = """
    defmodule Snex.EarlierProgramsTest.Mine do
      use Snex.Interpreter, project_path: #{inspect(folder)}

      def start_link(opts) do
        opts |> Keyword.put(:environment, %{"PYTHONPATH" => #{inspect(folder)}}) |> super()
      end
    end
    """

    {[{module, _}], _output} = with_io(fn -> Code.compile_string(code) end)
    {:ok, inp} = module.start_link()
    {:ok, env} = Snex.make_env(inp)
    assert Snex.pyeval(env, "import greetings; return greetings.hello()") == {:ok, "hello from a file"}
  end

  test "an Elixir function is called from Python, with an init script's names in reach" do
    {:ok, inp} = Interpreter.start_link(init_script: {"y = 2 * x", %{"x" => 3}})
    {:ok, env} = Snex.make_env(inp)
    assert Snex.pyeval(env, "return x, y") == {:ok, {3, 6}}

    code = "one, two = await Elixir.Enum.map([x, y], mapper); return one + two"
    assert Snex.pyeval(inp, code, %{"mapper" => &(&1 * 2)}) == {:ok, 18}
  end

  test "environments are copied from several others, later ones first in rank, and given variables above all" do
    {:ok, inp} = Interpreter.start_link()
    {:ok, oldest} = Snex.make_env(inp, %{"a" => 1, "b" => 1})
    {:ok, older} = Snex.make_env(inp, %{"a" => 2, "b" => 2, "c" => 2})
    {:ok, old} = Snex.make_env(inp, %{"c" => 3, "d" => 3, "e" => 3})

    assert {:ok, env} =
             Snex.make_env(inp, %{"e" => 42.0},
               from: [oldest, {older, only: ["b", "c"]}, {old, except: ["d"]}]
             )

    assert Snex.pyeval(env, "return a, b, c, 'd' in globals(), e") == {:ok, {1, 2, 3, false, 42.0}}
  end

  test "an agent keeps an environment for those who need it" do
    {:ok, inp} = Interpreter.start_link()
    {:ok, agent} = Agent.start_link(fn -> Snex.make_env!(inp, %{"text" => "kept"}) end)
    assert agent |> Agent.get(& &1) |> Snex.pyeval("return text") == {:ok, "kept"}
  end

  test "sigils interpolate and unescape, or do not" do
    assert to_string(~p"12\t#{34}") == "12\t34"
    assert to_string(~P"12\t#{34}") == "12\\t\#{34}"
    assert to_string(~PY"12\t#{34}") == "12\\t\#{34}"
  end

  test "the init script may be a sigil" do
    {:ok, inp} = Interpreter.start_link(init_script: ~P"z = 5")
    assert Snex.pyeval(inp, ~P"return z") == {:ok, 5}
  end
end
