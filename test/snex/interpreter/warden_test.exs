defmodule Snex.Interpreter.WardenTest do
  # The warden as the VM sees it. Not async: it starts VMs of its own.
  use Snex.Case

  alias Snex.OtherVM
  alias Snex.ProcessTree

  @moduletag timeout: 300_000

  test "wardens leave no zombies in a VM that does not ignore SIGCHLD, whatever ends them; other children are its own" do
    vm =
      OtherVM.start("""
      :os.set_signal(:sigchld, :default)
      Process.flag(:trap_exit, true)
      alias Snex.Interpreter
      kill = fn os_pid -> System.cmd("kill", ["-9", to_string(os_pid)]) end

      warden = fn inp ->
        {:ok, warden} = Snex.pyeval(inp, "import os; return os.getppid()")
        warden
      end

      ways = [
        &Interpreter.stop/1,
        &Process.exit(&1, :kill),
        &kill.(Interpreter.os_pid(&1)),
        &kill.(warden.(&1)),
        &Snex.pyeval(&1, "import os; os._exit(0)")
      ]

      wardens =
        for way <- ways do
          {:ok, inp} = Interpreter.start_link()
          warden = warden.(inp)
          way.(inp)
          receive do: ({:EXIT, ^inp, _} -> warden)
        end

      {:error, _} = Interpreter.start_link(wrap_exec: fn _, _ -> {"/", []} end)
      {_, 7} = System.cmd("sh", ["-c", "exit 7"])
      tell.({System.pid(), wardens})
      hear.()
      """)

    {pid, wardens} = OtherVM.await(vm)
    for warden <- wardens, do: eventually(fn -> not exists?(warden) end)
    # Also that of a start which failed.
    children = fn ->
      for os_pid <- ProcessTree.descendants(String.to_integer(pid)), do: ProcessTree.stat(os_pid)
    end

    eventually(fn -> not Enum.any?(children.(), &match?(["Z" | _], &1)) end)
    OtherVM.say(vm)
  end

  # Stopped by a signal, a warden does nothing any more, and is there all the same.
  defp suspend_warden(inp) do
    {:ok, warden} = Snex.pyeval(inp, "import os; return os.getppid()")
    {_, 0} = System.cmd("kill", ["-STOP", to_string(warden)])
    warden
  end

  @popen "import subprocess; return subprocess.Popen(['sh', '-c', 'trap : TERM; sleep 1000'], start_new_session=True).pid"

  test "stop has an end though the warden does nothing, and the VM ends the tree itself" do
    {:ok, inp} = Interpreter.start_link(stop_timeout: 0)
    {:ok, child} = Snex.pyeval(inp, @popen)
    os_pid = Interpreter.os_pid(inp)
    warden = suspend_warden(inp)
    assert Interpreter.stop(inp) == :ok
    await_gone([os_pid, child, warden])
  end

  test "a Python that dies while its warden does nothing is noticed, and callers are told" do
    Process.flag(:trap_exit, true)
    {:ok, inp} = Interpreter.start_link()
    os_pid = Interpreter.os_pid(inp)
    test = self()

    call =
      Task.async(fn ->
        code = "import asyncio; await snex.send(test, 'waiting'); await asyncio.Event().wait()"
        Snex.pyeval(inp, code, %{"test" => test}, timeout: :infinity)
      end)

    assert_receive "waiting", 60_000
    warden = suspend_warden(inp)
    {_, 0} = System.cmd("kill", ["-KILL", to_string(os_pid)])
    assert {:error, %Error{code: :internal_error} = error} = Task.await(call, 60_000)
    assert Exception.message(error) =~ "Python closed its end of the pipe"
    assert_receive {:EXIT, ^inp, ^error}, 60_000
    await_gone([warden])
  end

  test "stop has an end though the group leader takes no output" do
    leader = spawn(fn -> receive do: (:never -> :ok) end)
    {:ok, inp} = Task.await(Task.async(fn -> start_below(leader) end))
    # More than a pipe holds, outside of any call.
    code =
      "import os, threading; threading.Thread(target=os.write, args=(1, bytes(1 << 20)), daemon=True).start()"

    assert Snex.pyeval(inp, code) == {:ok, nil}
    assert Interpreter.stop(inp) == :ok
    Process.exit(leader, :kill)
  end

  defp start_below(leader) do
    Process.group_leader(self(), leader)
    {:ok, inp} = Interpreter.start_link(stop_timeout: 0)
    Process.unlink(inp)
    {:ok, inp}
  end

  # Whether a VM can be started whose machine looks different.
  unshare =
    match?({_, 0}, System.cmd("sh", ["-c", "unshare -m mount -t tmpfs none /proc"], stderr_to_stdout: true))

  @tag skip: if(unshare, do: false, else: "needs the right to make a mount namespace")
  test "without /proc, Python runs, is stopped with its process group, and does not outlive the VM" do
    hide = ["unshare", "-m", "sh", "-c", ~S(mount -t tmpfs none /proc; exec "$0" "$@")]

    for ending <- [:stop, :suspended, :kill] do
      vm =
        OtherVM.start(
          """
          false = File.exists?("/proc/self")
          popen = "import subprocess; return subprocess.Popen(['sh', '-c', 'trap : TERM; sleep 1000']).pid"
          {:ok, inp} = Snex.Interpreter.start_link(stop_timeout: 0)
          {:ok, {warden, python}} = Snex.pyeval(inp, "import os; return os.getppid(), os.getpid()")
          {:ok, child} = Snex.pyeval(inp, popen)
          tell.({System.pid(), warden, python, child})
          hear.()
          :ok = Snex.Interpreter.stop(inp)
          tell.(:stopped)
          hear.()
          """,
          through: hide
        )

      {pid, warden, python, child} = OtherVM.await(vm)
      watcher = ProcessTree.watch([warden, python, child])
      if ending == :suspended, do: System.cmd("kill", ["-STOP", to_string(warden)])

      if ending == :kill do
        OtherVM.kill(vm, pid, "KILL")
      else
        OtherVM.say(vm)
        assert OtherVM.await(vm) == :stopped
      end

      ProcessTree.await_end(watcher)
      if ending != :kill, do: OtherVM.say(vm)
    end
  end

  test "a VM that may have 64 descriptors runs interpreters until there are none left, and says what is needed" do
    vm =
      OtherVM.start(
        """
        Process.flag(:trap_exit, true)
        starts = for _ <- 1..9, do: Snex.Interpreter.start_link()
        {started, failed} = Enum.split_while(starts, &match?({:ok, _}, &1))
        answers = for {:ok, inp} <- started, do: Snex.pyeval(inp, "return 1")
        tell.({answers, failed})
        """,
        through: ["sh", "-c", ~S(ulimit -n 64; exec "$0" "$@")]
      )

    assert {[_ | _] = answers, [{:error, error} | _]} = OtherVM.await(vm)
    assert Enum.uniq(answers) == [{:ok, 1}]
    assert Exception.message(error) =~ "Too many open files"
    assert Exception.message(error) =~ "the VM may have 64 at a time (ulimit -n); an interpreter needs 10"
  end
end
