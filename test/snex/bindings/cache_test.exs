defmodule Snex.Bindings.CacheTest do
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  setup %{tmp_dir: folder} do
    # Notes each import.
    write(folder, "def one(): return 1\n")
    noting(Path.join(folder, "uv"), System.find_executable("uv"))
    python = Module.concat(__MODULE__, "Python#{System.unique_integer([:positive])}")

    Code.compile_string("""
    defmodule #{inspect(python)} do
      use Snex.Interpreter,
        python_preference: :system,
        python_path: #{inspect(folder)},
        uv: #{inspect(Path.join(folder, "uv"))},
        pyproject_toml: \"""
        [project]
        name = "cache"
        version = "0.0.0"
        requires-python = ">=3.10"
        \"""
    end
    """)

    {:ok, python: python}
  end

  defp write(folder, code) do
    File.write!(Path.join(folder, "counted.py"), "open(__file__ + '.log', 'a').write('x')\n" <> code)
  end

  # A program that notes each start before it is another one.
  defp noting(path, program) do
    File.rm(path)
    File.write!(path, ~s(#!/bin/sh\necho "$0" >> '#{path}.log'\nexec '#{program}' "$@"\n))
    File.chmod!(path, 0o755)
  end

  defp starts(path), do: (path <> ".log") |> File.read!() |> String.split() |> length()

  defp imports(folder), do: folder |> Path.join("counted.py.log") |> File.read!() |> byte_size()

  defp define(python, options \\ []) do
    module = Module.concat(python, Counted)

    code = """
    defmodule #{inspect(module)} do
      use Snex.Bindings, [interpreter: #{inspect(python)}, module: "counted"] ++ #{inspect(options)}
      def resources, do: @external_resource
    end
    """

    Code.compile_string(code)
    result = {for(info <- module.__functions__(), do: info.name), module.resources()}
    :code.delete(module)
    :code.purge(module)
    result
  end

  test "Python is asked again only when something has changed", %{tmp_dir: folder, python: python} do
    assert {[:one], resources} = define(python)
    assert resources == [folder |> Path.join("counted.py") |> Snex.Project.Venv.real_path()]
    assert define(python) == {[:one], resources}
    assert imports(folder) == 1

    assert {[:one], _} = define(python, server: :another)
    assert imports(folder) == 2
    assert {[:one], _} = define(python, server: :another)
    assert imports(folder) == 2

    write(folder, "def one(): return 1\ndef two(): return 2\n")
    assert {[:one, :two], _} = define(python, server: :another)
    assert imports(folder) == 3
  end

  test "without a change, no Python is started, and no uv", %{tmp_dir: folder, python: python} do
    assert {[:one], _} = define(python)
    [project] = python.__info__(:attributes)[:snex_project]
    program = Snex.Project.Venv.python(Snex.Project.venv(project))
    noting(program, Snex.Project.Venv.real_path(program))
    # Another Python is a change.
    assert {[:one], _} = define(python)
    before = {starts(program), starts(Path.join(folder, "uv"))}
    assert elem(before, 0) > 0 and elem(before, 1) > 0

    assert {[:one], _} = define(python)
    assert {starts(program), starts(Path.join(folder, "uv"))} == before
  end

  test "a damaged file is made anew", %{tmp_dir: folder, python: python} do
    [project] = python.__info__(:attributes)[:snex_project]
    assert {[:one], _} = define(python)
    path = Path.join([project.root, "bindings", inspect(Module.concat(python, Counted))])

    for content <- ["", "nonsense", :erlang.term_to_binary({1, 2, 3})],
        do: File.write!(path, content) && define(python)

    assert imports(folder) == 4
  end
end
