defmodule Snex.OrphanTest do
  # Not async: it measures.
  use Snex.Case

  alias Snex.OtherVM
  alias Snex.ProcessTree

  @moduletag timeout: 300_000

  # What is promised, in ms, and what a machine that is busy otherwise may need.
  @promised 1_000
  @allowed 5_000

  # What Python does when the end comes, each in an interpreter of its own: code, and how many processes Python has started
  # by then.
  @doing [
    {"idle", "", 0},
    {"in await asyncio.sleep", "import asyncio; await asyncio.sleep(1000)", 0},
    {"in while True: pass", "while True: pass", 0},
    {"in time.sleep", "import time; time.sleep(1000)", 0},
    {"in a C call that holds the GIL and waits", "import ctypes; ctypes.PyDLL(None).sleep(1000)", 0},
    {"in a C call that holds the GIL and computes", "sum(range(10 ** 15))", 0},
    {"in an Elixir function, on the event loop's thread",
     "snex.call_sync('timer', 'sleep', [snex.Atom('infinity')])", 0},
    {"in subprocess.run", "import subprocess; subprocess.run(['sleep', '1000'])", 1},
    {"with a multiprocessing pool, by fork",
     "import multiprocessing as m, time; pool = m.get_context('fork').Pool(3); pool.map(time.sleep, [1000] * 3)",
     3},
    # A child of its own keeps count of shared resources.
    {"with a multiprocessing pool, by spawn",
     "import multiprocessing as m, time; pool = m.get_context('spawn').Pool(2); pool.map(time.sleep, [1000] * 2)",
     3},
    {"with a child that called setsid",
     "import subprocess; c = subprocess.Popen(['sleep', '1000'], start_new_session=True)", 1},
    {"with a child that forked twice, and left the session",
     """
     import os
     if os.fork() == 0:
         os.setsid()
         if os.fork() == 0:
             os.closerange(0, 100)
             os.execvp("sleep", ["sleep", "1000"])
         os._exit(0)
     os.wait()
     """, 1},
    {"with children that ignore SIGTERM, in and out of the session",
     """
     import subprocess
     deaf = ["sh", "-c", "trap '' TERM; while :; do sleep 1000; done"]
     children = [subprocess.Popen(deaf, start_new_session=new) for new in (True, False)]
     """, 4}
  ]

  # An application whose supervisor starts the interpreters, one for each of these.
  @application ~S"""
  defmodule Rows do
    use Application

    def start(_, _), do: DynamicSupervisor.start_link(name: __MODULE__, strategy: :one_for_one)

    # Returns the interpreters, which all do what they are told by now, and the process that has started them.
    def run(codes, how, opts) do
      me = self()

      starter =
        spawn(fn ->
          # One after the other: they are linked to this process.
          interpreters = for _ <- codes, do: elem({:ok, _} = start_one(how, opts), 1)
          send(me, interpreters)
          Process.sleep(:infinity)
        end)

      interpreters = receive do: (interpreters -> interpreters)
      for {inp, code} <- Enum.zip(interpreters, codes), do: do_in(inp, code)
      for _ <- codes, do: receive(do: ("running" -> :ok))
      {interpreters, starter}
    end

    # The options of copies instead: of one template, whose warden looks after all of them.
    def copies(opts) do
      {:ok, template} = start_one(:supervised, opts)
      opts |> Keyword.delete(:python) |> Keyword.put(:template, template)
    end

    defp start_one(:linked, opts), do: Snex.Interpreter.start_link(opts)

    defp start_one(how, opts) do
      spec = Map.put(Snex.Interpreter.child_spec(opts), :restart, :temporary)
      spec = if how == :brutal_kill, do: %{spec | shutdown: :brutal_kill}, else: spec
      DynamicSupervisor.start_child(__MODULE__, spec)
    end

    defp do_in(inp, code) do
      {:ok, env} = Snex.make_env(inp, %{"me" => self()})
      spawn(fn -> Snex.pyeval(env, "await snex.send(me, 'running')\n" <> code, timeout: :infinity) end)
    end
  end

  :ok = :application.load({:application, :rows, mod: {Rows, []}, applications: [:kernel, :stdlib, :elixir]})
  {:ok, _} = Application.ensure_all_started(:rows)
  """

  # How the end comes: options of the interpreters, how they are started, and what brings the end. Where there is nobody to
  # ask how long the grace is, it is not the one that the options say.
  @ways [
    {"SIGKILL of the VM", 600_000, :supervised, {:signal, "KILL"}},
    {"System.halt", 600_000, :supervised, "System.halt(1)"},
    {"SIGTERM of the VM", 500, :supervised, {:signal, "TERM"}},
    {":init.stop", 500, :supervised, ":init.stop()"},
    {"Application.stop", 500, :supervised, "Application.stop(:rows)"},
    {"a kill of the interpreter process, which owns Python", 600_000, :supervised,
     "for inp <- interpreters, do: Process.exit(inp, :kill)"},
    {"a crash of the process that the interpreter is linked to", 500, :linked,
     "Process.exit(starter, :crash)"},
    {":brutal_kill by the supervisor", 600_000, :brutal_kill, "Supervisor.stop(Rows)"}
  ]

  for {way, stop_timeout, how, trigger} <- @ways, kind <- [:started, :copies] do
    test "#{way} leaves no process behind, whatever Python does (#{kind})" do
      {vm, vm_pid, rows} =
        start(unquote(stop_timeout), unquote(how), unquote(Macro.escape(trigger)), unquote(kind))

      tree = Enum.flat_map(rows, fn {_os_pid, tree} -> tree end)
      watcher = ProcessTree.watch(tree)
      begun = bring_about(vm, vm_pid, unquote(Macro.escape(trigger)))
      took = div(ProcessTree.await_end(watcher) - begun, 1000)

      IO.puts(
        "#{unquote(way)}: #{length(tree)} processes of #{length(rows)} interpreters (#{unquote(kind)}) gone after #{took} ms"
      )

      if took > @promised, do: IO.puts("... which is more than promised")
      assert took <= @allowed
    end
  end

  # A VM whose interpreters do all of this, and the processes of each interpreter: its warden first, unless it is a copy.
  defp start(stop_timeout, how, trigger, kind) do
    {_name, python} = hd(pythons())
    codes = for {_doing, code, _children} <- @doing, do: code
    code = if is_binary(trigger), do: trigger, else: ""

    vm =
      OtherVM.start("""
      #{@application}
      opts = [python: #{inspect(python)}, stop_timeout: #{stop_timeout}]
      opts = if #{inspect(kind)} == :copies, do: Rows.copies(opts), else: opts
      {interpreters, starter} = Rows.run(#{inspect(codes)}, #{inspect(how)}, opts)
      tell.({String.to_integer(System.pid()), Enum.map(interpreters, &Snex.Interpreter.os_pid/1)})
      hear.()
      tell.(System.os_time(:microsecond))
      #{code}
      # It ends with the test, whose port closes its standard input.
      hear.()
      """)

    {vm_pid, os_pids} = OtherVM.await(vm)

    rows =
      for {os_pid, {doing, _code, children}} <- Enum.zip(os_pids, @doing) do
        {root, wanted} =
          if kind == :copies, do: {os_pid, children}, else: {ProcessTree.parent(os_pid), children + 1}

        eventually(fn -> length(ProcessTree.descendants(root)) == wanted end, 6_000, fn ->
          "#{doing}: #{inspect(ProcessTree.descendants(root))} should be #{wanted}"
        end)

        {os_pid, [root | ProcessTree.descendants(root)]}
      end

    {vm, vm_pid, rows}
  end

  defp bring_about(vm, vm_pid, {:signal, signal}) do
    begun = System.os_time(:microsecond)
    OtherVM.kill(vm, vm_pid, signal)
    begun
  end

  defp bring_about(vm, _vm_pid, _code) do
    OtherVM.say(vm)
    OtherVM.await(vm)
  end
end
