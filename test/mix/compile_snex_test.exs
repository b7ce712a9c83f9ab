defmodule Snex.Mix.CompileSnexTest do
  use ExUnit.Case, async: true

  alias Snex.OtherProject

  @moduletag :tmp_dir
  @moduletag :slow
  @moduletag timeout: 600_000

  defp interpreter(name, version \\ "0.0.0") do
    """
    defmodule App.#{name} do
      use Snex.Interpreter,
        pyproject_toml: \"""
        [project]
        name = "app"
        version = "#{version}"
        requires-python = ">=3.10"
        \"""
    end
    """
  end

  # Those that uv is run for.
  defp installed(output) do
    ~r/^\[(App\.\w+)\]/m
    |> Regex.scan(output, capture: :all_but_first)
    |> List.flatten()
    |> Enum.uniq()
    |> Enum.sort()
  end

  defp projects(folder), do: folder |> Path.join("_build/dev/snex/projects") |> File.ls!() |> Enum.sort()

  test "environments of modules that are gone are removed, and all by mix clean", %{tmp_dir: folder} do
    OtherProject.create!(
      folder,
      %{
        "lib/one.ex" => interpreter("One"),
        "lib/two.ex" => interpreter("Two"),
        "lib/three.ex" => interpreter("Three"),
        "lib/kept.ex" => interpreter("Kept"),
        "lib/erlang.ex" => "Kept" |> interpreter() |> String.replace("App.Kept", ~s(:"my-py")),
        "script.exs" => interpreter("Script")
      },
      ", compilers: Mix.compilers() ++ if(System.get_env(\"WITHOUT\"), do: [], else: [:snex])"
    )

    OtherProject.mix!(folder, ["compile"])
    OtherProject.mix!(folder, ["run", "script.exs"])
    OtherProject.mix!(folder, ["run", "-e", interpreter("Typed")])

    assert projects(folder) == [
             "App.Kept",
             "App.One",
             "App.Script",
             "App.Three",
             "App.Two",
             "App.Typed",
             "erlang-my-py"
           ]

    # A module that is gone, one by another name, and one that is no interpreter any more.
    File.rm!(Path.join(folder, "lib/one.ex"))
    OtherProject.write!(folder, "lib/two.ex", interpreter("Second"))
    OtherProject.write!(folder, "lib/three.ex", "defmodule App.Three do\nend\n")
    assert folder |> OtherProject.mix!(["compile"]) |> installed() == ["App.Second"]
    assert projects(folder) == ["App.Kept", "App.Script", "App.Second", "App.Typed", "erlang-my-py"]

    # Nothing is compiled, and still.
    File.rm!(Path.join(folder, "script.exs"))
    assert folder |> OtherProject.mix!(["compile"]) |> installed() == []
    assert projects(folder) == ["App.Kept", "App.Second", "App.Typed", "erlang-my-py"]

    # Without the compiler: when another one is compiled. A compilation that fails removes nothing.
    other = interpreter("Other")
    OtherProject.write!(folder, "lib/two.ex", other <> "defmodule App.Wrong do\n  wrong()\nend\n")
    assert {_, 1} = OtherProject.mix(folder, ["compile"], [{"WITHOUT", "1"}])
    assert projects(folder) == ["App.Kept", "App.Other", "App.Second", "App.Typed", "erlang-my-py"]
    OtherProject.write!(folder, "lib/two.ex", other)
    OtherProject.mix!(folder, ["compile"], [{"WITHOUT", "1"}])
    assert projects(folder) == ["App.Kept", "App.Other", "App.Typed", "erlang-my-py"]

    OtherProject.mix!(folder, ["clean"])
    refute File.exists?(Path.join(folder, "_build/dev/snex"))
    assert folder |> OtherProject.mix!(["compile"]) |> installed() == ["App.Kept", "App.Other"]
    assert projects(folder) == ["App.Kept", "App.Other", "erlang-my-py"]
    assert folder |> OtherProject.mix!(["compile"]) |> installed() == []
  end

  # An application of its own, in a repository; returns where that is.
  defp repository!(folder) do
    OtherProject.create!(folder, %{
      "lib/dep.ex" => """
      defmodule Dep do
        use Snex.Interpreter, project_path: "python", python_path: "python/src"
      end
      """,
      "python/pyproject.toml" =>
        ~s([project]\nname = "dep"\nversion = "0.0.0"\nrequires-python = ">=3.10"\ndependencies = ["iniconfig"]\n),
      "python/src/dep.py" => "answer = 42\n"
    })

    mix = folder |> Path.join("mix.exs") |> File.read!()

    OtherProject.write!(
      folder,
      "mix.exs",
      mix |> String.replace("App.", "Dep.") |> String.replace(":app", ":dep")
    )

    git = ["-c", "user.name=a", "-c", "user.email=a@example.invalid"]
    for args <- [["init", "-q"], ["add", "."], git ++ ["commit", "-qm", "dep"]], do: git!(folder, args)
    folder
  end

  defp git!(folder, args) do
    {output, status} = System.cmd("git", args, cd: folder, stderr_to_stdout: true)
    assert status == 0, output
  end

  @run ~S"""
  {:ok, inp} = Dep.start_link()
  {:ok, files} = Snex.pyeval(inp, "import iniconfig, dep; return iniconfig.__file__, dep.__file__")
  IO.inspect(files, label: "files")
  """

  test "the environment of a dependency from git comes again, however it was lost", %{tmp_dir: tmp_dir} do
    repository = repository!(Path.join(tmp_dir, "dep"))

    app = Path.join(tmp_dir, "app")

    OtherProject.create!(
      app,
      %{"lib/own.ex" => interpreter("Own")},
      ", compilers: Mix.compilers() ++ [:snex]"
    )

    mix = app |> Path.join("mix.exs") |> File.read!()
    deps = "deps: [{:dep, git: #{inspect("file://" <> repository)}}, "
    releases = "releases: [app: [steps: [:assemble, &Snex.Release.after_assemble/1]]], "
    OtherProject.write!(app, "mix.exs", String.replace(mix, "deps: [", releases <> deps))

    OtherProject.mix!(app, ["deps.get"])
    OtherProject.mix!(app, ["compile"])
    assert projects(app) == ["App.Own", "Dep"]
    assert OtherProject.mix!(app, ["run", "-e", @run]) =~ "files: {"

    # By `mix clean`, and by hand.
    OtherProject.mix!(app, ["clean"])
    refute File.exists?(Path.join(app, "_build/dev/snex"))
    assert OtherProject.mix!(app, ["run", "-e", @run]) =~ "files: {"
    File.rm_rf!(Path.join(app, "_build/dev/snex"))
    assert OtherProject.mix!(app, ["compile"]) =~ "[Dep] "
    assert projects(app) == ["App.Own", "Dep"]
    refute OtherProject.mix!(app, ["compile"]) =~ "[Dep] "

    # By a checkout that was moved without it. No path is taken for a pattern.
    moved = Path.join(tmp_dir, "a [b]{c} *d?")
    File.rename!(app, moved)
    File.rm_rf!(Path.join(moved, "_build/dev/snex"))
    OtherProject.mix!(moved, ["compile"])
    assert projects(moved) == ["App.Own", "Dep"]

    output =
      OtherProject.mix!(moved, [
        "run",
        "-e",
        @run |> String.replace("start_link()", "start_link(python_path: \"deps/dep/python/src\")")
      ])

    for file <- ["_build/dev/snex/projects/Dep/.venv", "deps/dep/python/src/dep.py"],
        do: assert(output =~ Path.join(moved, file))

    # Without the compiler, a release makes what it misses.
    mix = moved |> Path.join("mix.exs") |> File.read!()
    OtherProject.write!(moved, "mix.exs", String.replace(mix, ", compilers: Mix.compilers() ++ [:snex]", ""))
    File.rm_rf!(Path.join(moved, "_build/dev/snex/projects/Dep"))
    assert OtherProject.mix!(moved, ["release"]) =~ "* copied snex"
    assert File.ls!(Path.join(moved, "_build/dev/rel/app/snex/projects")) == ["App.Own", "Dep"]
  end

  @slow """
  defmodule App.Slow do
    use Snex.Interpreter, pyproject_toml: System.fetch_env!("TOML")
    IO.puts("environment made")
    # Until the test goes on.
    IO.gets("")
  end
  """

  test "the environment of a module that is still being compiled is kept", %{tmp_dir: tmp_dir} do
    # Two applications that share a build folder, each compiled by a VM of its own, at once.
    toml = "[project]\nname = 'app'\nversion = '0.0.0'\nrequires-python = '>=3.10'\n"

    shared = [
      {"MIX_BUILD_PATH", Path.join(tmp_dir, "shared")},
      {"MIX_OS_CONCURRENCY_LOCK", "0"},
      {"TOML", toml}
    ]

    slow = OtherProject.create!(Path.join(tmp_dir, "slow"), %{"lib/slow.ex" => @slow})
    quick = OtherProject.create!(Path.join(tmp_dir, "quick"), %{"lib/quick.ex" => interpreter("Quick")})
    mix = quick |> Path.join("mix.exs") |> File.read!()

    OtherProject.write!(
      quick,
      "mix.exs",
      mix |> String.replace("App.", "Quick.") |> String.replace(":app", ":quick")
    )

    OtherProject.mix!(slow, ["deps.compile"], shared)
    projects = fn -> tmp_dir |> Path.join("shared/snex/projects") |> File.ls!() |> Enum.sort() end

    # It is not the first compilation: that its environment was made before says nothing.
    for _ <- 1..2 do
      port = OtherProject.start(slow, ["compile", "--force"], shared)
      assert_receive {^port, {:data, {:eol, "environment made"}}}, 120_000
      OtherProject.mix!(quick, ["compile", "--force"], shared)
      assert projects.() == ["App.Quick", "App.Slow"]
      Port.command(port, "go on\n")
      assert_receive {^port, {:exit_status, 0}}, 60_000
      File.rm!(Path.join(tmp_dir, "shared/lib/app/ebin/Elixir.App.Slow.beam"))
    end

    # Nobody holds it any more.
    OtherProject.mix!(quick, ["compile", "--force"], shared)
    assert projects.() == ["App.Quick"]
  end
end
