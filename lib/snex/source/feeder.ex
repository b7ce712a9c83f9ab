defmodule Snex.Source.Feeder do
  @moduledoc false
  # The process that a source belongs to: see `Snex.Source`.
  #
  # It gets what Python asks for from the native code (`{:snex_pull, items}`, `:snex_close`), and items from the producer, which it
  # submits at once: what has come meanwhile goes into one frame. `flight` has the frames that Python has not taken yet, as
  # `{items, bytes}`. With more bytes than the interpreter's high mark in them, or in the queue towards Python, items wait here, and the producer
  # with them.
  #
  # It is not linked to anybody but the producer, and ends when that has ended.

  use GenServer

  alias Snex.Failure
  alias Snex.Native
  alias Snex.Request
  alias Snex.Serde.Weight
  alias Snex.Source.Producer

  # How long a producer may take to end, in ms, before it is killed.
  @grace 5_000

  # The demand is spread over so many frames, so that the producer goes on while Python takes the first of them. A frame with more
  # items than the second number is no faster.
  @frames 4
  @most 512

  @nested "a stream cannot be an item of another stream"

  @doc """
  Starts a feeder, which opens a source of the interpreter.
  """
  @spec start(map()) :: {:ok, pid(), source :: pos_integer()} | :noproc
  def start(options) do
    reference = make_ref()

    # It sends its number in a message, so the caller need not ask for it.
    case GenServer.start(__MODULE__, {options, self(), reference}) do
      {:ok, pid} ->
        receive do
          {^reference, source} -> {:ok, pid, source}
        end

      {:error, {:shutdown, :noproc}} ->
        :noproc
    end
  end

  @doc """
  See `Snex.Source.settle/2`.
  """
  @spec settle(pid(), :ended | :cancelled | :left) :: :ok
  def settle(feeder, how) do
    send(feeder, {:settle, how})
    :ok
  end

  @impl GenServer
  def init({options, starter, reference}) do
    %{interpreter: interpreter, stream: stream, owner: owner} = options
    Process.flag(:trap_exit, true)
    Process.set_label({__MODULE__, interpreter})

    case Native.source_open(interpreter) do
      {:ok, source, high} ->
        send(starter, {reference, source})
        Process.monitor(interpreter)

        {:ok,
         %{
           interpreter: interpreter,
           source: source,
           high: high,
           stream: stream,
           encoding: options.encoding,
           origin: options.origin,
           owner: Process.monitor(owner),
           # What the producer's messages carry; the producer, while it runs.
           reference: make_ref(),
           producer: nil,
           # Items that have not been submitted, the latest first; how many may share a frame; the try that waits for room.
           items: [],
           most: stream.demand |> div(@frames) |> max(1) |> min(@most),
           waiting: nil,
           flight: :queue.new(),
           bytes: 0,
           # The producer waits for `:go_on`.
           heavy?: false,
           # How the producer has ended.
           outcome: nil,
           # The source has ended: only the producer's end is waited for.
           ended?: false
         }}

      :noproc ->
        # Not a crash to be reported.
        {:stop, {:shutdown, :noproc}}
    end
  end

  @impl GenServer
  def handle_info({:snex_pull, items}, %{producer: nil, outcome: nil, ended?: false} = state) do
    %{stream: stream} = state

    options =
      state
      |> Map.take([:interpreter, :source, :reference, :origin, :high])
      |> Map.merge(%{feeder: self(), enumerable: stream.enumerable, credit: min(items, stream.demand)})

    producer = Producer.start_link(stream.node, options)

    # Nobody needs it here any more.
    {:noreply, %{state | producer: producer, stream: %{stream | enumerable: []}}}
  end

  def handle_info({:snex_pull, items}, state) do
    {taken, state} = take_off(items, 0, state)
    tell_producer(state, {state.reference, :credit, taken})
    feed(state)
  end

  def handle_info({reference, :item, item}, %{reference: reference, ended?: false} = state),
    do: feed(%{state | items: collect(reference, [item | state.items], state.most - 1)})

  def handle_info({reference, :heavy}, %{reference: reference} = state),
    do: feed(%{state | heavy?: true})

  def handle_info({reference, :done}, %{reference: reference} = state),
    do: feed(%{state | outcome: :done})

  def handle_info({reference, :failed, failure}, %{reference: reference} = state),
    do: feed(%{state | outcome: failure})

  # There is room again.
  def handle_info({try, :writable, _ok}, %{waiting: {try, _request}} = state),
    do: feed(%{state | waiting: nil})

  def handle_info(:snex_close, state), do: stop(state)
  def handle_info({:settle, :ended}, state), do: stop(state)
  def handle_info({:settle, :cancelled}, state), do: fail(state, :exit, :cancelled, [])

  def handle_info({:settle, :left}, state) do
    Process.demonitor(state.owner, [:flush])
    {:noreply, state}
  end

  def handle_info({:DOWN, owner, :process, _pid, reason}, %{owner: owner} = state),
    do: fail(state, :exit, reason, [])

  def handle_info({:DOWN, _monitor, :process, interpreter, _reason}, %{interpreter: interpreter} = state),
    do: stop(state)

  def handle_info({:EXIT, producer, reason}, %{producer: producer} = state) do
    if node(producer) == node(), do: Native.call_end(state.interpreter, producer)

    if state.ended? do
      {:stop, :normal, state}
    else
      # One that was killed has not said how it has ended.
      outcome = state.outcome || Failure.describe(:exit, reason, [])
      feed(%{state | producer: nil, outcome: outcome})
    end
  end

  def handle_info(:kill, state) do
    if state.producer, do: Process.exit(state.producer, :kill)
    {:noreply, state}
  end

  # What was on its way when the source ended.
  def handle_info(_message, state), do: {:noreply, state}

  # What else the producer has sent by now, at most so many items.
  defp collect(_reference, items, 0), do: items

  defp collect(reference, items, most) do
    receive do
      {^reference, :item, item} -> collect(reference, [item | items], most - 1)
    after
      0 -> items
    end
  end

  # Takes frames off that Python has taken: with their items, of which no more count than have been sent.
  defp take_off(items, taken, state) do
    case :queue.out(state.flight) do
      {{:value, {count, bytes}}, flight} when count <= items ->
        take_off(items - count, taken + count, %{state | flight: flight, bytes: state.bytes - bytes})

      _part_or_none ->
        {taken, state}
    end
  end

  # Goes on with whatever is next.
  defp feed(%{ended?: true} = state), do: {:noreply, state}
  defp feed(%{waiting: waiting} = state) when waiting != nil, do: {:noreply, state}
  defp feed(%{bytes: bytes, high: high} = state) when bytes > high, do: {:noreply, state}

  defp feed(%{items: [], outcome: nil, heavy?: true} = state) do
    tell_producer(state, {state.reference, :go_on})
    {:noreply, %{state | heavy?: false}}
  end

  defp feed(%{items: [], outcome: nil} = state), do: {:noreply, state}
  defp feed(%{items: [], outcome: outcome} = state), do: finish(state, outcome)

  defp feed(%{items: items, most: most} = state) do
    {now, later} = items |> Enum.reverse() |> Enum.split(most)
    submit(now, Weight.light?(now), [], %{state | items: Enum.reverse(later)})
  end

  defp submit(items, light?, encoded, state) do
    try = make_ref()
    nif = Request.choose(light?, encoded, &Native.source_feed/5, &Native.source_feed_dirty/5)

    case nif.(state.interpreter, try, state.source, items, put_elem(state.encoding, 3, encoded)) do
      {:ok, bytes} ->
        # Otherwise it would stay here until the next garbage collection.
        if not light?, do: :erlang.garbage_collect()
        flight = :queue.in({length(items), bytes}, state.flight)
        feed(%{state | flight: flight, bytes: state.bytes + bytes})

      {:full, request} ->
        later = state.items ++ Enum.reverse(items)
        {:noreply, %{state | items: later, waiting: {try, request}}}

      refused ->
        again(items, light?, encoded, try, refused, state)
    end
  end

  defp again(items, light?, encoded, try, refused, state) do
    case Request.wait(state.interpreter, try, refused, :infinity, encoded, {:refused, @nested}) do
      {:again, encoded} -> submit(items, light?, encoded, state)
      {:error, error} -> refuse(items, :error, error, [], state)
    end
  catch
    kind, reason -> refuse(items, kind, reason, __STACKTRACE__, state)
  end

  # One of these items cannot be encoded, or the interpreter is gone. Those before it are sent first.
  defp refuse([_item], kind, reason, stacktrace, state), do: fail(state, kind, reason, stacktrace)

  defp refuse(items, _kind, _reason, _stacktrace, state),
    do: feed(%{state | items: state.items ++ Enum.reverse(items), most: 1})

  defp fail(state, kind, reason, stacktrace),
    do: finish(state, Failure.describe(kind, reason, stacktrace))

  defp finish(%{ended?: true} = state, _outcome), do: {:noreply, state}

  defp finish(state, outcome) do
    Native.source_end(state.interpreter, state.source, if(outcome != :done, do: outcome))
    stop(state)
  end

  # The source has ended. The producer may have something to clean up.
  defp stop(%{ended?: true} = state), do: {:noreply, state}

  defp stop(state) do
    Native.source_close(state.interpreter, state.source)
    with {_try, request} <- state.waiting, do: Native.request_forget(state.interpreter, request, false)

    if state.producer do
      tell_producer(state, {state.reference, :stop})
      Process.send_after(self(), :kill, @grace)
      {:noreply, %{state | ended?: true, items: []}}
    else
      {:stop, :normal, state}
    end
  end

  defp tell_producer(%{producer: nil}, _message), do: :ok
  defp tell_producer(%{producer: producer}, message), do: send(producer, message)
end
