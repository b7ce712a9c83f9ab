defmodule Snex.ProjectTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO

  alias Snex.InstallVM
  alias Snex.Project

  @moduletag :tmp_dir

  @empty """
  [project]
  name = "empty"
  version = "0.0.0"
  requires-python = ">=3.10"
  """

  @with_extras """
  [project]
  name = "with-extras"
  version = "0.0.0"
  requires-python = ">=3.10"

  [project.optional-dependencies]
  extra = ["iniconfig"]

  [dependency-groups]
  dev = ["pluggy"]
  other = ["packaging"]
  """

  defp new(context, source, opts \\ []) do
    Project.new(
      __MODULE__,
      source,
      Keyword.put_new(opts, :root, Path.join(context.tmp_dir, "snex"))
    )
  end

  # What uv says is wanted in the tests that look at it.
  defp install(project) do
    with_io(fn -> Project.install(project) end)
  end

  defp install!(project) do
    assert {:ok, output} = install(project)
    output
  end

  defp packages(project) do
    {output, 0} =
      System.cmd(Project.python!(project), [
        "-c",
        "import importlib.metadata as m; print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()))"
      ])

    String.split(output)
  end

  defp names(project), do: for(package <- packages(project), do: hd(String.split(package, "==")))

  # A uv that writes down what it is asked for, then does it.
  defp counting_uv(context) do
    path = Path.join(context.tmp_dir, "uv")
    log = path <> ".log"
    File.write!(path, ~s(#!/bin/sh\necho "$1" >> "#{log}"\nexec uv "$@"\n))
    File.chmod!(path, 0o755)
    {path, fn -> log |> File.read!() |> String.split() end}
  end

  test "numpy is installed and computes", context do
    project =
      new(context, {:toml, String.trim_trailing(@empty) <> ~s(\ndependencies = ["numpy>=2"]\n)})

    assert Project.stale?(project)
    assert install!(project) =~ "numpy"
    refute Project.stale?(project)

    code = "import numpy; print(numpy.arange(5).sum())"
    assert {"10\n", 0} = System.cmd(Project.python!(project), ["-c", code])
  end

  test "what is installed already needs no uv", context do
    project = new(context, {:toml, @empty})
    install!(project)
    assert Project.install(%{project | uv: "/no/such/uv"}) == :ok
  end

  test "a changed text is installed anew", context do
    install!(new(context, {:toml, @empty}))

    changed = new(context, {:toml, @empty <> ~s(dependencies = ["iniconfig"]\n)})
    assert Project.stale?(changed)
    install!(changed)
    assert names(changed) == ["iniconfig"]
  end

  test "an environment without its Python is made anew", context do
    project = new(context, {:toml, @empty})
    install!(project)
    File.rm!(Path.join(Project.venv(project), "bin/python"))

    assert Project.stale?(project)
    assert_raise RuntimeError, ~r/is missing/, fn -> Project.python!(project) end
    install!(project)
    assert File.exists?(Project.python!(project))
  end

  test "an installation that did not come to its end is not taken for finished", context do
    stops_early = Path.join(context.tmp_dir, "uv-that-stops")

    File.write!(stops_early, """
    #!/bin/sh
    case "$1" in
      sync) echo "no space left"; exit 28 ;;
      *) exec uv "$@" ;;
    esac
    """)

    File.chmod!(stops_early, 0o755)
    toml = @empty <> ~s(dependencies = ["iniconfig"]\n)

    interrupted = new(context, {:toml, toml}, uv: stops_early)
    assert {{:error, message}, _output} = install(interrupted)
    assert message =~ "no space left"
    assert message =~ "status 28"
    assert Project.stale?(interrupted)

    project = new(context, {:toml, toml})
    install!(project)
    assert names(project) == ["iniconfig"]
  end

  test "a mistake in the TOML is told in uv's words, with the command", context do
    project = new(context, {:toml, "[project\n"})
    assert {{:error, message}, output} = install(project)
    assert message =~ "uv lock"
    assert message =~ "TOML parse error at line 1"
    assert output =~ "[Snex.ProjectTest] "
    assert Project.stale?(project)
  end

  test "a uv that PATH does not lead to: the line that makes the shell find it", context do
    folder = Path.join([context.tmp_dir, "home", ".local", "bin"])
    File.mkdir_p!(folder)
    File.ln_s!(System.find_executable("true"), Path.join(folder, "uv-at-home"))
    home = %{"HOME" => Path.join(context.tmp_dir, "home")}

    assert {{:error, message}, ""} =
             InstallVM.install(__MODULE__, {:toml, @empty}, [uv: "uv-at-home", root: context.tmp_dir], home)

    assert message =~ "there is no program `uv-at-home` on PATH, but there is one in #{folder}"
    assert message =~ ~s(export PATH="#{folder}:$PATH")
  end

  test "a missing or too old uv: what to install", context do
    assert {{:error, message}, ""} = install(new(context, {:toml, @empty}, uv: "no-such-uv"))
    assert message =~ "there is no program `no-such-uv`"
    assert message =~ "uv 0.6.8 or later"

    old = Path.join(context.tmp_dir, "uv-old")
    File.write!(old, "#!/bin/sh\necho 'uv 0.6.7 (abc 2025-03-17)'\n")
    File.chmod!(old, 0o755)
    assert {{:error, message}, ""} = install(new(context, {:toml, @empty}, uv: old))
    assert message =~ "is uv 0.6.7"
    assert message =~ "uv 0.6.8 or later"
  end

  test "groups and extras are installed if they are named, and no others, not even `dev`", context do
    project = new(context, {:toml, @with_extras})
    install!(project)
    assert names(project) == []

    project = new(context, {:toml, @with_extras}, groups: [:dev])
    install!(project)
    assert names(project) == ["pluggy"]

    project = new(context, {:toml, @with_extras}, groups: [:other], extras: [:extra])
    install!(project)
    assert names(project) == ["iniconfig", "packaging"]

    defaults = @with_extras <> ~s(\n[tool.uv]\ndefault-groups = ["other"]\n)
    project = new(context, {:toml, defaults})
    install!(project)
    assert names(project) == []
  end

  describe "a project folder" do
    setup context do
      path = Path.join(context.tmp_dir, "python project")
      File.mkdir_p!(path)
      File.write!(Path.join(path, "pyproject.toml"), @empty <> ~s(dependencies = ["iniconfig"]\n))
      %{path: path}
    end

    test "is not written to", context do
      project = new(context, {:path, context.path})
      install!(project)
      assert names(project) == ["iniconfig"]
      assert File.ls!(context.path) == ["pyproject.toml"]
    end

    test "with a lock gets exactly the versions in it", context do
      {_, 0} =
        System.cmd("uv", ["lock", "-P", "iniconfig==1.1.1"],
          cd: context.path,
          stderr_to_stdout: true
        )

      project = new(context, {:path, context.path})
      install!(project)
      assert packages(project) == ["iniconfig==1.1.1"]
      assert Enum.sort(File.ls!(context.path)) == ["pyproject.toml", "uv.lock"]
    end

    test "is stale after a change, and names the files that matter", context do
      project = new(context, {:path, context.path})
      install!(project)
      refute Project.stale?(project)

      File.write!(Path.join(context.path, "pyproject.toml"), @empty)
      assert Project.stale?(project)
      assert Path.join(context.path, "pyproject.toml") in Project.Stamp.resources(project)
      assert Path.join(context.path, "uv.lock") in Project.Stamp.resources(project)
    end
  end

  test "several VMs at once: one of them installs, all of them can use it", context do
    {uv, calls} = counting_uv(context)

    code = """
    project = Snex.Project.new(Snex.ProjectTest, {:toml, #{inspect(@empty)}},
      root: #{inspect(Path.join(context.tmp_dir, "snex"))}, uv: #{inspect(uv)})
    :ok = Snex.Project.install(project)
    IO.puts("python: " <> Snex.Project.python!(project))
    """

    outputs =
      1..3
      |> Enum.map(fn _ ->
        Task.async(fn ->
          System.cmd("elixir", ["-pa", Application.app_dir(:snex, "ebin"), "-e", code],
            stderr_to_stdout: true
          )
        end)
      end)
      |> Task.await_many(60_000)

    for {output, status} <- outputs do
      assert status == 0, output
      assert output =~ "python: "
    end

    assert Enum.frequencies(calls.())["sync"] == 1
  end

  test "the folder can be moved: its Python is found, and its links are relative", context do
    # As in a release: the module is in `lib`, beside the folder.
    code = "defmodule Snex.ProjectTest.Moved, do: nil"
    [{module, beam}] = Code.compile_string(code)
    release = Path.join(context.tmp_dir, "release")
    ebin = Path.join(release, "lib/app-0.1.0/ebin")
    File.mkdir_p!(ebin)
    File.write!(Path.join(ebin, "#{module}.beam"), beam)

    project = Project.new(module, {:toml, @empty}, root: Path.join(context.tmp_dir, "snex"))
    install!(project)

    for path <- Project.Files.walk(project.root), {:ok, target} <- [File.read_link(path)] do
      refute String.starts_with?(target, project.root), "#{path} leads to #{target}"
    end

    # Another release, which the variable may name when one program starts the other, has a module of that name too.
    other = Path.join(context.tmp_dir, "other")
    File.mkdir_p!(other)
    File.cp_r!(project.root, Path.join(other, "snex"))
    moved = Path.join(release, "snex")
    File.rename!(project.root, moved)

    code = """
    project = Snex.Project.new(#{inspect(module)}, {:toml, #{inspect(@empty)}}, root: #{inspect(project.root)})
    IO.puts(Snex.Project.python!(project))
    """

    python! = fn ->
      args = ["-pa", Application.app_dir(:snex, "ebin"), "-pa", ebin, "-e", code]
      System.cmd("elixir", args, env: %{"RELEASE_ROOT" => other}, stderr_to_stdout: true)
    end

    assert {python, 0} = python!.()
    python = String.trim(python)
    assert python == Path.join(moved, "projects/#{inspect(module)}/.venv/bin/python")
    assert {prefix, 0} = System.cmd(python, ["-c", "import sys; print(sys.prefix)"])
    assert String.trim(prefix) == Path.join([moved, "projects", inspect(module), ".venv"])

    # A release that was made without the step says so.
    File.rm_rf!(moved)
    assert {message, 1} = python!.()
    assert message =~ "`mix compile` makes it again"
    File.mkdir_p!(Path.join(release, "releases"))
    File.write!(Path.join(release, "releases/start_erl.data"), "15.0 0.1.0")
    assert {message, 1} = python!.()
    assert message =~ "steps: [:assemble, &Snex.Release.after_assemble/1]"
  end

  test "a path with a colon is refused before uv runs", context do
    project = new(context, {:toml, @empty}, root: Path.join(context.tmp_dir, "a:b"), uv: "/no/such/uv")
    assert {:error, message} = Project.install(project)
    assert message =~ ~r"/a:b/projects/.*a path with a colon in it cannot be on PATH or PYTHONPATH"
  end

  test "names of folders have no character that a path cannot have" do
    for {module, name} <- [
          {Snex.ProjectTest, "Snex.ProjectTest"},
          {:"my-py", "erlang-my-py"},
          {:numpy, "erlang-numpy"},
          {:"a:b/c", "erlang-a%3Ab%2Fc"},
          {:"Elixir.x-y", "erlang-Elixir.x-y"}
        ],
        do: assert(Project.new(module, {:toml, @empty}).name == name)
  end
end
