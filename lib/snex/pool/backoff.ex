defmodule Snex.Pool.Backoff do
  @moduledoc false
  # The pauses of a pool after interpreters that could not be started, or ended at once. For the pool's process, which gets `:snex_retry`
  # at the end of each pause.

  alias Snex.Error

  require Logger

  # The first pause, in ms. Each one is twice as long as the one before, up to the longest.
  @pause 100
  @longest_pause 30_000

  # `failures` is the number of failures since the last success, `error` that of the last one. `timer` is set during a pause.
  defstruct failures: 0, error: nil, timer: nil

  @type t() :: %__MODULE__{failures: non_neg_integer(), error: Error.t() | nil, timer: reference() | nil}

  @doc """
  Begins a pause after a failure in the pool `name`.
  """
  @spec failed(t(), term(), term()) :: t()
  def failed(backoff, name, reason) do
    failures = backoff.failures + 1
    pause = min(@longest_pause, @pause * 2 ** min(failures - 1, 20))
    # So that several pools do not try again at the same time.
    pause = pause - :rand.uniform(div(pause, 5))
    if backoff.timer, do: Process.cancel_timer(backoff.timer)

    Logger.warning(
      "an interpreter of the pool #{inspect(name || self())} could not be started, or ended at once: " <>
        "#{describe(reason)}. Next attempt in #{pause} ms"
    )

    %__MODULE__{
      failures: failures,
      error: error(reason),
      timer: Process.send_after(self(), :snex_retry, pause)
    }
  end

  @doc """
  Whether no interpreter is to be started now.
  """
  @spec paused?(t()) :: boolean()
  def paused?(backoff), do: backoff.timer != nil

  @doc """
  The pause is over.
  """
  @spec resume(t()) :: t()
  def resume(backoff), do: %{backoff | timer: nil}

  @doc """
  An interpreter is of use: forgets the failures before it, unless there is a pause after a later one.
  """
  @spec succeeded(t()) :: t()
  def succeeded(%{timer: nil}), do: %__MODULE__{}
  def succeeded(backoff), do: backoff

  @doc """
  The field `:failure` of `Snex.Pool.info/1`.
  """
  @spec info(t()) :: map() | nil
  def info(%{failures: 0}), do: nil

  def info(backoff) do
    next = backoff.timer && Process.read_timer(backoff.timer)
    %{attempts: backoff.failures, error: backoff.error, next_attempt_in: next || 0}
  end

  @doc """
  The first line of the message for a failure, or for the end of an interpreter.
  """
  @spec describe(term()) :: String.t()
  def describe(reason), do: reason |> error() |> Error.summary() |> String.split("\n") |> hd()

  defp error(%Error{} = error), do: error
  defp error({:shutdown, %Error{} = error}), do: error
  defp error(reason), do: %Error{code: :call_failed, reason: reason}
end
