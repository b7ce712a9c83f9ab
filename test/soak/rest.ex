defmodule Snex.Soak.Rest do
  @moduledoc """
  What must be true of every interpreter when all callers have finished, and nothing is killed any more.
  """

  alias Snex.Error
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
  Writes down which of these interpreters, `{name, node}` each, still have something.
  """
  def check(interpreters) do
    for {module, row, what} <- @kinds, {target, counts} <- left(interpreters, module, deadline()) do
      Ledger.blame(node(), row, "#{inspect(target)} has #{inspect(counts)} #{what}")
    end

    :ok
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
