defmodule Snex.Remote.Keeper do
  @moduledoc false
  # Holds the handle of one environment or object for another node that has got it in some other way than as the result of a call; see
  # `Snex.Flame`. To the trackers it is one of them that has a single handle: the proxy of the other node names it.
  #
  # It lives as long as what it holds is of use: it ends when the process goes that has asked for it, before that has claimed the handle;
  # then when the proxy is dropped, with the other node or its tracker; and with the interpreter.

  use GenServer

  alias Snex.Handle
  alias Snex.Remote.Tracker

  # For another node to answer, in ms.
  @timeout 5_000

  @doc """
  Has the handle of a struct kept on its node for as long as anything refers to the struct returned here. With it, the process that keeps it.
  """
  @spec adopt(struct) :: {struct, pid()} when struct: Handle.t()
  def adopt(%{handle: handle} = struct) do
    ticket = make_ref()
    {:ok, keeper} = :erpc.call(node(handle), __MODULE__, :start, [struct, ticket, self()], @timeout)
    %{^handle => proxy} = Tracker.claim(keeper, ticket, [handle])
    {%{struct | handle: proxy}, keeper}
  end

  @doc false
  @spec start(Handle.t(), Tracker.ticket(), pid()) :: GenServer.on_start()
  def start(struct, ticket, caller), do: GenServer.start(__MODULE__, {struct, ticket, caller})

  @impl GenServer
  def init({%{handle: handle, interpreter: interpreter}, ticket, caller}) do
    # Not of the caller's application, which may be stopped while others go on.
    Process.group_leader(self(), Process.whereis(:init))
    table = :ets.new(__MODULE__, [:public])
    :ets.insert(table, {{ticket, 1}, handle})
    Process.monitor(interpreter)
    {:ok, %{table: table, ticket: ticket, owner: Process.monitor(caller)}}
  end

  # See `Snex.Remote.Tracker.lookup/2`.
  @impl GenServer
  def handle_call(:table, _from, state), do: {:reply, state.table, state}

  @impl GenServer
  def handle_info({:claim, ticket, tracker}, %{ticket: ticket} = state) do
    Process.demonitor(state.owner, [:flush])
    {:noreply, %{state | owner: Process.monitor(tracker)}}
  end

  def handle_info({:drop, _keys}, state), do: {:stop, :normal, state}
  def handle_info({:DOWN, _monitor, :process, _pid, _reason}, state), do: {:stop, :normal, state}
  def handle_info(_message, state), do: {:noreply, state}
end
