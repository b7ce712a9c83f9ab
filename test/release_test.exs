defmodule Snex.ReleaseTest do
  use ExUnit.Case, async: true

  alias Snex.ManagedPython
  alias Snex.OtherProject
  alias Snex.PythonPackage

  doctest Snex.Release

  @moduletag :tmp_dir
  @moduletag :slow
  @moduletag timeout: 600_000

  defp toml(name, dependencies) do
    """
    pyproject_toml: \"""
      [project]
      name = "#{name}"
      version = "0.0.0"
      requires-python = ">=3.10"
      dependencies = #{inspect(dependencies)}
      \"""
    """
  end

  defp app(opts) do
    """
    defmodule App.Numpy do
      use Snex.Interpreter, python_path: {:app, "priv/python"}, #{opts}
    end

    defmodule App do
      def compute do
        {:ok, inp} = App.Numpy.start_link(init_script: "import numpy as np, sys, mine")
        {:ok, value} = Snex.pyeval(inp, "return mine.double(float(np.arange(10).sum()))")
        {:ok, files} = Snex.pyeval(inp, "return [np.__file__, mine.__file__, snex.__file__, sys.base_prefix]")
        IO.inspect(value: value, files: files)
      end
    end
    """
  end

  @mine "def double(x):\n    return 2 * x\n"

  # A release that the program finds nothing for but what the system has: no uv, no cargo, no Elixir.
  defp run(release) do
    env = [
      {"PATH", "/usr/bin:/bin"},
      {"PYTHONPATH", nil},
      {"HOME", release},
      {"RELEASE_ROOT", nil},
      {"MIX_ENV", nil}
    ]

    System.cmd(Path.join(release, "bin/app"), ["eval", "App.compute()"], env: env, stderr_to_stdout: true)
  end

  defp files(folder), do: Path.wildcard(Path.join(folder, "**"), match_dot: true)

  test "by default a release has a Python of its own, runs elsewhere, and has no more than it needs", %{
    tmp_dir: tmp_dir
  } do
    uv = ManagedPython.uv(tmp_dir)

    source =
      OtherProject.create!(
        Path.join(tmp_dir, "app"),
        %{
          "lib/app.ex" => app("uv: #{inspect(uv)}, " <> toml("app", ["numpy>=2"])),
          "priv/python/mine.py" => @mine
        },
        ", releases: [app: [steps: [:assemble, &Snex.Release.after_assemble/1, :tar]]]"
      )

    # The test run itself prefers the machine's Python.
    env = [{"MIX_ENV", "prod"}, {"UV_PYTHON_PREFERENCE", nil}]
    OtherProject.mix!(source, ["compile"], env)
    # A Python and a project that nothing uses any more, and bytecode of another version.
    root = Path.join(source, "_build/prod/snex")
    File.mkdir_p!(Path.join(root, "python/cpython-3.9.0-left-over/bin"))
    File.mkdir_p!(Path.join(root, "projects/App.Gone/.venv"))
    [numpy] = Path.wildcard(Path.join(root, "projects/App.Numpy/.venv/lib/python3*/site-packages/numpy"))
    File.mkdir_p!(Path.join(numpy, "__pycache__"))
    File.write!(Path.join(numpy, "__pycache__/version.cpython-39.pyc"), "")

    output = OtherProject.mix!(source, ["release"], env)
    assert output =~ ~r/\* copied snex \(\d+\.\d MB of Python\)/

    # Elsewhere, without the source, `_build`, and all that is on PATH.
    release = Path.join(tmp_dir, "elsewhere")
    File.rename!(Path.join(source, "_build/prod/rel/app"), release)
    archive = Path.join(tmp_dir, "app.tar.gz")
    File.rename!(Path.join(source, "_build/prod/app-0.1.0.tar.gz"), archive)
    File.rm_rf!(source)

    snex = Path.join(release, "snex")
    assert File.ls!(Path.join(snex, "projects")) == ["App.Numpy"]
    assert [python] = File.ls!(Path.join(snex, "python"))
    refute python =~ "left-over"
    assert [program] = File.ls!(Path.join([snex, "python", python, "bin"]))
    assert program =~ ~r/^python3\.\d+$/

    for file <- files(snex) do
      with {:ok, target} <- File.read_link(file),
           do: assert(Path.type(target) == :relative, "#{file} -> #{target}")

      refute file =~ "cpython-39"
    end

    # Nothing has to be put right, so the folder may be one that cannot be written to.
    settings = Path.join(snex, "projects/App.Numpy/.venv/pyvenv.cfg")
    before = File.read!(settings)
    assert {output, 0} = run(release)
    assert output =~ "value: 90.0"
    for [_, file] <- Regex.scan(~r/"(\/[^"]+)"/, output), do: assert(String.starts_with?(file, release), file)
    # But for Python 3.14, which has to be told where it is.
    unless before =~ "version_info = 3.14", do: assert(File.read!(settings) == before)

    # An archive follows links: the copies are links again when it runs.
    unpacked = Path.join(tmp_dir, "unpacked")
    :ok = :erl_tar.extract(to_charlist(archive), [:compressed, cwd: to_charlist(unpacked)])
    File.rm_rf!(release)
    assert {output, 0} = run(unpacked)
    assert output =~ "value: 90.0"

    for [_, file] <- Regex.scan(~r/"(\/[^"]+)"/, output),
        do: assert(String.starts_with?(file, unpacked), file)

    assert {:ok, "../" <> _} = File.read_link(Path.join(unpacked, "snex/projects/App.Numpy/.venv/bin/python"))
  end

  test "with a Python of the system it says that the target needs the same one, and runs", %{tmp_dir: tmp_dir} do
    source =
      OtherProject.create!(
        Path.join(tmp_dir, "app"),
        %{
          "lib/app.ex" => app("python_preference: :only_system, " <> toml("app", ["numpy>=2"])),
          "priv/python/mine.py" => @mine
        },
        ", releases: [app: [steps: [:assemble, &Snex.Release.after_assemble/1]]]"
      )

    env = [{"MIX_ENV", "prod"}]
    OtherProject.mix!(source, ["compile"], env)
    output = OtherProject.mix!(source, ["release"], env)

    assert [_, python] =
             Regex.run(
               ~r/App.Numpy uses a Python of the system: the target machine needs the same one at (\S+)\./,
               output
             )

    release = Path.join(tmp_dir, "elsewhere")
    File.rename!(Path.join(source, "_build/prod/rel/app"), release)
    File.rm_rf!(source)

    # Python compiles nothing of ours, in whatever folder.
    assert [_ | _] =
             compiled = Path.wildcard(Path.join(release, "lib/snex-*/priv/python/snex/**/__pycache__/*.pyc"))

    for path <- compiled, do: assert(<<_magic::32, 1::little-32, _::binary>> = File.read!(path))

    refute File.exists?(Path.join(release, "snex/python"))
    assert File.read_link!(Path.join(release, "snex/projects/App.Numpy/.venv/bin/python")) == python
    assert {output, 0} = run(release)
    assert output =~ "value: 90.0"
  end

  # Where these packages are read from, and what they have to say.
  defp local_packages do
    """
    defmodule App.Local do
      use Snex.Interpreter, python_preference: :only_system, project_path: "python", install_project: true
    end

    defmodule App do
      @code \"""
      import edit, local, member, plain, subprocess
      said = subprocess.check_output(["local-say"], text=True)
      return [(m.value, m.__file__) for m in (edit, local, member, plain)], open(member.data).read(), said
      \"""

      def compute do
        {:ok, inp} = App.Local.start_link()
        IO.puts(["values: ", inspect(Snex.pyeval!(inp, @code))])
      end
    end
    """
  end

  @dependencies """
  dependencies = ["member", "edit", "plain"]
  [project.scripts]
  local-say = "local:say"
  [tool.uv.workspace]
  members = ["packages/*"]
  [tool.uv.sources]
  member = { workspace = true }
  edit = { path = "ed [i] tö", editable = true }
  plain = { path = "plain" }
  """

  test "packages that are read from the source tree are in the release itself, as they are now", %{
    tmp_dir: tmp_dir
  } do
    member = """
    import pathlib
    value = 1
    data = pathlib.Path(__file__).with_name("däta.txt")
    """

    files =
      [
        %{"lib/app.ex" => local_packages()},
        PythonPackage.files("local", "value = 4\ndef say(): print('said')\n", "python", @dependencies),
        PythonPackage.files("member", member, "python/packages/member"),
        %{"python/packages/member/src/member/däta.txt" => "ünicode"},
        PythonPackage.files("edit", "value = 2", "python/ed [i] tö"),
        PythonPackage.files("plain", "value = 3", "python/plain")
      ]
      |> Enum.reduce(&Map.merge/2)

    releases = ", releases: [app: [steps: [:assemble, &Snex.Release.after_assemble/1]]]"
    source = OtherProject.create!(Path.join(tmp_dir, "app"), files, releases)
    {_, 0} = System.cmd("uv", ["lock"], cd: Path.join(source, "python"), stderr_to_stdout: true)
    env = [{"MIX_ENV", "prod"}]
    OtherProject.mix!(source, ["compile"], env)

    for {path, name, value} <- [
          {"packages/member", "member", 1},
          {"ed [i] tö", "edit", 2},
          {"plain", "plain", 3},
          {".", "local", 4}
        ] do
      init = Path.join([source, "python", path, "src", name, "__init__.py"])
      File.write!(init, String.replace(File.read!(init), "value = #{value}", "value = #{10 * value}"))
    end

    # Also in a VM in Latin-1, to which the names of files look different.
    OtherProject.mix!(source, ["release"], [{"LC_ALL", "C"} | env])
    projects = Path.join(source, "_build/prod/snex/projects/App.Local")
    refute ".venv-release" in File.ls!(projects)

    release = Path.join(tmp_dir, "elsewhere")
    File.rename!(Path.join(source, "_build/prod/rel/app"), release)
    File.rm_rf!(source)
    assert {output, 0} = run(release)

    assert [_, values] = Regex.run(~r/values: (.*)/, output)
    assert {modules, "ünicode", "said\n"} = values |> Code.eval_string() |> elem(0)
    assert [20, 40, 10, 30] == for({value, _file} <- modules, do: value)
    for {_value, file} <- modules, do: assert(String.starts_with?(file, release), file)
  end

  test "a package that only a hand has made editable is refused, with a sentence that says what to do", %{
    tmp_dir: tmp_dir
  } do
    toml = toml("app", []) |> String.trim()

    app =
      "defmodule App.Local do\n  use Snex.Interpreter, python_preference: :only_system, python_path: \"own\", #{toml}\nend"

    files = Map.put(PythonPackage.files("hand", ""), "lib/app.ex", app)
    releases = ", releases: [app: [steps: [:assemble, &Snex.Release.after_assemble/1]]]"
    source = OtherProject.create!(Path.join(tmp_dir, "app"), files, releases)
    OtherProject.mix!(source, ["compile"])
    python = source |> OtherProject.mix!(["snex.python", "App.Local", "--path"]) |> String.trim()
    args = ["pip", "install", "--python", python, "--editable", Path.join(source, "hand")]
    {_, 0} = System.cmd("uv", args, stderr_to_stdout: true)

    assert {output, 1} = OtherProject.mix(source, ["release"])
    assert output =~ ~s(App.Local has python_path: "#{source}/own", which is not part of the release)

    assert output =~
             "App.Local could not be made: the package hand is read from #{source}/hand, which a release cannot contain"
  end

  test "an escript is refused, with a sentence that says what to make instead", %{tmp_dir: tmp_dir} do
    app = """
    defmodule App do
      def main(_) do
        Process.flag(:trap_exit, true)
        {:error, error} = Snex.Interpreter.start_link()
        IO.puts("started: " <> Exception.message(error))
        Snex.Interpreter.start_link(pyproject_toml: "")
      rescue
        error -> IO.puts("raised: " <> Exception.message(error))
      end
    end
    """

    OtherProject.create!(tmp_dir, %{"lib/app.ex" => app}, ", escript: [main_module: App]")
    OtherProject.mix!(tmp_dir, ["escript.build"])
    assert {output, 0} = System.cmd(Path.join(tmp_dir, "app"), [], stderr_to_stdout: true)
    sentence = "Snex cannot run in an escript: that is a single file"
    assert output =~ ~r/^started: .*#{sentence}.*`mix release`/m
    assert output =~ ~r/^raised: .*#{sentence}/m
  end
end
