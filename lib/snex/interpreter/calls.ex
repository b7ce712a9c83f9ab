defmodule Snex.Interpreter.Calls do
  @moduledoc false
  # The process that receives what Python calls. Each call runs in a process of its own, so that none waits for another;
  # messages are sent here, one after the other, so that they keep their order.
  #
  # Linked to the interpreter process, and gone with it. A call that is under way then runs to its end, and its answer
  # reaches nobody.

  alias Snex.Error
  alias Snex.Native
  alias Snex.Request
  alias Snex.Serde

  @doc """
  Starts the process, linked to the calling interpreter process.
  """
  @spec start_link(pid()) :: pid()
  def start_link(interpreter) do
    spawn_link(fn ->
      :proc_lib.set_label({__MODULE__, interpreter})
      loop(interpreter)
    end)
  end

  defp loop(interpreter) do
    receive do
      {:snex_call, :send, id, body} ->
        answer(interpreter, id, [], fn -> deliver(body) end)

      {:snex_call, :call, id, body} ->
        spawn(fn -> call(interpreter, id, body) end)

      {:snex_call, :cast, _id, body} ->
        spawn(fn -> cast(body) end)
    end

    loop(interpreter)
  end

  defp deliver(body) do
    {to, data} = decode!(body)
    send(to, data)
    nil
  end

  defp call(interpreter, id, body) do
    options =
      case Error.decode(body) do
        {:ok, {_node, _module, _function, _args, options}} -> options || %{}
        {:error, _error} -> %{}
      end

    answer(interpreter, id, options, fn -> apply!(body) end)
  end

  defp cast(body), do: apply!(body)

  defp apply!(body) do
    {node, module, function, args, _options} = decode!(body)

    if node in [nil, node()],
      do: apply(module, function, args),
      else: :erpc.call(node, module, function, args)
  end

  defp decode!(body) do
    case Error.decode(body) do
      {:ok, term} -> term
      {:error, error} -> raise error
    end
  end

  # Runs `fun` and sends what it returns, or how it fails, as the answer to call `id`.
  defp answer(interpreter, id, options, fun) do
    value = fun.()
    options = Serde.options!(Map.to_list(Map.new(options)))

    result = fn
      reference, :normal -> Native.call_result(interpreter, reference, id, value, options)
      reference, :dirty -> Native.call_result_dirty(interpreter, reference, id, value, options)
    end

    Request.cast(interpreter, result, :infinity)
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

    error = fn reference, _scheduler ->
      Native.call_error(interpreter, reference, id, failure)
    end

    Request.cast(interpreter, error, :infinity)
  end
end
