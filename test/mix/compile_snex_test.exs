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
        "script.exs" => interpreter("Script")
      },
      ", compilers: Mix.compilers() ++ if(System.get_env(\"WITHOUT\"), do: [], else: [:snex])"
    )

    OtherProject.mix!(folder, ["compile"])
    OtherProject.mix!(folder, ["run", "script.exs"])
    OtherProject.mix!(folder, ["run", "-e", interpreter("Typed")])
    assert projects(folder) == ["App.Kept", "App.One", "App.Script", "App.Three", "App.Two", "App.Typed"]

    # A module that is gone, one by another name, and one that is no interpreter any more.
    File.rm!(Path.join(folder, "lib/one.ex"))
    OtherProject.write!(folder, "lib/two.ex", interpreter("Second"))
    OtherProject.write!(folder, "lib/three.ex", "defmodule App.Three do\nend\n")
    assert folder |> OtherProject.mix!(["compile"]) |> installed() == ["App.Second"]
    assert projects(folder) == ["App.Kept", "App.Script", "App.Second", "App.Typed"]

    # Nothing is compiled, and still.
    File.rm!(Path.join(folder, "script.exs"))
    assert folder |> OtherProject.mix!(["compile"]) |> installed() == []
    assert projects(folder) == ["App.Kept", "App.Second", "App.Typed"]

    # Without the compiler: when another one is compiled. A compilation that fails removes nothing.
    other = interpreter("Other")
    OtherProject.write!(folder, "lib/two.ex", other <> "defmodule App.Wrong do\n  wrong()\nend\n")
    assert {_, 1} = OtherProject.mix(folder, ["compile"], [{"WITHOUT", "1"}])
    assert projects(folder) == ["App.Kept", "App.Other", "App.Second", "App.Typed"]
    OtherProject.write!(folder, "lib/two.ex", other)
    OtherProject.mix!(folder, ["compile"], [{"WITHOUT", "1"}])
    assert projects(folder) == ["App.Kept", "App.Other", "App.Typed"]

    OtherProject.mix!(folder, ["clean"])
    refute File.exists?(Path.join(folder, "_build/dev/snex"))
    assert folder |> OtherProject.mix!(["compile"]) |> installed() == ["App.Kept", "App.Other"]
    assert projects(folder) == ["App.Kept", "App.Other"]
    assert folder |> OtherProject.mix!(["compile"]) |> installed() == []
  end
end
