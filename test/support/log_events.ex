defmodule Snex.LogEvents do
  @moduledoc """
  Sends what interpreters log to a test: `{:event, level, message, metadata}`, from the process that logs.
  """

  @doc """
  Begins; ends with the test.
  """
  def subscribe do
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: self(), level: :all})
    level = Logger.level()
    Logger.configure(level: :all)

    ExUnit.Callbacks.on_exit(fn ->
      :logger.remove_handler(__MODULE__)
      Logger.configure(level: level)
    end)
  end

  @doc false
  # The callback of a handler of `:logger`.
  def log(event, %{config: test}) do
    if event.meta[:snex_interpreter], do: send(test, {:event, event.level, message(event.msg), event.meta})
  end

  defp message({:string, text}), do: IO.chardata_to_string(text)
  defp message({format, args}), do: format |> :io_lib.format(args) |> IO.chardata_to_string()
end
