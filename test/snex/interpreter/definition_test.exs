defmodule Snex.Interpreter.DefinitionTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO

  # Compiles a module with `use Snex.Interpreter, <opts>`, as a file at line 1.
  defp define(opts) do
    name = "Snex.DefinitionTest.M#{System.unique_integer([:positive])}"
    code = "defmodule #{name} do\n  use Snex.Interpreter, #{opts}\nend"

    on_exit(fn ->
      File.rm_rf!(Path.join([Mix.Project.build_path(), "snex", "projects", name]))
    end)

    {[{module, _}], _output} = with_io(fn -> Code.compile_string(code, "defined.ex") end)
    module
  end

  defp error(opts) do
    error = assert_raise CompileError, fn -> define(opts) end
    assert Exception.message(error) =~ "defined.ex:2: "
    error.description
  end

  @toml ~S|pyproject_toml: "[project]\nname = 'm'\nversion = '0.0.0'\nrequires-python = '>=3.10'\n"|

  test "the module has a Python of its own" do
    module = define(@toml)
    refute module.__mix_recompile__?()
    assert %{id: ^module, start: {^module, :start_link, [[]]}} = module.child_spec([])
    assert %{id: :other} = module.child_spec(name: :other)

    {:ok, interpreter} = module.start_link()
    pid = module.os_pid(interpreter)
    venv = Path.join([Mix.Project.build_path(), "snex", "projects", inspect(module), ".venv"])

    assert {:ok, {^venv, ^pid}} =
             Snex.pyeval(interpreter, "import sys, os\nreturn sys.prefix, os.getpid()")

    assert module.stop(interpreter) == :ok
  end

  test "functions can be overridden" do
    name = "Snex.DefinitionTest.Overridden"

    code = """
    defmodule #{name} do
      use Snex.Interpreter, #{@toml}
      def start_link(opts), do: super(Keyword.put(opts, :init_script, "x = 42"))
    end
    """

    on_exit(fn ->
      File.rm_rf!(Path.join([Mix.Project.build_path(), "snex", "projects", name]))
    end)

    {[{module, _}], _} = with_io(fn -> Code.compile_string(code) end)
    {:ok, interpreter} = module.start_link([])
    assert Snex.pyeval(interpreter, "return x") == {:ok, 42}
    module.stop(interpreter)
  end

  test "exactly one source" do
    assert error("[]") =~ "one of :pyproject_toml and :project_path"
    assert error(@toml <> ~s|, project_path: "x"|) =~ "one of :pyproject_toml and :project_path"
    assert error(~s|project_path: "/no/such"|) =~ "no pyproject.toml in /no/such"
  end

  test "options are checked, with the nearest known one" do
    assert error(@toml <> ", python_preferense: :system") =~ "Did you mean :python_preference?"
    assert error(@toml <> ", python_preference: :any") =~ "[python_preference: :any]"
    assert error(@toml <> ", groups: :dev") =~ "[groups: :dev]"
  end

  test "what uv says is part of the compile error" do
    message = error(~S|pyproject_toml: "[project]\nname = 'm'\n"|)
    assert message =~ "uv lock"
    assert message =~ "project.version"
  end
end
