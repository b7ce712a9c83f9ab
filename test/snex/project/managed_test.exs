defmodule Snex.Project.ManagedTest do
  # A Python that uv installs, below the project's root. It needs no network: see `Snex.ManagedPython`.
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO

  alias Snex.{InstallVM, ManagedPython, Project}

  @moduletag :tmp_dir
  @moduletag timeout: 180_000

  @toml """
  [project]
  name = "managed"
  version = "0.0.0"
  requires-python = ">=3.10"
  dependencies = ["numpy>=2"]
  """

  setup %{tmp_dir: tmp_dir} do
    opts = [uv: ManagedPython.uv(tmp_dir), python_preference: :only_managed]
    root = Path.join(tmp_dir, "snex")
    %{root: root, opts: opts, project: Project.new(__MODULE__, {:toml, @toml}, [root: root] ++ opts)}
  end

  defp install!(project) do
    {result, output} = with_io(fn -> Project.install(project) end)
    assert result == :ok
    output
  end

  # What the project's Python says about the places of its parts, as a map of strings.
  defp places(project) do
    code = """
    import encodings, json, numpy, os, sys
    assert numpy.arange(5).sum() == 10
    mapped = set()
    if os.path.exists("/proc/self/maps"):
        with open("/proc/self/maps") as maps:
            mapped = {line.split(maxsplit=5)[-1].strip() for line in maps if "python" in line}
    print(json.dumps({
        "environment": sys.prefix, "base": os.path.realpath(sys.base_prefix), "numpy": numpy.__file__,
        "library": encodings.__file__, "mapped": sorted(mapped),
    }))
    """

    {output, status} = System.cmd(Project.python!(project), ["-c", code], stderr_to_stdout: true)
    assert status == 0, output
    output |> JSON.decode!() |> Enum.flat_map(fn {_, places} -> List.wrap(places) end)
  end

  defp links(dir) do
    for path <- Path.wildcard(Path.join(dir, "**"), match_dot: true),
        {:ok, target} <- [File.read_link(path)],
        do: {path, target}
  end

  test "the Python is installed below the root, with all its parts, and computes", context do
    assert install!(context.project) =~ "numpy"

    assert ["cpython-" <> _ | _] =
             File.ls!(Path.join(context.root, "python")) |> Enum.filter(&(&1 =~ "cpython"))

    for place <- places(context.project), do: assert(String.starts_with?(place, context.root <> "/"))
  end

  test "all links below the root are relative, and it can be moved", context do
    install!(context.project)

    links = links(context.root)
    assert length(links) > 3
    for {link, target} <- links, do: assert(Path.type(target) == :relative, "#{link} leads to #{target}")

    moved = Path.join(context.tmp_dir, "moved elsewhere")
    File.rename!(context.root, moved)
    project = Project.new(__MODULE__, {:toml, @toml}, [root: moved] ++ context.opts)
    refute Project.stale?(project)
    for place <- places(project), do: assert(String.starts_with?(place, moved <> "/"))
  end

  describe "by default" do
    # The test run itself prefers the machine's Python.
    @unset %{"UV_PYTHON_PREFERENCE" => nil, "UV_PYTHON_DOWNLOADS" => nil}
    @small String.replace(@toml, "numpy>=2", "iniconfig")
    @none %{"UV_PYTHON_DOWNLOADS_JSON_URL" => "file:///no/such/downloads.json"}

    defp install(context, opts, env, toml \\ @small) do
      InstallVM.install(__MODULE__, {:toml, toml}, [root: context.root] ++ opts, Map.merge(@unset, env))
    end

    defp base(context) do
      {base, 0} =
        System.cmd(Project.python!(context.project), [
          "-c",
          "import os, sys; print(os.path.realpath(sys.executable))"
        ])

      String.trim(base)
    end

    for opts <- [[], [python_preference: :managed]] do
      test "and with #{inspect(opts)} the Python is a managed one, although the machine has one", context do
        assert {:ok, output} = install(context, unquote(opts), ManagedPython.env())
        assert String.starts_with?(base(context), context.root <> "/python/")
        refute output =~ "warning:"
      end

      test "and with #{inspect(opts)} it is the machine's if the download fails, with one warning", context do
        assert {:ok, output} = install(context, unquote(opts), @none)
        base = base(context)
        refute String.starts_with?(base, context.root)
        assert [before, warning] = String.split(output, "warning: ")

        assert warning =~
                 "there is no managed Python for Snex.Project.ManagedTest, so its environment uses #{base}. "

        assert warning =~ "A release will not contain this Python"
        assert warning =~ "`python_preference: :system` accepts this, `:only_managed` makes it an error"
        # What uv said of the download.
        assert before =~ "no/such"
        # It is there now, and stays.
        assert install(context, unquote(opts), @none) == {:ok, ""}
      end
    end

    test "downloads that are turned off count as failed", context do
      assert {:ok, output} =
               install(context, [], Map.put(ManagedPython.env(), "UV_PYTHON_DOWNLOADS", "never"))

      assert output =~ "A release will not contain this Python"
    end

    test "neither a download nor a Python of the machine that fits is an error", context do
      assert {{:error, message}, output} =
               install(context, [], ManagedPython.env(), String.replace(@small, ">=3.10", ">=3.99"))

      assert message =~ "uv venv"
      assert message =~ ">=3.99"
      refute output =~ "warning:"
    end
  end

  describe "strict preferences:" do
    test ":only_managed is an error if the download fails", context do
      assert {{:error, message}, output} = install(context, [python_preference: :only_managed], @none)
      assert message =~ "no/such"
      refute output =~ "warning:"
    end

    for preference <- [:system, :only_system] do
      test "#{inspect(preference)} takes the machine's, and downloads none", context do
        assert {:ok, output} = install(context, [python_preference: unquote(preference)], ManagedPython.env())
        refute String.starts_with?(base(context), context.root)
        refute output =~ "warning:"
      end
    end

    test "without the option, what the user has told uv is strict too", context do
      env = Map.put(ManagedPython.env(), "UV_PYTHON_PREFERENCE", "only-system")
      assert {:ok, _} = install(context, [], env)
      refute String.starts_with?(base(context), context.root)

      told = @small <> ~s(\n[tool.uv]\npython-preference = "only-managed"\n)
      assert {{:error, message}, _} = install(context, [], @none, told)
      assert message =~ "no/such"
    end
  end
end
