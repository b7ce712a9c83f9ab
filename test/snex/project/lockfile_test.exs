defmodule Snex.Project.LockfileTest do
  use ExUnit.Case, async: true

  alias Snex.{InstallVM, Project, PythonPackage}

  @moduletag :tmp_dir

  setup %{tmp_dir: tmp_dir} do
    %{lock: Path.join(tmp_dir, "locks/m.lock"), root: Path.join(tmp_dir, "snex")}
  end

  defp toml(dependencies), do: PythonPackage.toml("locked", dependencies)

  defp install(context, dependencies, env \\ %{}) do
    InstallVM.install(__MODULE__, {:toml, toml(dependencies)}, opts(context), env)
  end

  defp opts(context), do: [root: context.root, lock: context.lock]
  defp project(context, dependencies), do: Project.new(__MODULE__, {:toml, toml(dependencies)}, opts(context))

  # A lock as somebody else committed it, of some time ago.
  defp lock!(context, dependencies, args) do
    dir = Path.join(context.tmp_dir, "elsewhere")
    File.mkdir_p!(dir)
    File.write!(Path.join(dir, "pyproject.toml"), toml(dependencies))
    {_, 0} = System.cmd("uv", ["lock" | args], cd: dir, stderr_to_stdout: true)
    File.mkdir_p!(Path.dirname(context.lock))
    File.cp!(Path.join(dir, "uv.lock"), context.lock)
  end

  defp locked(context), do: versions(File.read!(context.lock))

  defp versions(lock) do
    ~r/^name = "(.*)"\nversion = "(.*)"\nsource = \{ registry/m
    |> Regex.scan(lock)
    |> Map.new(fn [_, name, version] -> {name, version} end)
  end

  defp installed(context, dependencies) do
    code =
      "import importlib.metadata as m; print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()))"

    {output, 0} = System.cmd(Project.python!(project(context, dependencies)), ["-c", code])
    String.split(output)
  end

  test "is written where `lock:` says, and everybody who has it gets these versions", context do
    assert {:ok, _} = install(context, ["iniconfig"])
    assert %{"iniconfig" => _} = locked(context)
    assert File.ls!(Path.dirname(context.lock)) == ["m.lock"]
    refute Project.stale?(project(context, ["iniconfig"]))

    # Another version is committed by somebody else.
    lock!(context, ["iniconfig"], ["-P", "iniconfig==1.1.1"])
    assert Project.stale?(project(context, ["iniconfig"]))
    before = File.stat!(context.lock)
    assert {:ok, _} = install(context, ["iniconfig"])
    assert installed(context, ["iniconfig"]) == ["iniconfig==1.1.1"]
    assert File.stat!(context.lock) == before
  end

  test "changes as little as it can with the text", context do
    lock!(context, ["iniconfig"], ["-P", "iniconfig==1.1.1"])
    assert {:ok, _} = install(context, ["iniconfig", "pluggy"])
    assert %{"iniconfig" => "1.1.1", "pluggy" => _} = locked(context)
    refute Project.stale?(project(context, ["iniconfig", "pluggy"]))
  end

  test "that was removed is made anew", context do
    lock!(context, ["iniconfig"], ["-P", "iniconfig==1.1.1"])
    assert {:ok, _} = install(context, ["iniconfig"])

    File.rm!(context.lock)
    assert Project.stale?(project(context, ["iniconfig"]))
    assert {:ok, _} = install(context, ["iniconfig"])
    assert locked(context)["iniconfig"] != "1.1.1"
  end

  for env <- [%{"CI" => "true"}, %{"SNEX_LOCKED" => "true"}, %{"SNEX_LOCKED" => "1", "CI" => "false"}] do
    test "is not written with #{inspect(env)}: one that does not fit is an error", context do
      env = unquote(Macro.escape(env))
      assert {{:error, message}, _} = install(context, ["iniconfig"], env)
      assert message =~ "the lock file #{context.lock} does not exist"

      lock!(context, ["iniconfig"], [])
      before = File.read!(context.lock)
      assert {:ok, _} = install(context, ["iniconfig"], env)

      assert {{:error, message}, _} = install(context, ["iniconfig", "pluggy"], env)
      assert message =~ "the lock file #{context.lock} does not match the project's text"
      assert message =~ ~r/because (CI|SNEX_LOCKED)=(true|1) is set/
      assert message =~ "compile with SNEX_LOCKED=false, and commit the file"
      assert message =~ "uv lock --locked"
      assert File.read!(context.lock) == before
    end
  end

  test "SNEX_LOCKED=false has the last word", context do
    assert {:ok, _} = install(context, ["iniconfig"], %{"CI" => "true", "SNEX_LOCKED" => "false"})
    assert %{"iniconfig" => _} = locked(context)
  end

  test "other failures are not put down to the lock", context do
    lock!(context, ["iniconfig"], [])
    File.write!(context.lock, "rubbish")
    assert {{:error, message}, _} = install(context, ["iniconfig"], %{"CI" => "true"})
    assert message =~ "Failed to parse `uv.lock`"
    refute message =~ "SNEX_LOCKED"
  end

  test "`locked: true` has the same effect", context do
    lock!(context, ["iniconfig"], [])
    opts = opts(context) ++ [locked: true]
    source = {:toml, toml(["iniconfig", "pluggy"])}
    assert {{:error, message}, _} = InstallVM.install(__MODULE__, source, opts)
    assert message =~ "does not match the project's text, and is not written because `locked: true` is set"
    assert {:ok, _} = InstallVM.install(__MODULE__, source, opts, %{"SNEX_LOCKED" => "false"})
  end

  describe "of a project folder, out of date," do
    setup context do
      lock!(context, ["iniconfig"], ["-P", "iniconfig==1.1.1"])
      folder = Path.join(context.tmp_dir, "elsewhere")
      File.write!(Path.join(folder, "pyproject.toml"), toml(["iniconfig", "pluggy"]))
      lock = File.read!(Path.join(folder, "uv.lock"))

      %{
        folder: folder,
        install: &InstallVM.install(__MODULE__, {:path, folder}, [root: context.root] ++ &1, &2),
        lock: lock
      }
    end

    test "seeds a new one in the build folder, with a warning", context do
      assert {:ok, output} = context.install.([], %{})
      warning = "warning: the uv.lock in #{context.folder} is out of date"
      assert [_, _] = String.split(output, warning)
      assert output =~ "run `uv lock` there"

      # What was locked stays, what is new is added, and the user's file is as it was.
      project = Project.new(__MODULE__, {:path, context.folder}, root: context.root)

      assert %{"iniconfig" => "1.1.1", "pluggy" => _} =
               versions(File.read!(Path.join(Project.dir(project), "uv.lock")))

      assert ["iniconfig==1.1.1", "pluggy==" <> _] = installed(context, [])
      assert File.read!(Path.join(context.folder, "uv.lock")) == context.lock
      assert context.install.([], %{}) == {:ok, ""}
    end

    for {opts, env} <- [{[locked: true], %{}}, {[], %{"CI" => "true"}}, {[], %{"SNEX_LOCKED" => "true"}}] do
      test "is an error with #{inspect(opts)} and #{inspect(env)}, also after it has seeded one", context do
        for _ <- 1..2 do
          assert {{:error, message}, output} = context.install.(unquote(opts), unquote(Macro.escape(env)))

          assert message =~
                   ~r/does not match the pyproject.toml beside it, and .* is set\. To renew it, run `uv lock` in/

          assert message =~ "uv lock --locked"
          refute output =~ "warning:"
          assert {:ok, _} = context.install.([], %{})
        end
      end
    end

    test "is no error where SNEX_LOCKED=false says so", context do
      assert {:ok, output} = context.install.([locked: true], %{"CI" => "true", "SNEX_LOCKED" => "false"})
      assert output =~ "is out of date"
    end
  end
end
