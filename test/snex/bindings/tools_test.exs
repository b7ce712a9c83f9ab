defmodule Snex.Bindings.ToolsTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO

  alias Snex.Bindings.Introspection
  alias Snex.Bindings.Options
  alias Snex.Project

  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  @toml """
  [project]
  name = "tools"
  version = "0.0.0"
  requires-python = ">=3.10"
  """

  # A uv that installs nothing but environments.
  defp offline_uv(folder) do
    path = Path.join(folder, "uv")
    File.write!(path, ~s(#!/bin/sh\n[ "$1" = pip ] && echo "error: no network" && exit 2\nexec uv "$@"\n))
    File.chmod!(path, 0o755)
    path
  end

  test "without the packages that read docstrings, these are shown as they are", %{tmp_dir: folder} do
    options = [root: Path.join(folder, "snex"), uv: offline_uv(folder), python_preference: :system]
    project = Project.new(__MODULE__, {:toml, @toml}, options)
    request = Options.check!(module: "statistics", interpreter: __MODULE__, only: ["mean"])

    capture_io(fn ->
      assert Project.install(project) == :ok
      assert {:ok, answer} = Introspection.run(project, request)
      assert answer["complaint"] =~ "no network"
      assert %{"modules" => [%{"members" => [%{"name" => "mean", "doc" => doc}]}]} = answer
      assert doc =~ ~r/\A```text\nReturn the sample arithmetic mean of data\.\n.*>>> mean/s
    end)
  end
end
