defmodule Snex.Pool.Cluster do
  @moduledoc false
  # Pools with `scope: :cluster` find each other through a scope of `:pg` that is Snex's own. Its process knows the pools of this node
  # and of those that it is connected to, and drops what goes or is cut off.
  #
  # The first pool that needs the scope starts it. Nobody owns it: it goes on when that pool ends. Each pool monitors it, and joins a new one if
  # it is killed. What others look up here is in its table: no process is asked.

  alias Snex.Native
  alias Snex.Request

  @scope __MODULE__

  # How many others are asked for their load. See "Where a call goes in a cluster" in bench/NOTES.md.
  @asked 2

  # How long they are waited for, in ms. A call has a place in the queue of this node meanwhile.
  @patience 1_000

  @typedoc "What pools have in common that share their calls."
  @type group() :: {name :: term(), interpreter :: module()}

  @doc """
  Adds the calling process, a pool, to a group: a monitor of the scope, and the group.
  """
  @spec join(group()) :: {reference(), group()}
  def join(group) do
    monitor = Process.monitor(scope())

    try do
      :ok = :pg.join(@scope, group, self())
    catch
      # It has just been killed, as the monitor will tell.
      :exit, _gone -> :ok
    end

    {monitor, group}
  end

  defp scope do
    case :pg.start(@scope) do
      {:ok, pid} ->
        # Not of the caller's application, which may be stopped while others go on.
        Process.group_leader(pid, Process.whereis(:init))
        pid

      {:error, {:already_started, pid}} ->
        pid
    end
  end

  @doc """
  The pools on other nodes that share their calls with this one.
  """
  @spec others(pid()) :: [pid()]
  def others(pool) do
    with true <- :ets.whereis(@scope) != :undefined,
         group when group != nil <- Enum.find(:pg.which_local_groups(@scope), &member?(&1, pool)) do
      for other <- :pg.get_members(@scope, group), node(other) != node(), do: other
    else
      _alone -> []
    end
  rescue
    # The table has just gone.
    ArgumentError -> []
  end

  defp member?(group, pool), do: pool in :pg.get_local_members(@scope, group)

  @doc """
  The one on that node, if there is one.
  """
  @spec on(pid(), node()) :: pid() | nil
  def on(pool, node), do: pool |> others() |> Enum.find(&(node(&1) == node))

  @doc """
  Asks some of these pools how loaded they are, in a process of its own: the alias returned gets `{alias, pool}` with the least loaded one that
  has less to do than `load`, or `{alias, nil}`. With `:infinity`, any that would not refuse a call has less.
  """
  @spec ask([pid(), ...], load :: float() | :infinity) :: reference()
  def ask(others, load) do
    # It takes one message.
    reference = :erlang.alias([:reply])
    spawn(fn -> send(reference, {reference, least_loaded(Enum.take_random(others, @asked), load)}) end)
    reference
  end

  @doc """
  The answer is not wanted any more.
  """
  @spec no_answer(reference()) :: :ok
  def no_answer(asked) do
    :erlang.unalias(asked)

    receive do
      {^asked, _pool} -> :ok
    after
      0 -> :ok
    end
  end

  defp least_loaded(pools, load) do
    deadline = Request.deadline(@patience)
    # All at the same time.
    requests = for pool <- pools, do: {:erpc.send_request(node(pool), __MODULE__, :load, [pool]), pool}
    loads = for {request, pool} <- requests, do: {answer(request, deadline), pool}
    # Of those that are equally loaded, any: they are in no order.
    {least, pool} = Enum.min_by(loads, &elem(&1, 0))
    if is_float(least) and least < load, do: pool
  end

  # An atom is more than any number.
  defp answer(request, deadline) do
    :erpc.receive_response(request, Request.time_left(deadline))
  catch
    _kind, _reason -> :unknown
  end

  @doc """
  How loaded a pool of this node is, as a part of what it runs at a time: more than 1 if calls wait. `:full` for one that would refuse another call.
  """
  @spec load(pid()) :: float() | :full
  def load(pool) do
    case Native.pool_load(pool) do
      {calls, at_a_time} -> calls / at_a_time
      nil -> :full
    end
  end
end
