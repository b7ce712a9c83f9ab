defmodule Snex.Project.UvLifeTest do
  # uv is ended with whatever wanted it. Not async: the environment variable that says where caches go is exchanged.
  use Snex.Case

  alias Snex.OtherVM
  alias Snex.ProcessTree

  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  @toml """
  [project]
  name = "uv-life"
  version = "0.0.0"
  requires-python = ">=3.10"
  """

  # In place of uv: a program with a child in a session of its own, both deaf to SIGTERM, that says who they are and stays.
  @uv """
  #!/bin/sh
  if [ "$1" = --version ]; then echo "uv 0.9.9"; exit 0; fi
  trap '' TERM
  setsid sh -c 'trap "" TERM; echo "$$" >>PIDS; exec sleep 1000' &
  echo "$$" >>PIDS
  echo begun
  wait
  """

  setup %{tmp_dir: folder} do
    pids = Path.join(folder, "pids")
    uv = Path.join(folder, "uv")
    File.write!(uv, String.replace(@uv, "PIDS", "'#{pids}'"))
    File.chmod!(uv, 0o755)
    before = System.get_env("XDG_CACHE_HOME")
    System.put_env("XDG_CACHE_HOME", Path.join(folder, "cache"))

    on_exit(fn ->
      if before, do: System.put_env("XDG_CACHE_HOME", before), else: System.delete_env("XDG_CACHE_HOME")
    end)

    {:ok, uv: uv, pids: pids}
  end

  # The processes of the program in place of uv, once both run.
  defp running(pids) do
    eventually(fn -> match?({:ok, text} when text != "", File.read(pids)) and length(read(pids)) == 2 end)
    read(pids)
  end

  defp read(pids), do: pids |> File.read!() |> String.split("\n", trim: true)

  defp locks(folder),
    do: Path.join(folder, "cache/snex/run_time/projects") |> File.ls!() |> Enum.filter(&(&1 =~ ".lock"))

  defp leader, do: spawn(fn -> Stream.repeatedly(&answer/0) |> Stream.run() end)

  defp answer do
    receive do
      {:io_request, from, reply_as, _request} -> send(from, {:io_reply, reply_as, :ok})
    end
  end

  defp start(uv, opts \\ []) do
    Process.group_leader(self(), leader())
    {:ok, inp} = Interpreter.start_link([pyproject_toml: @toml, uv: uv, sync_start?: false] ++ opts)
    Process.unlink(inp)
    inp
  end

  test "stop returns when uv is gone, and the lock is free", %{tmp_dir: folder, uv: uv, pids: pids} do
    inp = start(uv)
    os_pids = running(pids)
    assert %{status: :installing, os_pid: nil} = Interpreter.info(inp)
    assert Interpreter.os_pid(inp) == nil
    assert [_lock] = locks(folder)
    assert Interpreter.stop(inp) == :ok
    for os_pid <- os_pids, do: refute(exists?(os_pid))
    eventually(fn -> locks(folder) == [] end)
  end

  test "uv goes with an interpreter that is killed", %{uv: uv, pids: pids} do
    inp = start(uv)
    os_pids = running(pids)
    Process.exit(inp, :kill)
    await_gone(os_pids)
  end

  test "uv goes with a VM that is killed, also where it is needed to compile a module", %{uv: uv, pids: pids} do
    for code <- [
          "Snex.Interpreter.start_link(pyproject_toml: #{inspect(@toml)}, uv: #{inspect(uv)})",
          "defmodule Compiled do\n  use Snex.Interpreter, pyproject_toml: #{inspect(@toml)}, uv: #{inspect(uv)}\nend"
        ] do
      File.rm(pids)
      vm = OtherVM.start("tell.(System.pid())\nhear.()\n" <> code)
      vm_pid = OtherVM.await(vm)
      OtherVM.say(vm)
      watcher = ProcessTree.watch(running(pids))
      OtherVM.kill(vm, vm_pid, "KILL")
      ProcessTree.await_end(watcher)
    end
  end

  test "what a start that was stopped has left half-made is made again", %{
    tmp_dir: folder,
    uv: uv,
    pids: pids
  } do
    inp = start(uv)
    running(pids)
    Interpreter.stop(inp)
    again = start("uv", python_preference: :system)
    assert Snex.pyeval(again, "import sys; return sys.prefix", timeout: :infinity) |> elem(1) =~ folder
    Interpreter.stop(again)
  end

  test "a start whose group leader goes while packages are installed goes on", %{tmp_dir: folder} do
    gate = Path.join(folder, "gate")
    {_, 0} = System.cmd("mkfifo", [gate])
    uv = Path.join(folder, "uv-with-gate")
    real = System.find_executable("uv")

    File.write!(uv, """
    #!/bin/sh
    if [ "$1" = venv ]; then echo waiting >'#{gate}'; read go <'#{gate}'; echo "and now"; fi
    exec '#{real}' "$@"
    """)

    File.chmod!(uv, 0o755)
    inp = start(uv, python_preference: :system)
    assert System.cmd("cat", [gate]) == {"waiting\n", 0}
    Process.exit(Process.group_leader(), :kill)
    {_, 0} = System.cmd("sh", ["-c", "echo go >\"$0\"", gate])
    assert Snex.pyeval(inp, "return 1", timeout: :infinity, output: :discard) == {:ok, 1}
    Interpreter.stop(inp)
  end
end
