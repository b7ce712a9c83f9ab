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
  alias Snex.Native
  alias Snex.Serde.Weight

  @typedoc "The process that the enumerable belongs to, and what that has around it, or `nil`: the producer looks."
  @type origin() :: {pid(), Origin.surroundings() | nil}

  @typedoc "What there is to know; `:credit` at first, `:high` in bytes."
  @type options() :: %{
          feeder: pid(),
          interpreter: pid(),
          source: pos_integer(),
          reference: reference(),
          enumerable: Enumerable.t(),
          origin: origin(),
          credit: pos_integer(),
          high: pos_integer()
        }

  @doc """
  Starts the producer, linked to the calling feeder, on a node.
  """
  @spec start_link(node(), options()) :: pid()
  def start_link(node, options), do: Node.spawn_link(node, __MODULE__, :run, [options])

  @doc false
  @spec run(options()) :: term()
  def run(%{feeder: feeder, interpreter: interpreter} = options) do
    Process.set_label({__MODULE__, interpreter})
    # What it asks of the interpreter while that waits for its items.
    if node(interpreter) == node(), do: Native.source_begin(interpreter, options.source)
    adopt(options.origin)
    send(feeder, end_of(options))
  end

  defp adopt({process, nil}) when node(process) == node() do
    surroundings = Origin.surroundings(process)
    if surroundings, do: adopt({process, surroundings})
  end

  # Of a third node.
  defp adopt({_process, nil}), do: :ok
  defp adopt({process, surroundings}), do: Origin.belong(process, surroundings)

  defp end_of(%{feeder: feeder, reference: reference, high: high} = options) do
    Enumerable.reduce(options.enumerable, {:cont, {options.credit, 0}}, fn item, {credit, bytes} ->
      send(feeder, {reference, :item, item})
      weigh(item, feeder, reference, credit - 1, bytes, high)
    end)

    {reference, :done}
  catch
    kind, reason -> {options.reference, :failed, Failure.describe(kind, reason, __STACKTRACE__)}
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
