defmodule Snex.Request do
  @moduledoc false
  # The caller's side of a request: submit it, wait for the answer, give up in time.
  #
  # `submit` calls a NIF that walks the caller's terms and writes the frame. It is tried again on a dirty scheduler when the
  # terms turn out large, after a pause when too much is queued, and after the start when the interpreter is still
  # starting. Each try has a reference of its own, and no message with it is left behind.

  alias Snex.Error
  alias Snex.Native

  @type submit() :: (reference(), :normal | :dirty -> outcome())

  @typedoc "What a NIF that submits a frame answers; see `outcome.rs`."
  @type outcome() ::
          :ok
          | {:ok, request :: pos_integer()}
          | {:ok, request :: pos_integer(), env_id :: pos_integer(), handle :: reference()}
          | {:full, request :: pos_integer()}
          | :long
          | :starting
          | :noproc
          | {:down, term()}
          | {:bad_key, term()}
          | {:error, term()}

  @typedoc "A point in time, in milliseconds of the monotonic clock."
  @type deadline() :: integer() | :infinity

  @doc """
  Submits a request and waits for its answer: `{:ok, body, accepted}` with the answer as ETF and what the NIF answered, or
  an error.
  """
  @spec call(pid(), submit(), deadline()) :: {:ok, binary(), tuple()} | {:error, Error.t()}
  def call(interpreter, submit, deadline), do: call(interpreter, submit, :normal, deadline)

  defp call(interpreter, submit, scheduler, deadline) do
    # Made in the function that receives it, so that the VM need not search a long mailbox.
    reference = make_ref()

    case submit.(reference, scheduler) do
      accepted when elem(accepted, 0) == :ok ->
        receive do
          {^reference, :result, body} -> {:ok, body, accepted}
          {^reference, :error, body} -> {:error, Error.from_python(body)}
          {^reference, :down, down} -> {:error, Error.from_down(down)}
        after
          time_left(deadline) ->
            forget(interpreter, reference, elem(accepted, 1), true)
            {:error, %Error{code: :response_timeout}}
        end

      refused ->
        case wait(interpreter, reference, refused, deadline) do
          {:again, :dirty} -> call(interpreter, submit, :dirty, deadline)
          {:again, :same} -> call(interpreter, submit, scheduler, deadline)
          {:error, error} -> {:error, error}
        end
    end
  end

  @doc """
  Submits a frame that has no answer.
  """
  @spec cast(pid(), submit(), deadline()) :: :ok | {:error, Error.t()}
  def cast(interpreter, submit, deadline), do: cast(interpreter, submit, :normal, deadline)

  defp cast(interpreter, submit, scheduler, deadline) do
    reference = make_ref()

    with refused when refused != :ok <- submit.(reference, scheduler) do
      case wait(interpreter, reference, refused, deadline) do
        {:again, :dirty} -> cast(interpreter, submit, :dirty, deadline)
        {:again, :same} -> cast(interpreter, submit, scheduler, deadline)
        {:error, error} -> {:error, error}
      end
    end
  end

  @doc """
  The point in time that is `timeout` milliseconds away.
  """
  @spec deadline(timeout()) :: deadline()
  def deadline(:infinity), do: :infinity
  def deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  @spec time_left(deadline()) :: timeout()
  def time_left(:infinity), do: :infinity
  def time_left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)

  # Waits for what keeps a request from being submitted.
  defp wait(_interpreter, _reference, :long, _deadline), do: {:again, :dirty}

  defp wait(interpreter, reference, {:full, request}, deadline) do
    receive do
      {^reference, :writable, _} -> {:again, :same}
      {^reference, :down, down} -> {:error, Error.from_down(down)}
    after
      time_left(deadline) ->
        forget(interpreter, reference, request, false)
        {:error, %Error{code: :response_timeout}}
    end
  end

  defp wait(interpreter, _reference, :starting, deadline) do
    GenServer.call(interpreter, :await_start, time_left(deadline))
    {:again, :same}
  catch
    :exit, {:timeout, _call} -> {:error, %Error{code: :response_timeout}}
    :exit, {reason, _call} -> {:error, %Error{code: :call_failed, reason: reason}}
  end

  defp wait(_interpreter, reference, {:down, down}, _deadline) do
    flush(reference)
    {:error, Error.from_down(down)}
  end

  # A name may be registered before the process behind it has got as far as its worker.
  defp wait(interpreter, reference, :noproc, deadline) do
    if Process.alive?(interpreter) and
         :proc_lib.translate_initial_call(interpreter) == {Snex.Interpreter, :init, 1},
       do: wait(interpreter, reference, :starting, deadline),
       else: {:error, %Error{code: :call_failed, reason: :noproc}}
  end

  defp wait(_interpreter, _reference, {:bad_key, key}, _deadline) do
    raise ArgumentError,
          "names of variables have to be strings in UTF-8, got: #{inspect(key)}"
  end

  defp wait(_interpreter, _reference, {:error, term}, _deadline) do
    raise ArgumentError, "cannot be encoded for Python: #{inspect(term)}"
  end

  defp forget(interpreter, reference, request, cancel?) do
    Native.request_forget(interpreter, request, cancel?)
    flush(reference)
  end

  # A message may have come just before its request was forgotten; none comes after.
  defp flush(reference) do
    receive do
      {^reference, _tag, _value} -> :ok
    after
      0 -> :ok
    end
  end
end
