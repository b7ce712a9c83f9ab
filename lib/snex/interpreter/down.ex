defmodule Snex.Interpreter.Down do
  @moduledoc false
  # How an interpreter went down, as an error.

  alias Snex.Error

  @exit_memory 79

  @doc """
  The error of all who wait, from how the native code says that the interpreter went down; see `down.rs`.
  """
  @spec error(term()) :: Error.t()
  def error({:stopped, reason}),
    do: %Error{code: :call_failed, reason: :erlang.binary_to_term(reason)}

  def error(:owner_gone), do: %Error{code: :call_failed, reason: :noproc}

  def error({:ended, {:not_started, reason}, _status, _signal, _stderr}),
    do: %Error{code: :call_failed, reason: reason}

  def error({:ended, {:broken, reason}, _status, _signal, stderr}),
    do: %Error{code: :internal_error, reason: reason, traceback: last_lines(stderr)}

  def error({:ended, :warden_lost, _status, _signal, stderr}) do
    # Without its warden nobody knows how Python ended; the kernel ends it with SIGKILL.
    error({:ended, :exited, 137, "SIGKILL", stderr})
  end

  # See `_memory.py`.
  def error({:ended, :exited, @exit_memory, _signal, stderr}) do
    %Error{code: :interpreter_exited, reason: :memory_limit, traceback: last_lines(stderr)}
  end

  def error({:ended, _exited_or_stopped, status, signal, stderr}) do
    %Error{
      code: :interpreter_exited,
      reason: {:exit_status, status},
      traceback: last_lines(stderr),
      exception: signal && %{signal: signal}
    }
  end

  @doc """
  The error of a call that comes after it went down.
  """
  @spec earlier(term()) :: Error.t()
  def earlier(down) do
    case error(down) do
      %Error{code: :interpreter_exited} = error -> %{error | details: %{earlier: true}}
      error -> error
    end
  end

  @last_lines 20

  defp last_lines(stderr) do
    stderr
    |> String.replace_invalid()
    |> String.split(~r/(?<=\n)/, trim: true)
    |> Enum.take(-@last_lines)
  end
end
