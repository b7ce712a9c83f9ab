defmodule Snex.Soak.Fleet do
  @moduledoc """
  The interpreters and pools, under a real supervisor on each node, and the other node.
  """

  alias Snex.Interpreter
  alias Snex.Peer
  alias Snex.Pool
  alias Snex.Soak.Requests

  @here [
    soak_plain: [],
    soak_late: [sync_start?: false],
    soak_full: [port_opts: [busy_limits_port: {16 * 1024, 64 * 1024}]],
    soak_restarts: [on_stuck: :restart]
  ]
  @there [soak_away: [], soak_away_restarts: [on_stuck: :restart]]

  # One on each node, whose Python nobody calls, so that it can be forked at any time.
  @template :soak_template
  @copies [soak_copy: [template: @template]]

  # Those whose queue takes all callers.
  @queue [limit: 10_000, timeout: :infinity]
  @pools_here [
    soak_pool: [size: 2, concurrency: 2, recycle: [requests: 400, age: 5_000]],
    soak_forks: [size: 2, fork: true, recycle: [requests: 300]],
    soak_each: [size: 2, fork: :each_call],
    soak_shared: [size: 1, scope: :cluster]
  ]
  @pools_there [soak_shared: [size: 1, scope: :cluster], soak_away_forks: [size: 2, fork: true]]
  @pools Enum.uniq(Keyword.keys(@pools_here ++ @pools_there))
  @forks for {name, opts} <- @pools_here ++ @pools_there, opts[:fork], do: name

  @doc """
  All that can be called, as `{name, node}`, and of these the ones whose interpreter is replaced when it is stuck.
  """
  def names(other) do
    names(@here ++ @copies, node()) ++ names(@there, other) ++ pools(other)
  end

  def replaced(other), do: [{:soak_restarts, node()}, {:soak_away_restarts, other} | pools(other)]

  @doc """
  The pools, as `{name, node}`.
  """
  def pools(other), do: names(@pools_here, node()) ++ names(@pools_there, other)

  @doc """
  The names of the pools of this node, and of the interpreter that can be forked.
  """
  def own_pools, do: Enum.filter(@pools, &Process.whereis/1)
  def template, do: @template

  @doc """
  The nodes whose pools share their calls with one, its own among them, where `other` is the other node.
  """
  def sharing(:soak_shared, other), do: [node(), other]
  def sharing(name, other), do: if(Keyword.has_key?(@pools_here, name), do: [node()], else: [other])

  @doc """
  What interpreters are, as far as their ends differ.
  """
  def roles, do: [:interpreter, :member, :copy, :template]

  @doc """
  Those of a role that can be killed, as `{name, node}`, where a pool stands for its interpreters of that role.
  """
  def victims(other, :interpreter), do: names(@here, node()) ++ names(@there, other)
  def victims(other, :member), do: Enum.reject(pools(other), &forks?/1)
  def victims(other, :copy), do: names(@copies, node()) ++ Enum.filter(pools(other), &forks?/1)

  def victims(other, :template),
    do: for(node <- [node(), other], do: {@template, node}) ++ Enum.filter(pools(other), &forks?/1)

  defp forks?({name, _node}), do: name in @forks

  @doc """
  Whether each call there has an interpreter of its own.
  """
  def each_call?(:soak_each), do: true
  def each_call?({name, _node}), do: each_call?(name)
  def each_call?(_name), do: false

  @doc """
  The interpreters behind a name of this node that take calls, or, for the role `:template`, those that are copied.
  """
  def interpreters(name, role \\ :interpreter)

  def interpreters(name, role) when name in @pools do
    info = Pool.info(name, 60_000)

    if role == :template,
      do: List.wrap(info.template),
      else: for(%{status: :running, interpreter: pid} <- info.members, do: pid)
  catch
    :exit, _gone -> []
  end

  def interpreters(name, _role), do: List.wrap(Process.whereis(name))

  defp names(interpreters, node), do: for({name, _opts} <- interpreters, do: {name, node})

  @doc """
  Starts those of this node, linked to the caller.
  """
  def start_here, do: start_supervisor(@here ++ @copies, @pools_here)

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
        {:ok, _supervisor} = start_supervisor(@there, @pools_there)
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

  defp start_supervisor(interpreters, pools) do
    children =
      for {name, opts} <- [{@template, []} | interpreters] do
        # A copy begins with what its template has.
        script = if opts[:template], do: [], else: [init_script: Requests.init_script()]
        {Interpreter, [name: name, output: :discard] ++ script ++ opts}
      end

    pools =
      for {name, opts} <- pools do
        {Pool, [name: name, init_script: Requests.init_script(), output: :discard, queue: @queue] ++ opts}
      end

    # They are killed all the time.
    limits = [max_restarts: 1_000_000, max_seconds: 1]
    Supervisor.start_link(children ++ pools, [strategy: :one_for_one, name: __MODULE__] ++ limits)
  end
end
