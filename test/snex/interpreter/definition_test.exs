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

  test "the module gets start_link/1, child_spec/1, os_pid/1, info/1, stop/1,2,3, and a Python below _build/$MIX_ENV/snex" do
    module = define(@toml)
    refute module.__mix_recompile__?()
    assert %{id: ^module, start: {^module, :start_link, [[]]}} = module.child_spec([])
    assert %{id: :other} = module.child_spec(name: :other)

    {:ok, interpreter} = module.start_link()
    pid = module.os_pid(interpreter)
    venv = Path.join([Mix.Project.build_path(), "snex", "projects", inspect(module), ".venv"])

    assert {:ok, {^venv, ^pid}} =
             Snex.pyeval(interpreter, "import sys, os\nreturn sys.prefix, os.getpid()")

    assert %{os_pid: ^pid, requests_served: 1} = module.info(interpreter)
    assert module.stop(interpreter) == :ok

    for stop <- [&module.stop(&1, :normal), &module.stop(&1, :normal, 60_000)] do
      {:ok, interpreter} = module.start_link([])
      assert stop.(interpreter) == :ok
      refute Process.alive?(interpreter)
    end
  end

  test "subprocesses find the environment's Python and the scripts of its packages" do
    toml = String.replace(@toml, "'>=3.10'", "'>=3.10'\\ndependencies = ['numpy>=2']")
    module = define(toml)
    inp = start_supervised!(module)

    code = """
    import os, subprocess, sys
    def run(*command):
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    return (
        sys.prefix, os.environ["VIRTUAL_ENV"], run("python", "-c", "import sys; print(sys.prefix)"),
        run("numpy-config", "--version") == __import__("numpy").__version__,
    )
    """

    assert {:ok, {venv, venv, venv, true}} = Snex.pyeval(inp, code, timeout: 60_000)
  end

  test "the label is the module, or the one that is given" do
    module = define(@toml)
    label = fn opts -> module.start_link(opts) |> elem(1) |> Process.info(:label) end
    assert label.([]) == {:label, module}
    assert label.(label: "mine") == {:label, "mine"}
    assert label.(label: nil) == {:label, :undefined}
  end

  test "start_link/1, child_spec/1 and __mix_recompile__?/0 can be overridden" do
    name = "Snex.DefinitionTest.Overridden"

    code = """
    defmodule #{name} do
      use Snex.Interpreter, #{@toml}
      def start_link(opts), do: super(Keyword.put(opts, :init_script, "x = 42"))
      def child_spec(opts), do: Map.put(super(opts), :restart, :transient)
      def __mix_recompile__?, do: {:asked, super()}
    end
    """

    on_exit(fn ->
      File.rm_rf!(Path.join([Mix.Project.build_path(), "snex", "projects", name]))
    end)

    {[{module, _}], _} = with_io(fn -> Code.compile_string(code) end)
    assert %{id: ^module, restart: :transient, shutdown: 1_300} = module.child_spec(stop_timeout: 300)
    assert module.__mix_recompile__?() == {:asked, false}
    {:ok, interpreter} = module.start_link([])
    assert Snex.pyeval(interpreter, "return x") == {:ok, 42}
    module.stop(interpreter)
  end

  @tag :tmp_dir
  test "pyproject.toml and uv.lock below :project_path are external resources of the module", %{tmp_dir: path} do
    File.write!(Path.join(path, "pyproject.toml"), """
    [project]
    name = "m"
    version = "0.0.0"
    requires-python = ">=3.10"
    """)

    module = define("project_path: #{inspect(path)}")
    resources = for {:external_resource, files} <- module.__info__(:attributes), file <- files, do: file
    assert Path.join(path, "pyproject.toml") in resources
    assert Path.join(path, "uv.lock") in resources
    refute module.__mix_recompile__?()
    File.write!(Path.join(path, "pyproject.toml"), "# changed\n", [:append])
    assert module.__mix_recompile__?()
  end

  test "exactly one of :pyproject_toml and :project_path is required" do
    assert error("[]") =~ "one of :pyproject_toml and :project_path"
    assert error(@toml <> ~s|, project_path: "x"|) =~ "one of :pyproject_toml and :project_path"
    assert error(~s|project_path: "/no/such"|) =~ "no pyproject.toml in /no/such"
  end

  test "an option that is not known is a compile error, which names it and the nearest known one" do
    assert error(@toml <> ", python_preferense: :system") =~
             "unknown option :python_preferense, did you mean :python_preference?"

    assert error(@toml <> ", python_preference: :any") =~
             "option :python_preference cannot be :any: expected :managed,"

    assert error(@toml <> ", groups: :dev") =~ "option :groups cannot be :dev: expected a list of names"
    assert error(@toml <> ", locked: 1") =~ "option :locked cannot be 1: expected true or false"
    assert error(@toml <> ", init_scirpt: 1") =~ "did you mean :init_script?"
  end

  describe "every start option can be given as a default:" do
    test "it is evaluated in the module at each start, and start_link/1 overrides it" do
      module =
        define("""
        #{@toml},
          name: __MODULE__,
          restart: :transient,
          stop_timeout: 300,
          label: :erlang.unique_integer(),
          init_script: {%Snex.Code{src: "x = hidden"}, %{"hidden" => hidden()}},
          wrap_exec: fn python, args -> {python, args} end,
          environment: %{"WRAPPED" => inspect(&wrapped/2)}

          defp hidden, do: 42
          defp wrapped(python, args), do: {python, args}
        """)

      assert %{id: ^module, restart: :transient, shutdown: 1_300, start: {^module, :start_link, [[]]}} =
               module.child_spec([])

      assert %{id: :other, shutdown: 2_000} = module.child_spec(name: :other, stop_timeout: 1_000)
      start_supervised!(module)

      assert {:ok, {42, "#Function" <> _}} = Snex.pyeval(module, "import os; return x, os.environ['WRAPPED']")

      {:dictionary, dictionary} = Process.info(Process.whereis(module), :dictionary)

      start_supervised!({module, name: :"#{module}.Other", init_script: "x = 1"})
      assert Snex.pyeval(:"#{module}.Other", "return x") == {:ok, 1}
      {:dictionary, other} = Process.info(Process.whereis(:"#{module}.Other"), :dictionary)
      assert is_integer(other[:"$process_label"])
      assert dictionary[:"$process_label"] != other[:"$process_label"]
    end

    test "also from an expression, as long as its values can be kept in the module" do
      module = define(~s|[label: :mine, init_script: "x = 1"] ++ [#{@toml}]|)
      interpreter = start_supervised!(module)
      assert Snex.pyeval(interpreter, "return x") == {:ok, 1}
    end

    test "one that is wrong is a compile error where it is written down, or else when it starts" do
      assert error(@toml <> ", stop_timeout: -1") =~
               "use Snex.Interpreter: option :stop_timeout cannot be -1: expected milliseconds"

      assert error(@toml <> ", restart: :always") =~ "expected :permanent, :transient or :temporary"
      assert error("[stop_timeout: 0 - 1] ++ [#{@toml}]") =~ "option :stop_timeout cannot be -1"
      module = define(@toml <> ", stop_timeout: 0 - 1")
      assert_raise ArgumentError, ~r/option :stop_timeout cannot be -1/, fn -> module.start_link() end
    end
  end

  @tag :tmp_dir
  test "a module is compiled again when its lock changes", %{tmp_dir: tmp_dir} do
    # As `define` has it. It is made here because uv makes none in an environment with CI=true.
    toml = "[project]\nname = 'm'\nversion = '0.0.0'\nrequires-python = '>=3.10'\n"
    File.write!(Path.join(tmp_dir, "pyproject.toml"), toml)
    {_, 0} = System.cmd("uv", ["lock"], cd: tmp_dir, stderr_to_stdout: true)
    lock = Path.join(tmp_dir, "uv.lock")

    module = define(@toml <> ", lock: #{inspect(Path.relative_to_cwd(lock))}")
    refute module.__mix_recompile__?()
    assert [lock] in Keyword.get_values(module.__info__(:attributes), :external_resource)

    File.write!(lock, File.read!(lock) <> "\n")
    assert module.__mix_recompile__?()
    assert error(~s|project_path: "#{tmp_dir}", lock: "m.lock"|) =~ "a folder has its own uv.lock"
  end

  @tag :tmp_dir
  test "install_project: needs a folder with a package in it", %{tmp_dir: tmp_dir} do
    assert error(@toml <> ", install_project: true") =~ "install_project: needs :project_path"
    toml = "[project]\nname = 'm'\nversion = '0.0.0'\nrequires-python = '>=3.10'\n"
    File.write!(Path.join(tmp_dir, "pyproject.toml"), toml)
    assert error(~s|project_path: "#{tmp_dir}", install_project: true|) =~ "has no [build-system] table"
    define(~s|project_path: "#{tmp_dir}", install_project: false|)
  end

  test "what uv says is part of the compile error" do
    message = error(~S|pyproject_toml: "[project]\nname = 'm'\nversion = '0'\nrequires-python = '>=3.99'\n"|)
    assert message =~ "uv venv"
    assert message =~ ">=3.99"
  end

  test "without uv, the compile error says what to install" do
    message = error(@toml <> ~s|, uv: "no-such-uv"|)
    assert message =~ "there is no program `no-such-uv`"
    assert message =~ "uv 0.6.8 or later, see https://docs.astral.sh/uv/getting-started/installation/"
  end
end
