defmodule Snex.Soak.Faults do
  @moduledoc """
  Kills Pythons, wardens, interpreter processes, callers, those among them that have an interpreter for themselves, and a node; cuts the
  node off for a while, and changes pools: one after the other, after pauses of random
  length.

  Kinds are dealt from a deck that is shuffled when it is empty, so that none stays away for long. What can be killed in several
  ways is: an interpreter as each role that there is in `Fleet`.
  """

  import Snex.Case, only: [eventually: 1]

  alias Snex.Error
  alias Snex.Figures
  alias Snex.Interpreter
  alias Snex.Pool
  alias Snex.Soak.Fleet
  alias Snex.Soak.Ledger
  alias Snex.Soak.Requests
  alias Snex.Soak.Traffic

  # How an interpreter is killed, and how often in each role.
  @kills [python_killed: 2, python_segv: 1, warden_killed: 1, interpreter_killed: 2]

  @others [
    pool_resized: 2,
    pool_restarted: 2,
    caller_killed: 10,
    owner_killed: 4,
    exits: 2,
    aborts: 1,
    crashes: 1,
    stuck: 1,
    node_killed: 1,
    node_cut_off: 1
  ]

  @deck for {kind, times} <-
              @others ++ for({kill, n} <- @kills, role <- Fleet.roles(), do: {{role, kill}, n}),
            _ <- 1..times,
            do: kind

  # How long one is waited for who has an interpreter for itself, in ms.
  @patience 2_000

  # The longest pause, and the longest time that a node is cut off, in ms.
  @pause 600

  @doc """
  Goes on until `deadline`, in ms of the monotonic clock, with `other`, a node of `Fleet.start_there/0`. Returns the one that runs at the end.
  """
  def run(seed, deadline, other) do
    :rand.seed(:exsss, {seed, 0, 1})
    loop([], deadline, other)
  end

  defp loop([], deadline, other), do: loop(Enum.shuffle(@deck), deadline, other)

  defp loop([kind | deck], deadline, other) do
    left = deadline - System.monotonic_time(:millisecond)
    pause = :rand.uniform(@pause)

    if pause >= left do
      Process.sleep(max(left, 0))
      other
    else
      Process.sleep(pause)
      loop(deck, deadline, inject(kind, other))
    end
  end

  defp inject(:caller_killed, other) do
    Traffic.kill_one()
    done(:caller_killed, other)
  end

  # In a call to the interpreter that it has checked out, or right after it.
  defp inject(:owner_killed, other) do
    case await_owner(@patience) do
      nil ->
        other

      pid ->
        Process.exit(pid, :kill)
        done(:owner_killed, other)
    end
  end

  defp inject(:node_killed, {node, control, os_pid}) do
    monitor = Process.monitor(control)
    :ok = :net_kernel.monitor_nodes(true)
    Figures.kill("KILL", os_pid)

    receive do
      {:DOWN, ^monitor, :process, ^control, _reason} -> :ok
    end

    receive do
      {:nodedown, ^node} -> :ok
    end

    :ok = :net_kernel.monitor_nodes(false)
    await_name_free(node)
    flush_nodes()
    other = Fleet.start_there()
    Traffic.add_node(node)
    done(:node_killed, other)
  end

  # What runs there goes on, apart from the callers: they cannot write down what becomes of their calls.
  defp inject(:node_cut_off, {node, control, _os_pid} = other) do
    cookie = Node.get_cookie()
    # Otherwise the next message would connect them again.
    true = Node.set_cookie(node, :snex_soak_cut_off)
    true = :erlang.disconnect_node(node)
    eventually(fn -> :peer.call(control, Node, :list, []) == [] end)
    :ok = :peer.call(control, Traffic, :end_callers, [])
    Ledger.cut()
    Process.sleep(:rand.uniform(@pause))
    true = Node.set_cookie(node, cookie)
    eventually(fn -> Node.connect(node) end)
    Traffic.add_node(node)
    done(:node_cut_off, other)
  end

  defp inject(kind, {node, _control, _os_pid} = other) when kind in [:exits, :aborts, :crashes, :stuck] do
    target = Enum.random(if kind == :stuck, do: Fleet.replaced(node), else: Fleet.names(node))
    beside(fn -> Requests.deadly(kind, node(), target) end)
    done(kind, other)
  end

  # Counted when it has returned, with what it has returned. It is lost if it does not.
  defp inject(kind, {node, _control, _os_pid} = other) when kind in [:pool_resized, :pool_restarted] do
    pool = node |> Fleet.pools() |> Enum.random()
    size = :rand.uniform(3)

    beside(fn ->
      Requests.entered(node(), kind, fn _number ->
        result = if kind == :pool_resized, do: resize(pool, size), else: restart(pool)
        Ledger.count(node(), "#{kind}: #{result}")
        if result == :ok, do: :answered, else: {:failed, "#{kind}: #{result}"}
      end)
    end)

    other
  end

  defp inject({role, kill}, {node, _control, _os_pid} = other) do
    target = node |> Fleet.victims(role) |> Enum.random()

    with pid when pid != nil <- some_interpreter(target, role), true <- kill(kill, pid) do
      done("#{role}: #{kill}", other)
    else
      _not_there -> other
    end
  end

  defp await_owner(patience) do
    case Ledger.caller_at(:checked_out) do
      nil when patience > 0 ->
        Process.sleep(1)
        await_owner(patience - 1)

      pid_or_nil ->
        pid_or_nil
    end
  end

  # As another caller, for which this process does not wait.
  defp beside(fun) do
    spawn(fn ->
      Ledger.enter(node())
      fun.()
    end)
  end

  defp resize(pool, size), do: change(fn -> Pool.resize(pool, size, :infinity) end)
  defp restart(pool), do: change(fn -> Pool.restart(pool, :infinity) end)

  # An interpreter that is killed as it starts is an error; the pool may be killed itself, or its node.
  defp change(fun) do
    with {:error, %Error{code: code}} <- fun.(), do: code
  catch
    :exit, {{:nodedown, _node}, _call} -> "its node is gone"
    :exit, {reason, _call} -> "its pool is gone: #{inspect(reason, limit: 10)}"
  end

  defp some_interpreter({name, node}, role) do
    case :erpc.call(node, Fleet, :interpreters, [name, role]) do
      [] -> nil
      pids -> Enum.random(pids)
    end
  end

  defp kill(:interpreter_killed, pid), do: Process.exit(pid, :kill)

  defp kill(kill, pid) do
    case os_pid(pid) do
      nil -> false
      python when kill == :python_killed -> Figures.kill("KILL", python)
      python when kill == :python_segv -> Figures.kill("SEGV", python)
      python when kill == :warden_killed -> if warden = warden(python), do: Figures.kill("KILL", warden)
    end
  end

  # Of an interpreter that runs; one that starts just now is left alone.
  defp os_pid(interpreter) do
    Interpreter.os_pid(interpreter)
  catch
    :exit, _gone -> nil
  end

  defp warden(python) do
    parent = Figures.parent(python)
    if parent && File.read("/proc/#{parent}/comm") == {:ok, "snex_warden\n"}, do: parent
  end

  defp done(kind, other) do
    Ledger.count(node(), kind)
    other
  end

  # The daemon that knows the nodes hears of the end of one by itself.
  defp await_name_free(node) do
    [name, host] = node |> Atom.to_string() |> String.split("@") |> Enum.map(&String.to_charlist/1)

    eventually(fn ->
      {:ok, names} = :erl_epmd.names(host)
      not List.keymember?(names, name, 0)
    end)
  end

  defp flush_nodes do
    receive do
      {tag, _node} when tag in [:nodeup, :nodedown] -> flush_nodes()
    after
      0 -> :ok
    end
  end
end
