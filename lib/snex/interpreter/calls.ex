defmodule Snex.Interpreter.Calls do
  @moduledoc false
  # The process that receives what Python calls. Each call runs in a process of its own, so that none waits for another;
  # messages are sent here, one after the other, so that they keep their order.
  #
  # Linked to the interpreter process, and gone with it; monitors it as well, for a link does not tell of an end that is
  # `:normal`. A call that is under way then runs to its end, and its answer reaches nobody.
  #
  # A `GenServer`, for it waits in the code of OTP: a process that waits in code of ours is killed when that is loaded for the
  # second time.

  use GenServer

  alias Snex.Failure
  alias Snex.Interpreter.Origin
  alias Snex.Interpreter.Sends
  alias Snex.Native
  alias Snex.Request
  alias Snex.Serde
  alias Snex.Serde.Decoder
  alias Snex.Trace

  require Logger

  @doc """
  Starts the process, linked to the calling interpreter process. `atoms` says whether terms from Python may create atoms,
  `allow_send` to whom Python may send.
  """
  @spec start_link(pid(), :create | :existing, Sends.rules()) :: pid()
  def start_link(interpreter, atoms, allow_send) do
    {:ok, pid} = GenServer.start_link(__MODULE__, {interpreter, atoms, allow_send})
    pid
  end

  # `running` has the monitors of processes that answer calls, each with the number of its call.
  @impl GenServer
  def init({interpreter, atoms, allow_send}) do
    Process.set_label({__MODULE__, interpreter})
    Process.monitor(interpreter)
    decoding = if atoms == :existing, do: [:safe], else: []
    {:ok, %{interpreter: interpreter, decoding: decoding, allow_send: allow_send, running: %{}}}
  end

  @impl GenServer
  def handle_info({:snex_call, :send, id, _cause, content, nil}, state) do
    case Sends.allow(content, state.allow_send) do
      :ok ->
        answer(state.interpreter, id, fn ->
          {to, data} = decode!(content, state)
          deliver(to, data)
          {nil, []}
        end)

      {:refused, why} ->
        Logger.warning("a message from Python was refused: #{why}; see the option :allow_send")
        answer(state.interpreter, id, fn -> {nil, []} end)
    end

    forget(content, state)
  end

  def handle_info({:snex_call, :call, id, cause, content, arity}, state) do
    state = run(state, id, cause, fn -> call(decode!(content, state), arity) end)
    forget(content, state)
  end

  def handle_info({:snex_call, :apply, id, cause, content, nil}, state) do
    state =
      run(state, id, cause, fn ->
        {_signature, function, args, options} = decode!(content, state)
        encoding = encoding(options)
        {apply(decode!(function, state), args), encoding}
      end)

    forget(content, state)
  end

  def handle_info({:snex_call, :cast, _id, cause, content, arity}, state) do
    spawn(fn ->
      Origin.adopt(cause)
      {_node, _module, _function, _args, options} = cast = decode!(content, state)
      _ = encoding(options)
      apply!(cast, arity)
    end)

    forget(content, state)
  end

  def handle_info({:snex_call, :refused, 0, message}, state) do
    Logger.warning("a cast from Python was refused: #{message}")
    {:noreply, state}
  end

  def handle_info({:snex_call, :refused, id, message}, state) do
    answer(state.interpreter, id, fn -> raise ArgumentError, message end)
    {:noreply, state}
  end

  def handle_info({:DOWN, _monitor, :process, interpreter, _reason}, %{interpreter: interpreter} = state),
    do: {:stop, :normal, state}

  # One that was killed has not answered.
  def handle_info({:DOWN, monitor, :process, pid, reason}, state) do
    Native.call_end(state.interpreter, pid)
    {id, running} = Map.pop(state.running, monitor)
    if reason != :normal, do: fail(state.interpreter, id, :exit, reason, [])
    {:noreply, %{state | running: running}}
  end

  def handle_info(_message, state), do: {:noreply, state}

  # Answers call `id` with what `fun` returns, in a process of its own.
  defp run(%{interpreter: interpreter} = state, id, cause, fun) do
    {_pid, monitor} =
      spawn_monitor(fn ->
        Native.call_begin(interpreter, self(), id)
        Origin.adopt(cause)
        answer(interpreter, id, fun)
      end)

    put_in(state.running[monitor], id)
  end

  # What has been handled, with its handles: on the heap of this process they would live until the next garbage collection.
  defp forget({_body, _handles}, state), do: {:noreply, state, :hibernate}
  defp forget(_body, state), do: {:noreply, state}

  # Like a cast, a message may find nobody; what can't be a destination at all is an error.
  defp deliver(to, data) when is_atom(to) do
    send(to, data)
  rescue
    ArgumentError ->
      Logger.debug("a message from Python was dropped: no process is registered as #{inspect(to)}")
  end

  defp deliver(to, data), do: send(to, data)

  defp decode!(content, %{interpreter: interpreter, decoding: decoding}) do
    case Decoder.decode(content, decoding, interpreter) do
      {:ok, term, _handles} -> term
      {:error, error} -> raise error
    end
  end

  # `allowed` is the number of arguments for which the call has passed `:allow`; nil where all may be called.
  defp apply!({_node, module, function, args, _options}, allowed)
       when allowed != nil and length(args) != allowed do
    raise ArgumentError,
          "#{Exception.format_mfa(module, function, length(args))} is not among the functions that Python may call"
  end

  # The last call of a process that casts: what it runs may take as long as it likes, and none of our code waits for it.
  defp apply!({node, module, function, args, _options}, _allowed) when node in [nil, node()],
    do: apply(module, function, args)

  defp apply!({node, module, function, args, _options}, _allowed),
    do: :erpc.call(node, module, function, args)

  defp call({_node, _module, _function, _args, options} = call, allowed) do
    encoding = encoding(options)
    {apply!(call, allowed), encoding}
  end

  # How the result is to look in Python. What the calling process does from here on belongs to the span that is named there as well.
  defp encoding(options) do
    {traceparent, encoding} = Map.pop(options || %{}, :traceparent)
    Trace.attach(traceparent)
    Map.to_list(encoding)
  end

  # Runs `fun` and sends what it returns, or how it fails, as the answer to call `id`.
  defp answer(interpreter, id, fun) do
    {value, options} = fun.()
    encoding = Serde.options!(options)

    submit =
      Request.submission(
        interpreter,
        &Native.call_result(&1, &2, id, &3, &4),
        &Native.call_result_dirty(&1, &2, id, &3, &4),
        value,
        encoding
      )

    with {:error, error} <- Request.cast(interpreter, submit, :infinity, encoding), do: raise(error)
  catch
    kind, reason -> fail(interpreter, id, kind, reason, __STACKTRACE__)
  end

  defp fail(interpreter, id, kind, reason, stacktrace) do
    failure = Failure.describe(kind, reason, stacktrace)

    submit = fn reference, _encoded ->
      Native.call_error(interpreter, reference, id, failure)
    end

    # An interpreter that is gone needs no answer.
    _ = Request.cast(interpreter, submit, :infinity, {:refused, "not here"})
    :ok
  end
end
