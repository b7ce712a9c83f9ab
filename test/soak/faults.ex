defmodule Snex.Soak.Faults do
  @moduledoc """
  Kills: Python, wardens, interpreter processes, pools, callers, nodes; and changes pools. One after the other, after pauses of random length.

  Kinds are dealt from a deck that is shuffled when it is empty, so that none stays away for long.
  """

  alias Snex.Figures
  alias Snex.Interpreter
  alias Snex.Pool
  alias Snex.Soak.Fleet
  alias Snex.Soak.Ledger
  alias Snex.Soak.Requests
  alias Snex.Soak.Traffic

  @deck [
    python_killed: 4,
    python_segv: 2,
    warden_killed: 3,
    interpreter_killed: 2,
    member_killed: 3,
    pool_resized: 2,
    pool_restarted: 1,
    caller_killed: 10,
    exits: 2,
    aborts: 1,
    crashes: 1,
    stuck: 1,
    node_killed: 1
  ]

  # The longest pause, in ms.
  @pause 600

  @doc """
  Goes on until `deadline`, in ms of the monotonic clock, with `other`, a node of `Fleet.start_there/0`. Returns the one that runs at the end.
  """
  def run(seed, deadline, other) do
    :rand.seed(:exsss, {seed, 0, 1})
    loop([], deadline, other)
  end

  defp loop([], deadline, other), do: loop(deck(), deadline, other)

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

  defp deck, do: Enum.shuffle(for {kind, times} <- @deck, _ <- 1..times, do: kind)

  defp inject(:caller_killed, other) do
    Traffic.kill_one()
    done(:caller_killed, other)
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

  defp inject(kind, {node, _control, _os_pid} = other) when kind in [:exits, :aborts, :crashes, :stuck] do
    target = Enum.random(if kind == :stuck, do: Fleet.replaced(node), else: Fleet.names(node))

    # A caller as any other, which others do not wait for.
    spawn(fn ->
      Ledger.enter(node())
      Requests.deadly(kind, node(), target)
    end)

    done(kind, other)
  end

  defp inject(kind, {node, _control, _os_pid} = other) when kind in [:pool_resized, :pool_restarted] do
    pool = node |> Fleet.pools() |> Enum.random()
    size = :rand.uniform(3)

    # Others go on meanwhile. It may be killed, or its node.
    spawn(fn ->
      try do
        if kind == :pool_resized, do: Pool.resize(pool, size), else: Pool.restart(pool, 60_000)
      catch
        :exit, _gone -> :ok
      end
    end)

    done(kind, other)
  end

  defp inject(:member_killed, {node, _control, _os_pid} = other) do
    case node |> Fleet.pools() |> Enum.random() |> some_interpreter() do
      nil ->
        other

      pid ->
        Process.exit(pid, :kill)
        done(:member_killed, other)
    end
  end

  defp inject(kind, {node, _control, _os_pid} = other) do
    target = node |> Fleet.victims() |> Enum.random()

    if victim(kind, target), do: done(kind, other), else: other
  end

  defp victim(:interpreter_killed, {name, node}) do
    case :erpc.call(node, Process, :whereis, [name]) do
      nil -> false
      pid -> Process.exit(pid, :kill)
    end
  end

  defp victim(kind, target) do
    case os_pid(target) do
      nil -> false
      python when kind == :python_killed -> Figures.kill("KILL", python)
      python when kind == :python_segv -> Figures.kill("SEGV", python)
      python -> if warden = warden(python), do: Figures.kill("KILL", warden)
    end
  end

  # Of an interpreter that runs; one that starts just now is left alone.
  defp os_pid(target) do
    pid = some_interpreter(target)
    if pid, do: Interpreter.os_pid(pid)
  catch
    :exit, _gone -> nil
  end

  defp some_interpreter({name, node}) do
    case :erpc.call(node, Fleet, :interpreters, [name, :all]) do
      [] -> nil
      pids -> Enum.random(pids)
    end
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

    Snex.Case.eventually(fn ->
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
