defmodule Snex.Soak.Fleet do
  @moduledoc """
  The interpreters, under a real supervisor on each node, and the other node.
  """

  alias Snex.Interpreter
  alias Snex.Peer
  alias Snex.Soak.Requests

  @here [
    soak_plain: [],
    soak_late: [sync_start?: false],
    soak_full: [port_opts: [busy_limits_port: {16 * 1024, 64 * 1024}]],
    soak_restarts: [on_stuck: :restart]
  ]
  @there [soak_away: [], soak_away_restarts: [on_stuck: :restart]]

  @doc """
  All interpreters as `{name, node}`, and of these the ones that are replaced when they are stuck.
  """
  def names(other), do: names(@here, node()) ++ names(@there, other)
  def replaced(other), do: [{:soak_restarts, node()}, {:soak_away_restarts, other}]

  defp names(interpreters, node), do: for({name, _opts} <- interpreters, do: {name, node})

  @doc """
  Starts those of this node, linked to the caller.
  """
  def start_here, do: start_supervisor(@here)

  @doc """
  Starts the other node, and its interpreters. Returns `{node, control, os_pid}`.
  """
  def start_there do
    {node, control} = Peer.launch!(:"snex-soak-#{System.pid()}")
    os_pid = String.to_integer(:erpc.call(node, System, :pid, []))
    :erpc.call(node, Logger, :configure, [[level: :none]])
    :ok = :erpc.call(node, __MODULE__, :serve_there, [])
    {node, control, os_pid}
  end

  @doc false
  # The supervisor needs a process that it can be linked to.
  def serve_there do
    caller = self()

    keeper =
      spawn(fn ->
        {:ok, _supervisor} = start_supervisor(@there)
        send(caller, {:serving, self()})
        Process.sleep(:infinity)
      end)

    receive do
      {:serving, ^keeper} -> :ok
    end
  end

  @doc """
  Stops the interpreters of a node.
  """
  def stop(node), do: :erpc.call(node, Supervisor, :stop, [__MODULE__])

  defp start_supervisor(interpreters) do
    children =
      for {name, opts} <- interpreters do
        {Interpreter, [name: name, init_script: Requests.init_script(), output: :discard] ++ opts}
      end

    # They are killed all the time.
    limits = [max_restarts: 1_000_000, max_seconds: 1]
    Supervisor.start_link(children, [strategy: :one_for_one, name: __MODULE__] ++ limits)
  end
end
