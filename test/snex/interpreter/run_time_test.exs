defmodule Snex.Interpreter.RunTimeTest do
  # Not async: the environment variable that says where caches go is exchanged.
  use Snex.Case

  import ExUnit.CaptureIO

  @moduletag :tmp_dir

  @toml """
  [project]
  name = "run-time"
  version = "0.0.0"
  requires-python = ">=3.10"
  dependencies = ["iniconfig"]
  """

  setup %{tmp_dir: folder}, do: exchange_cache(folder)

  defp start(opts) do
    opts = Keyword.merge([pyproject_toml: @toml, python_preference: :system], opts)
    with_io(fn -> Interpreter.start_link(opts) end)
  end

  test "an interpreter with packages of its own, made once for each text", %{tmp_dir: folder} do
    assert {{:ok, inp}, output} = start([])
    assert output =~ "iniconfig"
    assert {:ok, file} = Snex.pyeval(inp, "import iniconfig; return iniconfig.__file__")
    assert String.starts_with?(file, Path.join(folder, "snex/run_time/projects/"))

    # The second time, uv is not even looked for.
    assert {{:ok, again}, ""} = start(uv: "/no/such/uv")
    assert Snex.pyeval(again, "import iniconfig; return iniconfig.__file__") == {:ok, file}

    # Another text, another environment.
    assert {{:ok, other}, _output} = start(pyproject_toml: String.replace(@toml, "iniconfig", "packaging"))
    assert {:error, _} = Snex.pyeval(other, "import iniconfig")
    assert Snex.pyeval(inp, "import iniconfig") == {:ok, nil}
  end

  test "the environment is active, whatever else the variables are" do
    code = """
    import os, shutil, sys
    return shutil.which("python") == sys.executable, os.environ["VIRTUAL_ENV"] == sys.prefix, os.environ["PATH"]
    """

    for environment <- [%{"PATH" => "/usr/bin"}, {:only, %{"PATH" => "/usr/bin"}}] do
      assert {{:ok, inp}, _output} = start(environment: environment)
      assert {:ok, {true, true, path}} = Snex.pyeval(inp, code)
      assert String.ends_with?(path, "/.venv/bin:/usr/bin")
    end

    # Programs of the system are found without PATH, and have to be found with it.
    assert {{:ok, inp}, _output} = start(environment: {:only, %{}})
    assert {:ok, "/bin/sh"} = Snex.pyeval(inp, "import shutil; return shutil.which('sh')")

    assert {{:ok, inp}, _output} = start(environment: %{"VIRTUAL_ENV" => "/mine"})
    assert {:ok, {true, false, _path}} = Snex.pyeval(inp, code)
  end

  test "with sync_start?: false calls wait until the packages are there" do
    {result, _output} =
      with_io(fn ->
        {:ok, inp} =
          Interpreter.start_link(pyproject_toml: @toml, python_preference: :system, sync_start?: false)

        Snex.pyeval(inp, "import iniconfig; return 1", timeout: 60_000)
      end)

    assert result == {:ok, 1}
  end

  test "what uv says is the reason of a start that fails" do
    Process.flag(:trap_exit, true)
    toml = String.replace(@toml, "iniconfig", "no-such-package-anywhere-at-all")
    assert {{:error, %Error{code: :call_failed, reason: reason}}, _output} = start(pyproject_toml: toml)
    assert reason =~ "this command ended with status 1:\n\n    uv lock"
    assert reason =~ "no-such-package-anywhere-at-all"
  end

  test "mistakes in the text are told before uv is started" do
    toml = String.replace(@toml, ">=3.10", "3.10")

    error =
      assert_raise ArgumentError, fn -> Interpreter.start_link(pyproject_toml: toml, uv: "/no/such/uv") end

    assert error.message =~ "pyproject_toml:4:20: project.requires-python: `3.10` is one version"
  end

  test "options that do not go together are named" do
    assert_raise ArgumentError, ~r/:python and :pyproject_toml cannot be combined/, fn ->
      Interpreter.start_link(pyproject_toml: @toml, python: "python3")
    end

    assert_raise ArgumentError, ~r/\[:uv\] need the option :pyproject_toml/, fn ->
      Interpreter.start_link(uv: "uv")
    end

    assert_raise ArgumentError, ~r/option :python_preference cannot be :mine/, fn ->
      Interpreter.start_link(pyproject_toml: @toml, python_preference: :mine)
    end
  end

  describe "python_path:" do
    test "folders come behind the package and before all others, in order", %{tmp_dir: folder} do
      for {name, value} <- [one: 1, two: 2] do
        File.mkdir_p!(Path.join(folder, "#{name}"))
        File.write!(Path.join(folder, "#{name}/whose.py"), "value = #{value}")
        # Nothing hides the package.
        File.write!(Path.join(folder, "#{name}/snex.py"), "raise ImportError")
      end

      File.write!(Path.join(folder, "two/only.py"), "here = True")
      paths = [Path.join(folder, "one"), Path.join(folder, "two")]
      inp = start_interpreter!(python_path: paths, environment: %{"PYTHONPATH" => "/elsewhere"})
      code = "import os, whose, only; return whose.value, os.environ['PYTHONPATH'].split(':')[1:]"
      assert Snex.pyeval(inp, code) == {:ok, {1, paths ++ ["/elsewhere"]}}
    end

    test "a folder of an application is found where the application is" do
      inp = start_interpreter!(python_path: {:snex, "priv"})
      code = "import os; return os.environ['PYTHONPATH'].split(':')[1]"
      assert Snex.pyeval(inp, code) == {:ok, Application.app_dir(:snex, "priv")}
    end

    test "a folder that is not there, and what is none, are errors that name it", %{tmp_dir: folder} do
      Process.flag(:trap_exit, true)
      missing = Path.join(folder, "missing")
      assert {:error, %Error{reason: reason}} = Interpreter.start_link(python_path: missing)
      assert reason == "no folder at #{inspect(missing)}, which is in :python_path"

      assert_raise ArgumentError,
                   ~r"option :python_path cannot be \"/a:b\": expected a path without a colon",
                   fn ->
                     Interpreter.start_link(python_path: ["/tmp", "/a:b"])
                   end

      assert_raise ArgumentError, ~r/option :python_path cannot be .*: expected a folder/, fn ->
        Interpreter.start_link(python_path: 7)
      end
    end
  end
end
