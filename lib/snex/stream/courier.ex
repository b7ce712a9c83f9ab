defmodule Snex.Stream.Courier do
  @moduledoc false
  # One process for each enumeration of a stream, on the interpreter's node. It stands between Python, which must not wait for a consumer
  # that is busy when it prints, and the consumer, which may be anything but a process that handles messages of ours.
  #
  # It is the caller of the request: what that prints is printed here, in the name of the consumer, and what comes is put in order and
  # queued as it is. The consumer asks for it, frame by frame, and decodes it. Asking for the next frame says that the
  # last one has been taken, and Python is told so: it never has more than `:demand` items on the way.
  #
  # It ends when the consumer has got the end, when the consumer goes or another process says `stop/3`, which cancels the request;
  # and the end of this process would do so as well.

  use GenServer

  alias Snex.Error
  alias Snex.Interpreter.Down
  alias Snex.Interpreter.Origin
  alias Snex.Native
  alias Snex.Output
  alias Snex.Request
  alias Snex.Serde.Decoder
  alias Snex.Stream.Frames

  # How long a courier waits for a consumer on another node to ask for the first time, in ms. It does so at once, unless it has not
  # been told of this process, and never will be.
  @unclaimed 60_000

  @typedoc "Items as they have arrived; or, behind items that could be decoded, why the next one could not."
  @type frame() :: Frames.frame() | {:error, Error.t()}

  @typedoc "The process that enumerates, and what it has around it."
  @type consumer() :: {pid(), Origin.surroundings()}

  @doc """
  Submits a request, and starts the process that receives what comes of it. For `Snex.Remote.run/5`, like `next/5`, `hand_over/4` and `stop/4`.
  """
  @spec start(pid(), Request.t(), tuple(), consumer(), Request.options()) ::
          {{:ok, pid(), courier :: pid(), request :: pos_integer()} | {:error, Error.t()}, []}
  def start(interpreter, request, encoding, consumer, options) do
    ticket = make_ref()
    args = {self(), ticket, interpreter, request, encoding, consumer, options}

    case GenServer.start(__MODULE__, args, timeout: Request.time_left(options.deadline)) do
      {:ok, courier} ->
        receive do
          {^ticket, request} -> {{:ok, interpreter, courier, request}, []}
        end

      {:error, {:shutdown, {:failed, error}}} ->
        {{:error, error}, []}

      {:error, {:shutdown, {:raised, kind, reason, stacktrace}}} ->
        :erlang.raise(kind, reason, stacktrace)

      {:error, :timeout} ->
        # It may have come just as far as that.
        receive do
          {^ticket, _request} -> :ok
        after
          0 -> :ok
        end

        {{:error, %Error{code: :response_timeout}}, []}

      {:error, reason} ->
        {{:error, %Error{code: :call_failed, reason: reason}}, []}
    end
  end

  @doc """
  Says that so many items have been taken, and returns the next ones, or the end. With the items come frames that have arrived behind
  them, if the consumer is on this node.
  """
  @spec next(pid(), pid(), pos_integer(), non_neg_integer(), Request.options()) ::
          {{:items, [term()], [frame()]} | :end | {:error, Error.t()}, [reference()]}
  def next(interpreter, courier, request, taken, options) do
    # Not by the courier: Python may go on all the sooner.
    if taken > 0, do: Native.stream_credit(interpreter, request, taken)

    case call(courier, :next, options) do
      [frame | frames] -> open(interpreter, frame, frames)
      end_or_error -> {end_or_error, []}
    end
  end

  @doc """
  Another process goes on with the enumeration.
  """
  @spec hand_over(pid(), pid(), consumer(), Request.options()) :: {:ok | {:error, Error.t()}, []}
  def hand_over(_interpreter, courier, consumer, options),
    do: {call(courier, {:hand_over, consumer}, options), []}

  defp call(courier, message, options) do
    GenServer.call(courier, message, Request.time_left(options.deadline))
  catch
    :exit, {:timeout, _call} ->
      {:error, %Error{code: :response_timeout}}

    :exit, {_reason, _call} ->
      reason = "the stream has been closed: the process that enumerated it, or its node, is gone"
      {:error, %Error{code: :call_failed, reason: reason}}
  end

  @doc """
  As `next/5`, with a frame that has arrived already.
  """
  @spec next_in_hand(pid(), pos_integer(), non_neg_integer(), Frames.frame(), Request.options()) ::
          {{:items, [term()], [frame()]} | {:error, Error.t()}, [reference()]}
  def next_in_hand(interpreter, request, taken, frame, _options) do
    Native.stream_credit(interpreter, request, taken)
    open(interpreter, frame, [])
  end

  @doc """
  Whether there are objects in frames. Their handles belong to the process that has got them.
  """
  @spec handles?([frame()]) :: boolean()
  def handles?(frames), do: Enum.any?(frames, fn {_tag, content} -> is_tuple(content) end)

  defp open(interpreter, {tag, content}, frames) do
    options = if tag == :items_safe, do: [:safe], else: []

    case Decoder.decode(content, options, interpreter) do
      # Not one with an improper tail.
      {:ok, items, handles} when length(items) >= 0 ->
        {{:items, items, frames}, handles}

      {:ok, other, _handles} ->
        {{:error, garbage(other)}, []}

      {:error, error} ->
        {items, handles} = Decoder.decode_some(content, options, interpreter)
        {{:items, items, [{:error, error}]}, handles}
    end
  end

  defp garbage(other), do: internal("the items of a stream are not a list: #{inspect(other, limit: 10)}")

  defp internal(reason), do: %Error{code: :internal_error, reason: reason}

  @doc """
  The consumer wants no more: cancels the request.
  """
  @spec stop(pid(), pid(), pos_integer(), Request.options()) :: {:ok, []}
  def stop(interpreter, courier, request, _options) do
    # Not by the courier: a device may keep it from listening.
    Native.request_forget(interpreter, request, true)
    send(courier, :stop)
    {:ok, []}
  end

  # ---- The process ------------------------------------------------------------------------

  @impl GenServer
  def init({starter, ticket, interpreter, %{demand: demand} = request, encoding, consumer, options}) do
    {consumer, surroundings} = consumer
    Process.set_label({__MODULE__, consumer, interpreter})
    Origin.belong(consumer, surroundings)
    monitor = Process.monitor(consumer)
    submit = Request.asking(interpreter, request, encoding, options)

    case Request.submit(interpreter, submit, options.deadline, encoding) do
      {:accepted, reference, {:ok, request}} ->
        send(starter, {ticket, request})

        {:ok,
         %{
           interpreter: interpreter,
           request: request,
           reference: reference,
           consumer: consumer,
           monitor: monitor,
           # Until the consumer asks for the first time.
           unclaimed: node(consumer) != node() && Process.send_after(self(), :unclaimed, @unclaimed),
           output: options.output,
           cut: %{},
           frames: Frames.new(demand),
           # What comes after all items.
           last: nil,
           # Whom to answer if the consumer waits.
           waiting: nil
         }}

      {:error, error} ->
        {:stop, {:shutdown, {:failed, error}}}
    end
  catch
    kind, reason -> {:stop, {:shutdown, {:raised, kind, reason, __STACKTRACE__}}}
  end

  @impl GenServer
  def handle_call(:next, from, state), do: serve(%{claim(state) | waiting: from})

  def handle_call({:hand_over, {consumer, surroundings}}, _from, state) do
    Origin.belong(consumer, surroundings)
    Process.demonitor(state.monitor, [:flush])
    {:reply, :ok, %{state | consumer: consumer, monitor: Process.monitor(consumer)}}
  end

  @impl GenServer
  def handle_info({reference, tag, {index, content}}, %{reference: reference} = state)
      when tag in [:items, :items_safe] do
    unless_complete(state, fn -> note(Frames.put(state.frames, index, {tag, content}), state) end)
  end

  def handle_info({reference, :print, printed}, %{reference: reference} = state) do
    state = %{state | output: state.output || Output.of(state.interpreter)}
    patience = {:alive, state.monitor}

    case Request.print(state.interpreter, state.request, state.output, printed, state.cut, patience) do
      {:ok, cut} -> {:noreply, %{state | cut: cut}}
      :timeout -> cancel(state)
    end
  end

  # The end may come before items do that belong before it: the request stays ours until it is complete.
  def handle_info({reference, :stream_end, {total, _nil}}, %{reference: reference} = state),
    do: finish(total, :end, state)

  def handle_info({reference, :stream_error, {total, body}}, %{reference: reference} = state),
    do: finish(total, {:error, Decoder.error(body)}, state)

  # Before any item; or Python has had no memory left to count them.
  def handle_info({reference, :error, body}, %{reference: reference} = state),
    do: unless_complete(state, fn -> break_off(Decoder.error(body), state) end)

  def handle_info({reference, tag, _nil}, %{reference: reference} = state)
      when tag in [:result, :result_safe],
      do: finish(0, :end, state)

  def handle_info({reference, :down, down}, %{reference: reference} = state),
    do: unless_complete(state, fn -> break_off(Down.error(down), state) end)

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, %{monitor: monitor} = state), do: cancel(state)
  def handle_info(:unclaimed, state), do: if(state.unclaimed, do: cancel(state), else: {:noreply, state})
  def handle_info(:stop, state), do: cancel(state)
  def handle_info(_message, state), do: {:noreply, state}

  defp cancel(state) do
    Native.request_forget(state.interpreter, state.request, true)
    {:stop, :normal, flush(state)}
  end

  defp claim(%{unclaimed: false} = state), do: state

  defp claim(%{unclaimed: timer} = state) do
    Process.cancel_timer(timer)
    %{state | unclaimed: false}
  end

  # What is still in the mailbox when nothing more is waited for.
  defp unless_complete(state, step),
    do: if(Frames.complete?(state.frames), do: {:noreply, state}, else: serve(settle(step.())))

  defp finish(total, last, state) do
    unless_complete(state, fn -> note(Frames.finish(state.frames, total), %{state | last: last}) end)
  end

  defp note({:ok, frames}, state), do: %{state | frames: frames}

  # Python does not keep to the protocol: whatever else it says about this stream is not to be relied on.
  defp note({:error, reason}, state) do
    Native.request_forget(state.interpreter, state.request, true)
    break_off(internal(reason), state)
  end

  defp break_off(error, state),
    do: %{state | frames: Frames.break_off(state.frames), last: {:error, error}}

  # Once everything has arrived, nothing more is waited for.
  defp settle(state) do
    if Frames.complete?(state.frames) do
      Native.request_forget(state.interpreter, state.request, false)
      flush(state)
    else
      state
    end
  end

  defp flush(state) do
    Output.flush(state.output, state.interpreter, state.cut)
    %{state | cut: %{}}
  end

  defp serve(%{waiting: nil} = state), do: {:noreply, state}

  defp serve(state) do
    # What is decoded on this node for another one comes frame by frame: its items are all taken at once.
    how = if node(state.consumer) == node(), do: :all, else: :first

    case Frames.take(state.frames, how) do
      {[], frames} ->
        if Frames.complete?(frames), do: conclude(state), else: {:noreply, state}

      {taken, frames} ->
        GenServer.reply(state.waiting, taken)
        state = %{state | frames: frames, waiting: nil}
        # Handles would live in this heap until the next garbage collection.
        if handles?(taken), do: {:noreply, state, :hibernate}, else: {:noreply, state}
    end
  end

  defp conclude(state) do
    GenServer.reply(state.waiting, state.last)
    {:stop, :normal, state}
  end
end
