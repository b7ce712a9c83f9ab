defmodule Snex.Project.ManagedTest do
  # A Python that uv installs, below the project's root. It needs no network: see `Snex.ManagedPython`.
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO

  alias Snex.Project

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
    opts = [uv: Snex.ManagedPython.uv(tmp_dir), python_preference: :only_managed]
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
end
