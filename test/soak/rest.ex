defmodule Snex.Soak.Rest do
  @moduledoc """
  What must be true when all callers have finished, and nothing is killed any more.
  """

  alias Snex.Error
  alias Snex.Peer
  alias Snex.Pool
  alias Snex.Soak.Fleet
  alias Snex.Soak.Ledger
  alias Snex.Soak.Objects
  alias Snex.Soak.Streams

  # Between two looks, and how long something may take to come to rest, in ms.
  @pause 20
  @patience 60_000

  @doc """
  Writes down what is not at rest: pools, interpreters with something that nobody uses, and trackers. `other` is the other node.
  """
  def check(other) do
    blame(:pools_busy, "is not at rest", fn -> busy_pools(other) end)
    blame(:handles_alive, "has objects that nobody refers to", fn -> left_behind(other, Objects) end)
    blame(:streams_open, "has generators that nobody consumes", fn -> left_behind(other, Streams) end)
    blame(:trackers_busy, "has a tracker that is not at rest", fn -> busy_trackers(other) end)
  end

  # `look` returns what is not at rest, with what it has.
  defp blame(row, what, look) do
    for {who, has} <- wait(look, System.monotonic_time(:millisecond) + @patience),
        do: Ledger.blame(node(), row, "#{inspect(who)} #{what}: #{inspect(has)}")
  end

  defp wait(look, deadline) do
    left = look.()

    if left == [] or System.monotonic_time(:millisecond) > deadline do
      left
    else
      Process.sleep(@pause)
      wait(look, deadline)
    end
  end

  # ---- Pools ------------------------------------------------------------------------------------------

  defp busy_pools(other) do
    for {name, _node} = pool <- Fleet.pools(other),
        info = info(pool),
        not rests?(info, Fleet.sharing(name, other)),
        do: {pool, info}
  end

  defp info(pool) do
    Pool.info(pool, @patience)
  catch
    # Its supervisor is about to start another.
    :exit, {reason, _call} when reason != :timeout -> reason
  end

  # All interpreters that there should be run, there are no others, nobody has or waits for one, and the pools of a cluster know each other.
  defp rests?(%{size: size, running: size, waiting: 0, members: members} = info, nodes) do
    length(members) == size and Enum.all?(members, &(&1.calls_running == 0)) and
      Enum.sort(Map.keys(info.nodes)) == Enum.sort(nodes)
  end

  defp rests?(_busy, _nodes), do: false

  # ---- Interpreters -----------------------------------------------------------------------------------

  defp left_behind(other, module) do
    # What this node holds of the other is given back first.
    collect_garbage()

    for {name, node} = target <- Fleet.names(other),
        counts = :erpc.call(node, __MODULE__, :left_here, [name, module]),
        counts != [],
        do: {target, counts}
  end

  @doc false
  # On the node of these interpreters: what those have that have anything.
  def left_here(name, module) do
    collect_garbage()
    for interpreter <- Fleet.interpreters(name), (left = left_in(interpreter, module)) != 0, do: left
  end

  # Nothing is left in one that has been replaced just now.
  defp left_in(interpreter, module) do
    case module.left_in(interpreter) do
      {:error, %Error{code: code}} when code in [:call_failed, :interpreter_exited] -> 0
      count_or_error -> count_or_error
    end
  catch
    :exit, {reason, _call} when reason != :timeout -> 0
  end

  defp collect_garbage, do: for(process <- Process.list(), do: :erlang.garbage_collect(process))

  # ---- Trackers ---------------------------------------------------------------------------------------

  # What they hold for each other has been given back by the garbage collections before.
  defp busy_trackers(other) do
    for node <- [node(), other], not Peer.at_rest?([node]), do: {node, Peer.tracked(node)}
  end
end
