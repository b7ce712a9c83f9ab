defmodule Snex.Interpreter.Origin do
  @moduledoc false
  # Where Elixir code comes from that runs for Python: the request whose code has called it, and the process that has made
  # that request. What the process has around it (group leader, `$callers`, metadata for `Logger`) holds for that code as well.

  require Logger

  @typedoc "A request, 0 outside of any, and the process that waits for its answer, if it still does."
  @type t() :: {request :: non_neg_integer(), caller :: pid() | nil}

  @typedoc "What a process has around it: its group leader, its `$callers`, its metadata for `Logger`."
  @type surroundings() :: {pid(), [pid()], map() | nil}

  @callers :"$callers"
  # Where `:logger` keeps a process's metadata; no function reads another process's.
  @metadata :"$logger_metadata$"

  @doc """
  Makes the calling process a part of its origin.
  """
  @spec adopt(t()) :: :ok
  def adopt({0, _caller}), do: :ok

  def adopt({request, caller}) do
    case caller && surroundings(caller) do
      nil ->
        :ok

      surroundings ->
        belong(caller, surroundings)
    end

    Logger.metadata(snex_request: request)
  end

  @doc """
  Makes the calling process a part of another one, which has this around it.
  """
  @spec belong(pid(), surroundings()) :: :ok
  def belong(caller, {leader, callers, metadata}) do
    Process.group_leader(self(), leader)
    Process.put(@callers, [caller | callers])
    if is_map(metadata), do: :logger.set_process_metadata(metadata)
    :ok
  end

  @doc """
  What the calling process has around it.
  """
  @spec surroundings() :: surroundings()
  def surroundings,
    do: {Process.group_leader(), Process.get(@callers) || [], :logger.get_process_metadata() |> known()}

  defp known(:undefined), do: nil
  defp known(metadata), do: metadata

  @doc """
  What a process of this node has around it; `nil` for one that is gone by now.
  """
  @spec surroundings(pid()) :: surroundings() | nil
  def surroundings(caller) do
    with [group_leader: leader, dictionary: dictionary] <- Process.info(caller, [:group_leader, :dictionary]) do
      {leader, value(dictionary, @callers) || [], value(dictionary, @metadata)}
    end
  end

  defp value(dictionary, key) do
    case List.keyfind(dictionary, key, 0) do
      {^key, value} -> value
      nil -> nil
    end
  end
end
