defmodule Snex.OrphanTest do
  use Snex.Case, async: true

  alias Snex.OtherVM

  # What Python is doing when the VM goes.
  @busy %{
    "idle" => "",
    "in an asyncio sleep" => "import asyncio; await asyncio.sleep(1000)",
    "in a loop of pure Python" => "while True: pass",
    "in time.sleep" => "import time; time.sleep(1000)",
    "in a C call that holds the GIL" => "sum(range(10 ** 15))",
    "waiting for a child of its own" => "import subprocess; subprocess.run(['sleep', '1000'])"
  }

  @start """
  python = System.get_env("SNEX_TEST_PYTHON")
  {:ok, inp} = Snex.Interpreter.start_link(python: python)
  {:ok, env} = Snex.make_env(inp)
  {:ok, children} = Snex.pyeval(env, \"\"\"
  import subprocess
  session = subprocess.Popen(["sleep", "1000"], start_new_session=True)
  twice = subprocess.Popen(["sh", "-c", "sleep 1000 >/dev/null & echo $!"], stdout=subprocess.PIPE)
  return session.pid, int(twice.stdout.readline())
  \"\"\")
  """

  defp start_busy(code) do
    {_name, python} = hd(pythons())
    System.put_env("SNEX_TEST_PYTHON", python)

    vm =
      OtherVM.start(
        @start <>
          """
          tell.({String.to_integer(System.pid()), Snex.Interpreter.os_pid(inp), children})
          Snex.pyeval(env, "await snex.send(me, 'running')\\n" <> #{inspect(code)}, %{"me" => spawn(fn ->
            receive do: ("running" -> tell.(:running))
          end)}, timeout: :infinity)
          Process.sleep(:infinity)
          """
      )

    {vm_pid, os_pid, children} = OtherVM.await(vm)
    assert OtherVM.await(vm) == :running
    tree = [os_pid | Tuple.to_list(children)]
    assert Enum.all?(tree, &exists?/1)
    {vm, vm_pid, tree}
  end

  for {doing, code} <- @busy do
    test "kill -9 of the VM leaves no process behind with Python #{doing}" do
      {vm, vm_pid, tree} = start_busy(unquote(code))
      OtherVM.kill(vm, vm_pid, "KILL")
      await_gone(tree)
    end
  end

  for {doing, code} <- Map.take(@busy, ["in a loop of pure Python", "in time.sleep"]) do
    test "SIGTERM of the VM, its orderly stop, leaves no process behind with Python #{doing}" do
      {vm, vm_pid, tree} = start_busy(unquote(code))
      OtherVM.kill(vm, vm_pid, "TERM")
      await_gone(tree)
    end
  end

  test "kill -9 of the VM leaves no process behind that does not hear SIGTERM, whatever stop_timeout says" do
    vm =
      OtherVM.start("""
      # Longer than this test waits.
      {:ok, inp} = Snex.Interpreter.start_link(stop_timeout: 600_000)
      {:ok, child} = Snex.pyeval(inp, \"\"\"
      import subprocess
      child = subprocess.Popen(["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.1; done"], stdout=subprocess.PIPE)
      child.stdout.readline()
      return child.pid
      \"\"\")
      tell.({String.to_integer(System.pid()), Snex.Interpreter.os_pid(inp), child})
      Process.sleep(:infinity)
      """)

    {vm_pid, os_pid, child} = OtherVM.await(vm)
    OtherVM.kill(vm, vm_pid, "KILL")
    await_gone([os_pid, child])
  end
end
