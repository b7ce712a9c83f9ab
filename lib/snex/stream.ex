defmodule Snex.Stream do
  @moduledoc false
  # Items that Python produces, as an `Enumerable`: the consumer's side of a stream. Each enumeration is a request of its own, which a
  # `Snex.Stream.Courier` submits and receives.

  alias Snex.Env
  alias Snex.Error
  alias Snex.Interpreter
  alias Snex.Interpreter.Origin
  alias Snex.Remote
  alias Snex.Request
  alias Snex.Stream.Courier
  alias Snex.Telemetry

  @doc """
  A stream of the items of a request, which `make` returns whenever an enumeration begins. `opts` are those that
  `Snex.CallOptions.stream!/2` has checked; `explain` gets an error before it is raised.
  """
  @spec new(Env.t() | Interpreter.server(), (-> Request.t()), map(), (Error.t() -> Error.t())) ::
          Enumerable.t()
  def new(where, make, opts, explain) do
    interpreter = if is_struct(where, Env), do: where.interpreter, else: where
    # An error that need not wait until then.
    _ = Remote.locate(interpreter)

    Stream.resource(
      fn ->
        request = make.()

        %{
          where: where,
          interpreter: interpreter,
          # What Python calls belongs to this process.
          request: %{request | callers: [self() | request.callers || []]},
          opts: opts,
          explain: explain,
          span: Telemetry.stream_started(where),
          courier: nil,
          consumer: nil,
          items: 0,
          # How many items are in the hands of the consumer, and frames that come behind them.
          taken: 0,
          frames: []
        }
      end,
      &next/1,
      &close/1
    )
  end

  @left_behind "the stream is enumerated on another node now, and objects in items that had arrived before have stayed behind"

  # The end of the enumeration is in the accumulator before it takes effect: what is raised does not reach `close/1`.
  defp next({:failed, error, _state}), do: raise(error)
  defp next({:raised, kind, reason, stacktrace, _state}), do: :erlang.raise(kind, reason, stacktrace)

  defp next(state) do
    case receive_items(state) do
      {:items, [], frames, state} -> next(in_hand(state, 0, frames))
      {:items, items, frames, state} -> {items, in_hand(state, length(items), frames)}
      {:end, state} -> {:halt, {:done, state}}
      {:error, error, state} -> {[], {:failed, error, state}}
    end
  catch
    kind, reason -> {[], {:raised, kind, reason, __STACKTRACE__, state}}
  end

  defp in_hand(state, count, frames), do: %{state | items: state.items + count, taken: count, frames: frames}

  # Another process goes on with it.
  defp receive_items(%{consumer: consumer, interpreter: interpreter} = state)
       when is_pid(consumer) and consumer != self() do
    if node(interpreter) != node() and Courier.handles?(state.frames),
      do: received({:error, %Error{code: :call_failed, reason: @left_behind}}, state),
      else: hand_over(state)
  end

  defp receive_items(%{frames: []} = state), do: ask(state, Request.deadline(state.opts.timeout))
  defp receive_items(%{frames: [{:error, _error} = failed]} = state), do: received(failed, state)

  defp receive_items(%{courier: {_courier, id}, frames: [frame | frames]} = state) do
    options = options(state, Request.deadline(state.opts.timeout))

    case Remote.run(state.interpreter, Courier, :next_in_hand, [id, state.taken, frame], options) do
      {:items, items, behind} -> received({:items, items, behind ++ frames}, state)
      {:error, _error} = failed -> received(failed, state)
    end
  end

  defp hand_over(%{courier: {courier, _id}} = state) do
    args = [courier, {self(), Origin.surroundings()}]
    options = options(state, Request.deadline(state.opts.timeout))

    case Remote.run(state.interpreter, Courier, :hand_over, args, options) do
      :ok -> receive_items(%{state | consumer: self()})
      {:error, _error} = failed -> received(failed, state)
    end
  end

  # Not before the first item is wanted: the courier of a consumer on another node expects to hear from it at once.
  defp ask(%{courier: nil} = state, deadline) do
    consumer = {self(), Origin.surroundings()}
    args = [state.request, state.opts.encoding_opts, consumer]

    case Remote.run(state.interpreter, Courier, :start, args, options(state, deadline)) do
      {:ok, interpreter, courier, id} ->
        ask(%{state | interpreter: interpreter, courier: {courier, id}, consumer: self()}, deadline)

      {:error, _error} = failed ->
        received(failed, state)
    end
  end

  defp ask(%{courier: {courier, id}} = state, deadline) do
    args = [courier, id, state.taken]
    received(Remote.run(state.interpreter, Courier, :next, args, options(state, deadline)), state)
  end

  defp received({:items, items, frames}, state), do: {:items, items, frames, state}
  defp received(:end, state), do: {:end, state}
  defp received({:error, _error} = failed, state), do: error(failed, state)

  defp error(failed, state) do
    {:error, error} = Error.in_call(failed, state.where, state.opts.timeout)
    {:error, state.explain.(error), state}
  end

  # Python need not hear of the deadline, which is that of the next item.
  defp options(state, deadline), do: %{deadline: deadline, on_timeout: :leave, output: state.opts.output}

  defp close({:done, state}), do: closed(state, :stop, %{error: nil, halted: false})

  defp close({:failed, error, state}) do
    stop(state)
    closed(state, :stop, %{error: error, halted: false})
  end

  defp close({:raised, kind, reason, stacktrace, state}) do
    stop(state)
    closed(state, :exception, %{kind: kind, reason: reason, stacktrace: stacktrace})
  end

  defp close(state) do
    stop(state)
    closed(state, :stop, %{error: nil, halted: true})
  end

  defp closed(state, event, metadata) do
    Telemetry.stream_stopped(state.span, event, state.items, metadata)
    Env.hold({state.where, state.request})
  end

  # For another node to answer, in ms: what cannot be reached finds this one gone.
  @timeout 5_000

  defp stop(%{courier: nil}), do: :ok

  defp stop(%{courier: {courier, id}} = state) do
    options = options(state, Request.deadline(@timeout))
    _ = Remote.run(state.interpreter, Courier, :stop, [courier, id], options)
    :ok
  end
end
