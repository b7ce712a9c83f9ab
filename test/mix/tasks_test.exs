defmodule Snex.Mix.TasksTest do
  use ExUnit.Case, async: true

  alias Snex.OtherProject
  alias Snex.PythonPackage

  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  @numpy """
  defmodule App.Small do
    # The text below is what `mix snex.uv` changes.
    use Snex.Interpreter,
      python_preference: :system,
      python_path: {:app, "priv/python"},
      lock: "app.lock",
      pyproject_toml: \"""
      [project]
      name = "app"
      version = "0.0.0"
      requires-python = ">=3.10"
      dependencies = [
          "iniconfig",
          "own",
      ]
      [tool.uv.sources]
      own = { path = 'python/own' }
      \"""
  end
  """

  @tag :slow
  test "the tasks, one after the other, in a project of their own", %{tmp_dir: folder} do
    files = %{"lib/app/small.ex" => @numpy, "priv/python/mine.py" => "import iniconfig\nanswer = 42\n"}
    packages = [PythonPackage.files("own", "", "python/own"), PythonPackage.files("new", "", "python/new")]
    OtherProject.create!(folder, Enum.reduce(packages, files, &Map.merge/2))

    # snex.python runs the module's Python, with its packages and its own code.
    code = "import mine, snex; print('the answer is', mine.answer, snex.__name__)"
    output = OtherProject.mix!(folder, ["snex.python", "App.Small", "--", "-c", code])
    assert output =~ "the answer is 42 snex"
    code = "import shutil, sys; print('the same:', shutil.which('python') == sys.executable)"
    assert OtherProject.mix!(folder, ["snex.python", "App.Small", "--", "-c", code]) =~ "the same: True"
    assert {_, 3} = OtherProject.mix(folder, ["snex.python", "App.Small", "--", "-c", "raise SystemExit(3)"])
    path = folder |> OtherProject.mix!(["snex.python", "App.Small", "--path"]) |> String.trim()
    assert path == Path.join(folder, "_build/dev/snex/projects/App.Small/.venv/bin/python")
    assert {message, 1} = OtherProject.mix(folder, ["snex.python", "App.Large", "--path"])
    assert message =~ "there is no module App.Large"

    # snex.uv changes the text in the source file, where it stands.
    output = OtherProject.mix!(folder, ["snex.uv", "App.Small", "--", "add", "packaging"])
    assert output =~ "lib/app/small.ex now has the changed text"
    source = File.read!(Path.join(folder, "lib/app/small.ex"))

    assert source =~
             ~r/dependencies = \[\n        "iniconfig",\n        "own",\n        "packaging>=[\d.]+",\n    \]\n    \[tool.uv/

    assert source =~ "# The text below"

    # And the lock, which is in the source tree.
    assert File.read!(Path.join(folder, "app.lock")) =~ ~s(name = "packaging")

    # Paths in both start from this folder, as those that are typed do.
    OtherProject.mix!(folder, ["snex.uv", "App.Small", "--", "add", "./python/new"])
    source = File.read!(Path.join(folder, "lib/app/small.ex"))
    assert source =~ "own = { path = 'python/own' }"
    assert source =~ ~s(new = { path = "python/new" })
    assert File.read!(Path.join(folder, "app.lock")) =~ ~s(source = { directory = "python/new" })
    OtherProject.mix!(folder, ["snex.python", "App.Small", "--", "-c", "import own, new"])

    # What has changed is stale, and the next compilation installs it.
    output =
      OtherProject.mix!(folder, ["snex.python", "App.Small", "--", "-c", "import packaging; print('there')"])

    assert output =~ "there"

    # snex.doctor finds all well, and what is broken.
    output = OtherProject.mix!(folder, ["snex.doctor"])
    assert output =~ ~r/good  native code +\S+snex_nif.so/
    assert output =~ ~r/good  App.Small/
    assert output =~ ~r/good    its Python +CPython 3/

    {output, 1} =
      OtherProject.mix(folder, [
        "do",
        "compile",
        "+",
        "run",
        "--no-start",
        "-e",
        ~S|File.rm_rf!("_build/dev/snex/projects/App.Small/.venv/bin/python")|,
        "+",
        "snex.doctor"
      ])

    assert output =~ ~r/BAD   App.Small +has to be made again: mix compile/
  end
end
