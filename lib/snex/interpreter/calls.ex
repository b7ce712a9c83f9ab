defmodule Snex.Interpreter.Calls do
  @moduledoc false
  # The process that receives what Python calls. Each call runs in a process of its own, so that none waits for another;
  # messages are sent here, one after the other, so that they keep their order.
  #
  # Linked to the interpreter process, and gone with it; monitors it as well, for a link does not tell of an end that is
  # `:normal`. A call that is under way then runs to its end, and its answer reaches nobody.

  alias Snex.Error
  alias Snex.Interpreter.Sends
  alias Snex.Native
  alias Snex.Request
  alias Snex.Serde

  require Logger

  @doc """
  Starts the process, linked to the calling interpreter process. `atoms` says whether terms from Python may create atoms,
  `allow_send` to whom Python may send.
  """
  @spec start_link(pid(), :create | :existing, Sends.rules()) :: pid()
  def start_link(interpreter, atoms, allow_send) do
    decoding = if atoms == :existing, do: [:safe], else: []

    spawn_link(fn ->
      Process.set_label({__MODULE__, interpreter})
      Process.monitor(interpreter)
      loop(interpreter, decoding, allow_send)
    end)
  end

  defp loop(interpreter, decoding, allow_send) do
    receive do
      {:snex_call, :send, id, body, nil} ->
        case Sends.allow(body, allow_send) do
          :ok ->
            answer(interpreter, id, fn ->
              {to, data} = decode!(body, decoding)
              send(to, data)
              {nil, []}
            end)

          {:refused, why} ->
            Logger.warning("a message from Python was refused: #{why}; see the option :allow_send")
            answer(interpreter, id, fn -> {nil, []} end)
        end

        loop(interpreter, decoding, allow_send)

      {:snex_call, :call, id, body, arity} ->
        spawn(fn -> answer(interpreter, id, fn -> apply!(decode!(body, decoding), arity) end) end)
        loop(interpreter, decoding, allow_send)

      {:snex_call, :cast, _id, body, arity} ->
        spawn(fn -> apply!(decode!(body, decoding), arity) end)
        loop(interpreter, decoding, allow_send)

      {:snex_call, :refused, 0, message} ->
        Logger.warning("a cast from Python was refused: #{message}")
        loop(interpreter, decoding, allow_send)

      {:snex_call, :refused, id, message} ->
        answer(interpreter, id, fn -> raise ArgumentError, message end)
        loop(interpreter, decoding, allow_send)

      {:DOWN, _reference, :process, ^interpreter, _reason} ->
        :ok
    end
  end

  defp decode!(body, decoding) do
    case Error.decode(body, decoding) do
      {:ok, term} -> term
      {:error, error} -> raise error
    end
  end

  # `allowed` is the number of arguments for which the call has passed `:allow`; nil where all may be called.
  defp apply!({_node, module, function, args, _options}, allowed)
       when allowed != nil and length(args) != allowed do
    raise ArgumentError,
          "#{Exception.format_mfa(module, function, length(args))} is not among the functions that Python may call"
  end

  defp apply!({node, module, function, args, options}, _allowed) do
    value =
      if node in [nil, node()],
        do: apply(module, function, args),
        else: :erpc.call(node, module, function, args)

    {value, Map.to_list(options || %{})}
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

    with {:error, error} <- Request.cast(interpreter, submit, :infinity), do: raise(error)
  catch
    kind, reason -> fail(interpreter, id, kind, reason, __STACKTRACE__)
  end

  defp fail(interpreter, id, kind, reason, stacktrace) do
    failure = %{
      kind: to_string(kind),
      reason: :erlang.term_to_binary(Exception.normalize(kind, reason, stacktrace)),
      message: Exception.format_banner(kind, reason, stacktrace),
      stacktrace: Enum.map(stacktrace, &Exception.format_stacktrace_entry/1)
    }

    submit = fn reference, _scheduler, _encoded ->
      Native.call_error(interpreter, reference, id, failure)
    end

    # An interpreter that is gone needs no answer.
    _ = Request.cast(interpreter, submit, :infinity)
    :ok
  end
end
