defmodule Snex.Remote.Keeper do
  @moduledoc false
  # Holds the handle of an environment on the interpreter's node, for another node; see `Snex.Remote`.

  use GenServer

  alias Snex.Env

  @doc """
  Starts the process. It ends, and the environment with it, when `reaper` or `interpreter` does.
  """
  @spec start(Env.t(), reaper :: pid(), interpreter :: pid()) :: pid()
  def start(env, reaper, interpreter) do
    {:ok, keeper} = GenServer.start(__MODULE__, {env, reaper, interpreter})
    keeper
  end

  @impl GenServer
  def init({env, reaper, interpreter}) do
    Process.set_label({Snex.Remote, :keeper, env.id})
    Process.monitor(reaper)
    Process.monitor(interpreter)
    {:ok, env}
  end

  @impl GenServer
  def handle_info({:DOWN, _monitor, :process, _pid, _reason}, env), do: {:stop, :normal, env}
  def handle_info(_message, env), do: {:noreply, env}
end
