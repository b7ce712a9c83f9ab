defmodule Snex.Remote.Watcher do
  @moduledoc false
  # Kills the process that works for a caller on another node when that caller goes; see `Snex.Remote`.

  use GenServer

  @doc """
  Starts the process. It ends with either of the two.
  """
  @spec start(caller :: pid(), worker :: pid()) :: pid()
  def start(caller, worker) do
    {:ok, watcher} = GenServer.start(__MODULE__, {caller, worker})
    watcher
  end

  @impl GenServer
  def init({caller, worker}) do
    Process.monitor(caller)
    Process.monitor(worker)
    {:ok, {caller, worker}}
  end

  @impl GenServer
  def handle_info({:DOWN, _monitor, :process, caller, _reason}, {caller, worker} = state) do
    Process.exit(worker, :kill)
    {:stop, :normal, state}
  end

  def handle_info({:DOWN, _monitor, :process, _worker, _reason}, state), do: {:stop, :normal, state}
  def handle_info(_message, state), do: {:noreply, state}
end
