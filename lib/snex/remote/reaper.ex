defmodule Snex.Remote.Reaper do
  @moduledoc false
  # Hears when nobody on this node refers to an environment of another node any more; see `Snex.Remote`.

  use GenServer

  @doc """
  Starts the process. It ends when the proxy of the environment is dropped, or with the keeper that `{:kept, keeper}` names.
  """
  @spec start() :: pid()
  def start do
    {:ok, reaper} = GenServer.start(__MODULE__, nil)
    reaper
  end

  @impl GenServer
  def init(nil) do
    Process.set_label({Snex.Remote, :reaper})
    # Not of the caller's application: the environment may have been handed on when that is stopped.
    Process.group_leader(self(), Process.whereis(:init))
    {:ok, nil}
  end

  @impl GenServer
  def handle_info({:kept, keeper}, state) do
    Process.monitor(keeper)
    {:noreply, state}
  end

  def handle_info({:snex_handle_dropped, _holder, _key}, state), do: {:stop, :normal, state}
  def handle_info({:DOWN, _monitor, :process, _keeper, _reason}, state), do: {:stop, :normal, state}
  def handle_info(_message, state), do: {:noreply, state}
end
