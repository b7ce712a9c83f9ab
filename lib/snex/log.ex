defmodule Snex.Log do
  @moduledoc false
  # What Python logs through `snex.LoggingHandler`, continued by `Logger`.

  alias Snex.Serde.Decoder

  require Logger

  # The names in `_elixir/logging.py`; as atoms here, they exist also for interpreters that may not create any.
  @metadata ~w[file line time application domain python_logger_name python_log_level python_module python_function
               python_process_id python_process_name python_thread_id python_thread_name python_task_name
               python_exception]a

  @doc """
  The metadata that every event may have, besides what the handler was told to add.
  """
  @spec metadata() :: [atom()]
  def metadata, do: @metadata

  @doc """
  Logs an event: `{level, message, metadata}` in external format.
  """
  @spec log(pid(), binary(), [:safe]) :: :ok
  def log(interpreter, body, decoding) do
    with {:ok, {level, message, metadata}} <- Decoder.decode(body, decoding),
         true <- level in Logger.levels() and is_binary(message) and is_map(metadata) do
      # Metadata of the interpreter. What Python gives under the same name has priority.
      own = %{pid: interpreter, gl: Process.group_leader(), snex_interpreter: interpreter}
      :logger.log(level, "~ts", [message], Map.merge(own, metadata))
    else
      {:error, error} -> complain(Exception.message(error))
      _other -> complain(inspect(body, limit: 64))
    end
  end

  defp complain(what), do: Logger.warning("a log event from Python is invalid: #{what}")
end
