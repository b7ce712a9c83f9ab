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
end
