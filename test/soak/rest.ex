defmodule Snex.Soak.Rest do
  @moduledoc """
  What must be true of every interpreter when all callers have finished, and nothing is killed any more.
  """

  alias Snex.Error
  alias Snex.Pool
  alias Snex.Soak.Fleet
  alias Snex.Soak.Ledger
  alias Snex.Soak.Objects
  alias Snex.Soak.Streams

  # Between two looks, and how long something may take to come to rest, in ms.
  @pause 20
  @patience 60_000

  # What may be left in an interpreter: which of these modules counts it, with `left_in/1`, and the row of the report.
  @kinds [
    {Objects, :handles_alive, "objects that nobody refers to"},
    {Streams, :streams_open, "generators that nobody consumes"}
  ]

  @doc """
  Writes down which interpreters still have something, and which pools something to do. `other` is the other node.
  """
  def check(other) do
    for {name, _node} = pool <- Fleet.pools(other),
        info = busy(pool, Fleet.sharing(name, other), deadline()) do
      Ledger.blame(node(), :pools_busy, "#{inspect(pool)}: #{inspect(info)}")
    end

    for {module, row, what} <- @kinds, {target, counts} <- left(Fleet.names(other), module, deadline()) do
      Ledger.blame(node(), row, "#{inspect(target)} has #{inspect(counts)} #{what}")
    end

    :ok
  end

  # What a pool says of itself, unless it is at rest.
  defp busy(pool, nodes, deadline) do
    info = info(pool)

    cond do
      rests?(info, nodes) ->
        nil

      System.monotonic_time(:millisecond) > deadline ->
        info

      true ->
        Process.sleep(@pause)
        busy(pool, nodes, deadline)
    end
  end

  # All interpreters that there should be run, there are no others, nobody has or waits for one, and the pools of a cluster know each other.
  defp rests?(%{size: size, running: size, waiting: 0, members: members} = info, nodes) do
    length(members) == size and Enum.all?(members, &(&1.calls_running == 0)) and
      Enum.sort(Map.keys(info.nodes)) == Enum.sort(nodes)
  end

  defp rests?(_busy, _nodes), do: false

  defp info(pool) do
    Pool.info(pool, @patience)
  catch
    # Its supervisor is about to start another.
    :exit, {reason, _call} when reason != :timeout -> reason
  end

  defp deadline, do: System.monotonic_time(:millisecond) + @patience

  defp left(interpreters, module, deadline) do
    # What this node holds of the others is given back first.
    collect_garbage()

    left =
      for {name, node} = target <- interpreters,
          counts = :erpc.call(node, __MODULE__, :left_behind, [name, module]),
          counts != [],
          do: {target, counts}

    if left == [] or System.monotonic_time(:millisecond) > deadline do
      left
    else
      Process.sleep(@pause)
      left(interpreters, module, deadline)
    end
  end

  @doc false
  # On the node of these interpreters: what those have that have anything.
  def left_behind(name, module) do
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
end
