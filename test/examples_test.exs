defmodule Snex.ExamplesTest do
  use ExUnit.Case, async: true

  @examples Path.expand("../examples", __DIR__)
  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  # As somebody runs them from a folder of theirs: they install Snex by `Mix.install`.
  for {script, said} <- [
        {"quickstart.exs", "returns every 14.7"},
        {"packages.exs", "1.9 < 1.10rc1 < 1.10 < 1.10.post1"}
      ] do
    @tag :slow
    test "#{script} runs as a script, also a second time", %{tmp_dir: folder} do
      env = [
        {"MIX_ENV", nil},
        {"ERL_LIBS", nil},
        {"MIX_INSTALL_DIR", Path.join(folder, "installs")},
        {"XDG_CACHE_HOME", Path.join(folder, "cache")},
        {"UV_CACHE_DIR", nil},
        {"CARGO_TARGET_DIR", Snex.OtherProject.target_dir()}
      ]

      for _time <- 1..2 do
        {output, status} =
          System.cmd("elixir", [Path.join(@examples, unquote(script))],
            cd: folder,
            env: env,
            stderr_to_stdout: true
          )

        assert status == 0, output
        assert output =~ unquote(said)
      end
    end
  end

  test "there is no script that is not run" do
    assert @examples |> File.ls!() |> Enum.filter(&String.ends_with?(&1, ".exs")) |> Enum.sort() ==
             ["packages.exs", "quickstart.exs"]
  end
end
