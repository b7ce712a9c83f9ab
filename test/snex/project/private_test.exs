defmodule Snex.Project.PrivateTest do
  use ExUnit.Case, async: true

  alias Snex.OtherVM
  alias Snex.Project.Private

  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  defp mode(path), do: Bitwise.band(File.stat!(path).mode, 0o777)

  test "a folder that is there becomes private", %{tmp_dir: folder} do
    path = Path.join(folder, "open")
    File.mkdir!(path)
    File.chmod!(path, 0o777)
    assert Private.make!(path) == :ok
    assert mode(path) == 0o700
    assert Private.make(path) == {:error, :eexist}
  end

  test "under umask 0, cache and locks are made for their owner only", %{tmp_dir: folder} do
    code = ~S"""
    root = System.fetch_env!("XDG_CACHE_HOME")
    mode = fn path -> Bitwise.band(File.stat!(path).mode, 0o777) end
    # That the umask is what it should be: a folder made as usual is open to all.
    File.mkdir_p!(Path.join(root, "usual"))
    tell.(mode.(Path.join(root, "usual")))

    test = self()
    toml = "[project]\nname = \"x\"\nversion = \"0.0.0\"\nrequires-python = \">=3.10\"\n"
    # The lock is there while uv runs: its own folder says when.
    uv = Path.join(root, "noting-uv")
    File.write!(uv, "#!/bin/sh\nstat -c %a '#{root}'/snex/run_time/projects/*.lock >>'#{root}/locks'\nexec uv \"$@\"\n")
    File.chmod!(uv, 0o755)
    {:ok, inp} = Snex.Interpreter.start_link(pyproject_toml: toml, uv: uv, python_preference: :system)
    {:ok, 1} = Snex.pyeval(inp, "return 1")
    Snex.Interpreter.stop(inp)
    tell.({mode.(Path.join(root, "snex")), mode.(Path.join(root, "snex/run_time")), File.read!(Path.join(root, "locks"))})
    """

    through = ["env", "XDG_CACHE_HOME=#{folder}", "sh", "-c", ~s(umask 0; exec "$0" "$@")]
    vm = OtherVM.start(code, through: through)
    assert OtherVM.await(vm) == 0o777
    assert {0o700, 0o700, locks} = OtherVM.await(vm)
    assert locks |> String.split() |> Enum.uniq() |> Enum.reject(&(&1 == "")) == ["700"]
  end
end
