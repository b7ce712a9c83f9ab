defmodule Snex.Source.Producer do
  @moduledoc false
  # The process that runs an enumerable for Python: see `Snex.Source`. Linked to the feeder, with which it ends.
  #
  # It sends `{reference, :item, item}`, and at last `{reference, :done}` or `{reference, :failed, failure}`. It gets
  # `{reference, :credit, items}`: an item is not even made before there is credit for it. At `{reference, :stop}` it ends the enumerable as
  # a consumer does that wants no more, so that what cleans up behind it runs.
  #
  # Items that are not light count in bytes as well. When there are more than the interpreter's high mark, it sends
  # `{reference, :heavy}`, and goes on at `{reference, :go_on}`.

  alias Snex.Failure
  alias Snex.Interpreter.Origin
  alias Snex.Serde.Weight

  @typedoc "The process that the enumerable belongs to, and what that has around it, or `nil`: the producer looks."
  @type origin() :: {pid(), Origin.surroundings() | nil}

  @doc """
  Starts the producer, linked to the calling feeder, on a node.
  """
  @spec start_link(node(), reference(), Enumerable.t(), origin(), pos_integer(), pos_integer()) :: pid()
  def start_link(node, reference, enumerable, origin, credit, high),
    do: Node.spawn_link(node, __MODULE__, :run, [self(), reference, enumerable, origin, credit, high])

  @doc false
  @spec run(pid(), reference(), Enumerable.t(), origin(), pos_integer(), pos_integer()) :: term()
  def run(feeder, reference, enumerable, origin, credit, high) do
    Process.set_label(__MODULE__)
    adopt(origin)

    send(feeder, end_of(feeder, reference, enumerable, credit, high))
  end

  defp adopt({process, nil}) when node(process) == node() do
    surroundings = Origin.surroundings(process)
    if surroundings, do: adopt({process, surroundings})
  end

  # Of a third node.
  defp adopt({_process, nil}), do: :ok
  defp adopt({process, surroundings}), do: Origin.belong(process, surroundings)

  defp end_of(feeder, reference, enumerable, credit, high) do
    Enumerable.reduce(enumerable, {:cont, {credit, 0}}, fn item, {credit, bytes} ->
      send(feeder, {reference, :item, item})
      weigh(item, feeder, reference, credit - 1, bytes, high)
    end)

    {reference, :done}
  catch
    kind, reason -> {reference, :failed, Failure.describe(kind, reason, __STACKTRACE__)}
  end

  defp weigh(item, feeder, reference, credit, bytes, high) do
    bytes = if Weight.light?(item), do: bytes, else: bytes + :erlang.external_size(item)

    if bytes > high do
      send(feeder, {reference, :heavy})

      receive do
        {^reference, :go_on} -> next(reference, credit, 0)
        {^reference, :stop} -> {:halt, {credit, bytes}}
      end
    else
      next(reference, credit, bytes)
    end
  end

  defp next(reference, credit, bytes) do
    receive do
      {^reference, :credit, more} -> next(reference, credit + more, bytes)
      {^reference, :stop} -> {:halt, {credit, bytes}}
    after
      if(credit > 0, do: 0, else: :infinity) -> {:cont, {credit, bytes}}
    end
  end
end
