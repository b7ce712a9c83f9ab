defmodule Snex.Project.HomeTest do
  # Projects with relative paths in them, and what is at the end of these.
  use ExUnit.Case, async: true

  alias Snex.InstallVM
  alias Snex.OtherProject
  alias Snex.Project
  alias Snex.Project.{Home, Stamp}
  alias Snex.PythonPackage

  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  # The user's sources, below a folder that no pattern and no ASCII matches.
  setup %{tmp_dir: tmp_dir} do
    %{base: Path.join(tmp_dir, "ä [b] {c}"), root: Path.join(tmp_dir, "build/snex")}
  end

  defp write!(context, files),
    do: for({path, content} <- files, do: OtherProject.write!(context.base, path, content))

  defp toml(name \\ "own-project", dependencies, more), do: PythonPackage.toml(name, dependencies, more)

  defp project(context, source, opts \\ []) do
    opts = Keyword.put_new(opts, :root, context.root)
    %{Project.new(__MODULE__, source, opts) | base: context.base}
  end

  defp install(context, source, opts, env \\ %{}) do
    opts = Keyword.put_new(opts, :root, context.root)
    InstallVM.install(__MODULE__, source, opts, env, context.base)
  end

  defp install!(context, source, opts \\ [], env \\ %{}) do
    {result, output} = install(context, source, opts, env)
    assert result == :ok, inspect(result)
    output
  end

  defp run!(project, code) do
    assert {output, 0} = System.cmd(Project.python!(project), ["-c", code], stderr_to_stdout: true)
    String.trim(output)
  end

  # All files of the user's, with what is in them: nothing of it is changed.
  # Without bytecode, which Python writes beside whatever it imports.
  defp sources(context) do
    for path <- Project.Files.walk(context.base),
        File.regular?(path),
        not String.contains?(path, "/__pycache__/"),
        do: {path, File.read!(path)}
  end

  defp uv!(context, folder, args) do
    assert {_, 0} = System.cmd("uv", args, cd: Path.join(context.base, folder), stderr_to_stdout: true)
  end

  describe "an inline project" do
    @sources """
    [tool.uv.sources]
    own = { path = "python/öwn", editable = true }
    """

    test "has paths that start from the folder of its Mix project", context do
      write!(context, PythonPackage.files("own", "value = 1", "python/öwn"))
      source = {:toml, toml(["own"], @sources)}
      before = sources(context)
      install!(context, source)
      assert sources(context) == before

      project = project(context, source)
      refute Project.stale?(project)
      assert run!(project, "import own; print(own.value)") == "1"

      # What the package says of its dependencies counts; its code is read where it is.
      own = Path.join(context.base, "python/öwn/pyproject.toml")
      assert own in Stamp.resources(project)
      write!(context, PythonPackage.files("own", "value = 2", "python/öwn"))
      refute Project.stale?(project)
      assert run!(project, "import own; print(own.value)") == "2"
      File.write!(own, String.replace(File.read!(own), "0.1.0", "0.2.0"))
      assert Project.stale?(project)

      install!(context, source)
      refute Project.stale?(project)

      # From elsewhere, other packages are meant.
      moved = Path.join(context.tmp_dir, "moved")
      File.cp_r!(context.base, moved)
      assert Project.stale?(%{project | base: moved})
      install!(%{context | base: moved}, source)
      assert run!(%{project | base: moved}, "import own; print(own.__file__)") =~ moved
    end

    test "keeps a lock that says the same wherever the build folder is", context do
      write!(context, PythonPackage.files("own", "", "python/öwn", ~s(dependencies = ["iniconfig"])))
      source = {:toml, toml(["own"], @sources)}
      lock = Path.join(context.base, "locks/own.lock")
      install!(context, source, lock: lock)
      text = File.read!(lock)
      assert text =~ ~s(source = { editable = "python/öwn" })
      refute text =~ ".."

      elsewhere = Path.join(context.base, "_build/a/b/c/snex")
      install!(context, source, [lock: lock, root: elsewhere], %{"CI" => "true"})
      assert File.read!(lock) == text
      refute Project.stale?(project(context, source, lock: lock, root: elsewhere))
    end

    test "that takes a package from the folder of the Mix project itself keeps a lock too", context do
      write!(context, PythonPackage.files("own", "value = 1", "."))
      source = {:toml, toml(["own"], "[tool.uv.sources]\nown = { path = '.' }\n")}
      lock = Path.join(context.base, "own.lock")
      install!(context, source, lock: lock)
      install!(context, source, [lock: lock, root: Path.join(context.root, "a/b")], %{"CI" => "true"})
      assert run!(project(context, source), "import own; print(own.value)") == "1"
    end

    test "builds a package that is no editable one from what is there when the environment is made",
         context do
      write!(context, PythonPackage.files("own", "value = 1", "own"))
      more = "[tool.uv.sources]\nown = { path = 'own' }\n"
      install!(context, {:toml, toml(["own"], more)})
      write!(context, %{"own/src/own/__init__.py" => "value = 2"})
      source = {:toml, toml(["own"], more <> "# changed\n")}
      install!(context, source)
      assert run!(project(context, source), "import own; print(own.value)") == "2"
    end
  end

  test "a project folder without a lock has its own paths, also those in a uv.toml", context do
    write!(context, PythonPackage.files("own", "value = 1", "öwn [x]"))
    write!(context, PythonPackage.files("found_here", "value = 2"))
    uv!(context, "found_here", ["build", "--wheel", "--out-dir", "../python/wheels"])
    more = "[tool.uv.sources]\nown = { path = '../öwn [x]' }\n"
    write!(context, %{"python/pyproject.toml" => toml(["own", "found-here"], more)})
    write!(context, %{"python/uv.toml" => "find-links = ['wheels']\n"})
    before = sources(context)

    source = {:path, Path.join(context.base, "python")}
    install!(context, source)

    assert run!(project(context, source), "import own, found_here; print(own.value, found_here.value)") ==
             "1 2"

    assert sources(context) == before
    refute Project.stale?(project(context, source))
  end

  describe "a member of a workspace" do
    setup context do
      workspace = "[tool.uv.workspace]\nmembers = ['packages/*']\nexclude = ['packages/no*']\n"
      write!(context, %{"ws/pyproject.toml" => workspace})
      write!(context, PythonPackage.files("other", "value = 1", "ws/packages/öther"))
      member = toml("member", ["other", "iniconfig"], "[tool.uv.sources]\nother = { workspace = true }\n")
      write!(context, %{"ws/packages/member/pyproject.toml" => member})

      %{
        source: {:path, Path.join(context.base, "ws/packages/member")},
        lock: Path.join(context.base, "ws/uv.lock")
      }
    end

    @code "import importlib.metadata as m, other; print(other.value, m.version('iniconfig'))"

    test "with a lock at the root gets the versions in it", context do
      uv!(context, "ws", ["lock", "-P", "iniconfig==1.1.1"])
      before = sources(context)
      install!(context, context.source, [], %{"CI" => "true"})
      project = project(context, context.source)
      assert run!(project, @code) == "1 1.1.1"
      assert sources(context) == before
      refute Project.stale?(project)

      # The root's files are those that count.
      assert context.lock in Stamp.resources(project)
      uv!(context, "ws", ["lock", "-P", "iniconfig==2.0.0"])
      assert Project.stale?(project)
      install!(context, context.source)
      assert run!(project, @code) == "1 2.0.0"
    end

    test "without a lock has one in the build folder", context do
      before = sources(context)
      install!(context, context.source)
      project = project(context, context.source)
      assert "1 " <> _ = run!(project, @code)
      assert sources(context) == before
      refute Project.stale?(project)
      assert Path.join(context.base, "ws/packages/öther/pyproject.toml") in Stamp.resources(project)
    end

    test "with one that is out of date has a copy of it brought up to date, or an error", context do
      uv!(context, "ws", ["lock", "-P", "iniconfig==1.1.1"])
      path = Path.join(elem(context.source, 1), "pyproject.toml")
      File.write!(path, String.replace(File.read!(path), ~s("iniconfig"), ~s("iniconfig", "pluggy")))
      before = sources(context)

      for _ <- 1..2 do
        assert {{:error, message}, _} = install(context, context.source, locked: true)
        assert message =~ "the lock file does not match the pyproject.toml beside it"
        assert message =~ "run `uv lock` in #{Path.dirname(context.lock)}"

        assert install!(context, context.source) =~
                 "the uv.lock in #{Path.dirname(context.lock)} is out of date"

        project = project(context, context.source)
        assert run!(project, @code <> "; import pluggy") == "1 1.1.1"
        assert install!(context, context.source) == ""
      end

      assert sources(context) == before
    end

    test "is none where the workspace excludes it, or leaves it out", context do
      write!(context, %{"ws/packages/none/pyproject.toml" => toml("none", ["iniconfig"], "")})
      write!(context, %{"ws/elsewhere/pyproject.toml" => toml("elsewhere", ["iniconfig"], "")})
      uv!(context, "ws", ["lock"])

      for folder <- ["packages/none", "elsewhere"] do
        path = Path.join([context.base, "ws", folder])
        assert Home.folder(project(context, {:path, path})) == path
        install!(context, {:path, path})
        assert run!(project(context, {:path, path}), "import iniconfig; print(1)") == "1"
      end
    end
  end

  describe "with install_project: true" do
    @say "[project.scripts]\nown-say = 'own:say'"
    @code "value = 1\ndef say(): print('said', value)\n"

    test "the package of a project folder can be imported, and its scripts run, without writing to it",
         context do
      write!(
        context,
        PythonPackage.files("own", @code, "pröject [x]", ~s(dependencies = ["iniconfig"]\n) <> @say)
      )

      source = {:path, Path.join(context.base, "pröject [x]")}
      before = sources(context)
      install!(context, source)
      refute Project.stale?(project(context, source))

      assert {error, 1} =
               System.cmd(Project.python!(project(context, source)), ["-c", "import own"],
                 stderr_to_stdout: true
               )

      assert error =~ "No module named 'own'"

      project = project(context, source, install_project: true)
      assert Project.stale?(project)
      install!(context, source, install_project: true)
      assert sources(context) == before
      refute Project.stale?(project)
      assert run!(project, "import iniconfig, own; print(own.value)") == "1"
      assert {"said 1\n", 0} = System.cmd(Path.join(Project.venv(project), "bin/own-say"), [])

      # Its code is read where it is.
      write!(context, %{"pröject [x]/src/own/__init__.py" => "value = 2"})
      assert run!(project, "import own; print(own.value)") == "2"
    end

    test "with a lock, or in a workspace, it is installed beside what the lock says", context do
      write!(context, %{"ws/pyproject.toml" => "[tool.uv.workspace]\nmembers = ['*']\n"})
      write!(context, PythonPackage.files("other", "value = 1", "ws/other"))
      sources = "dependencies = ['other', 'iniconfig']\n[tool.uv.sources]\nother = { workspace = true }"
      write!(context, PythonPackage.files("own", "value = 2", "ws/own", sources))
      source = {:path, Path.join(context.base, "ws/own")}

      code =
        "import importlib.metadata as m, other, own; print(other.value, own.value, m.version('iniconfig'))"

      install!(context, source, install_project: true)
      assert "1 2 " <> _ = run!(project(context, source), code)

      uv!(context, "ws", ["lock", "-P", "iniconfig==1.1.1"])
      install!(context, source, install_project: true)
      assert run!(project(context, source), code) == "1 2 1.1.1"
    end
  end
end
