defmodule Snex.Remote.Tracker do
  @moduledoc false
  # One process on each node. It watches what runs on this node for callers on others, and holds the handles of environments and
  # objects that were made for them; see `Snex.Remote`.
  #
  # A call from another node has a *ticket*. Its life here:
  #
  #   1. `begin/2`: the worker, a process of `:erpc`, is linked to this one, which monitors the caller. When the caller goes, the
  #      worker is killed, and Python cancels the work. When this process goes, so do its workers: nobody would watch over them.
  #   2. `offer/3`, only for a result with handles: they are put into the table under the keys `{ticket, number}`.
  #   3. `finish/3`. Without handles, the ticket is forgotten.
  #   4. The claim of the caller: from now on, the handles belong to the tracker of its node, which is monitored instead of the
  #      caller. Without a claim they are dropped: when the caller dies, or cancels the ticket because it has given up.
  #
  # The caller has a proxy for each handle. When one is dropped, the tracker of the caller's node is told, and tells the one that
  # holds the handle. A tracker that goes has everything dropped that others hold for it, as does a lost connection.
  #
  # The table is there so that no handle is in the heap of this process, where it would live until the next garbage collection.

  use GenServer

  alias Snex.Native

  # How long a cancelled ticket is remembered that is not known yet, in ms: the call may still be on its way.
  @remembered 600_000

  # When to try again to send to a node that does not take more at the moment, in ms.
  @retry 100

  @typedoc "What a call from another node is known by."
  @type ticket() :: reference()

  @doc """
  The tracker of this node, which is started if it doesn't run.
  """
  @spec pid() :: pid()
  def pid do
    with nil <- Process.whereis(__MODULE__) do
      case GenServer.start(__MODULE__, nil, name: __MODULE__) do
        {:ok, pid} -> pid
        {:error, {:already_started, pid}} -> pid
      end
    end
  end

  # ---- For workers, on the interpreter's node ---------------------------------------------

  @doc """
  Has the calling process killed when `caller` goes. Returns the tracker.
  """
  @spec begin(ticket(), caller :: pid()) :: pid()
  def begin(ticket, caller) do
    tracker = pid()

    if linked?(tracker) do
      send(tracker, {:begin, ticket, caller, self()})
      tracker
    else
      begin(ticket, caller)
    end
  end

  defp linked?(tracker) do
    Process.link(tracker)
  rescue
    # It has just been killed.
    ErlangError -> false
  end

  @doc """
  Keeps handles for the caller: the first under the number 1, and so on.
  """
  @spec offer(tracker :: pid(), ticket(), [reference(), ...]) :: :ok
  def offer(tracker, ticket, handles) do
    table = GenServer.call(tracker, :table, :infinity)
    :ets.insert(table, for({handle, number} <- Enum.with_index(handles, 1), do: {{ticket, number}, handle}))
    :ok
  end

  @doc """
  The handle under a key, or `nil` if it was dropped.
  """
  @spec lookup(tracker :: pid(), key :: {ticket(), pos_integer()}) :: reference() | nil
  def lookup(tracker, key) do
    table = GenServer.call(tracker, :table, :infinity)
    :ets.lookup_element(table, key, 2, nil)
  catch
    # A tracker that is gone has dropped everything.
    _kind, _gone -> nil
  end

  @doc """
  The calling process is about to return its result.
  """
  @spec finish(tracker :: pid(), ticket(), offered? :: boolean()) :: :ok
  def finish(tracker, ticket, offered?) do
    send(tracker, {:finish, ticket, offered?})
    # A process of `:erpc` has its result as its exit reason: a copy of that would be sent here.
    Process.unlink(tracker)
    :ok
  end

  # ---- For callers ------------------------------------------------------------------------

  @doc """
  Takes over what `holder`, another node's tracker, has offered. Returns a proxy for each of the handles.
  """
  @spec claim(holder :: pid(), ticket(), [reference(), ...]) :: %{reference() => reference()}
  def claim(holder, ticket, handles) do
    tracker = pid()

    proxies =
      for {handle, number} <- Enum.with_index(handles, 1),
          into: %{},
          do: {handle, Native.handle_proxy(tracker, holder, ticket, number)}

    # Behind the proxies: a caller that is killed before this claims nothing, and one that is killed after it drops them.
    send_if_connected(holder, {:claim, ticket, tracker})
    proxies
  end

  @doc """
  Gives up a call: what it returns is dropped.
  """
  @spec cancel(node(), ticket()) :: :ok
  def cancel(node, ticket) do
    send_if_connected({__MODULE__, node}, {:cancel, ticket})
    :ok
  end

  @doc """
  What the tracker of this node has, all of it zero when it is at rest: calls under way or not claimed, handles that it holds,
  trackers that it holds them for, drops that it has not passed on. For tests.
  """
  @spec counts() :: %{atom() => non_neg_integer()}
  def counts, do: GenServer.call(pid(), :counts)

  # Without a connection, the message is not needed: the other side has dropped everything when it lost the connection.
  defp send_if_connected(to, message), do: Process.send(to, message, [:noconnect])

  # ---- The process ------------------------------------------------------------------------

  @impl GenServer
  def init(nil) do
    Process.flag(:trap_exit, true)
    # Not of the caller's application, which may be stopped while others go on.
    Process.group_leader(self(), Process.whereis(:init))
    Process.set_label({Snex.Remote, :tracker})

    {:ok,
     %{
       table: :ets.new(__MODULE__, [:ordered_set, :public]),
       # By ticket: the monitor of the caller, the worker until it has finished, whether nobody waits for the result any more.
       calls: %{},
       # Tickets by worker.
       workers: %{},
       # By ticket: the tracker that has claimed it, and how many handles are left.
       claimed: %{},
       # By tracker: its monitor, and a set of tickets.
       trackers: %{},
       # Tickets that were cancelled before their calls began.
       cancelled: MapSet.new(),
       # By tracker: keys of proxies that were dropped here.
       dropped: %{}
     }}
  end

  @impl GenServer
  def handle_call(:table, _from, state), do: {:reply, state.table, state}

  def handle_call(:counts, _from, state) do
    counts = %{
      calls: map_size(state.calls),
      workers: map_size(state.workers),
      handles: :ets.info(state.table, :size),
      tickets: map_size(state.claimed),
      trackers: map_size(state.trackers),
      dropped: map_size(state.dropped)
    }

    {:reply, counts, state}
  end

  @impl GenServer
  def handle_info({:begin, ticket, caller, worker}, state) do
    monitor = Process.monitor(caller, tag: {:caller_down, ticket})
    call = %{monitor: monitor, worker: worker, cancelled?: ticket in state.cancelled}

    {:noreply,
     %{state | calls: Map.put(state.calls, ticket, call), workers: Map.put(state.workers, worker, ticket)}}
  end

  def handle_info({:finish, ticket, offered?}, state) do
    case state.calls do
      %{^ticket => %{cancelled?: false} = call} when offered? ->
        workers = Map.delete(state.workers, call.worker)
        {:noreply, %{state | calls: %{state.calls | ticket => %{call | worker: nil}}, workers: workers}}

      %{^ticket => _call} ->
        {:noreply, drop_call(state, ticket)}

      # Claimed already: nothing orders messages of two processes.
      _forgotten ->
        {:noreply, state}
    end
  end

  # A worker that did not finish.
  def handle_info({:EXIT, worker, _reason}, state) do
    case state.workers do
      %{^worker => ticket} -> {:noreply, drop_call(state, ticket)}
      _forgotten -> {:noreply, state}
    end
  end

  def handle_info({{:caller_down, ticket}, _monitor, :process, _caller, _reason}, state) do
    with %{^ticket => %{worker: worker}} when worker != nil <- state.calls, do: Process.exit(worker, :kill)
    {:noreply, give_up(state, ticket)}
  end

  def handle_info({:cancel, ticket}, state) when is_map_key(state.calls, ticket),
    do: {:noreply, give_up(state, ticket)}

  # It has not begun, or ended without handles.
  def handle_info({:cancel, ticket}, state) do
    Process.send_after(self(), {:forget, ticket}, @remembered)
    {:noreply, %{state | cancelled: MapSet.put(state.cancelled, ticket)}}
  end

  def handle_info({:forget, ticket}, state),
    do: {:noreply, %{state | cancelled: MapSet.delete(state.cancelled, ticket)}}

  def handle_info({:claim, ticket, tracker}, state) do
    case state.calls do
      %{^ticket => %{cancelled?: false}} ->
        {:noreply, state |> forget_call(ticket) |> add_claim(ticket, tracker)}

      # The connection was lost meanwhile.
      _dropped ->
        {:noreply, state}
    end
  end

  def handle_info({:drop, keys}, state), do: {:noreply, Enum.reduce(keys, state, &drop/2)}

  def handle_info({:tracker_down, _monitor, :process, tracker, _reason}, state) do
    {{_monitor, tickets}, trackers} = Map.pop!(state.trackers, tracker)
    for ticket <- tickets, do: drop_all(state.table, ticket)
    {:noreply, %{state | trackers: trackers, claimed: Map.drop(state.claimed, MapSet.to_list(tickets))}}
  end

  # From the native code, when a proxy is garbage. What comes in the same moment is passed on together.
  def handle_info({:snex_handle_dropped, holder, key}, state) do
    if state.dropped == %{}, do: send(self(), :pass_on)
    {:noreply, %{state | dropped: Map.update(state.dropped, holder, [key], &[key | &1])}}
  end

  def handle_info(:pass_on, state) do
    # Not waiting for a node that takes nothing at the moment: others have calls here.
    busy =
      Map.filter(state.dropped, fn {holder, keys} ->
        Process.send(holder, {:drop, keys}, [:noconnect, :nosuspend]) == :nosuspend
      end)

    if busy != %{}, do: Process.send_after(self(), :pass_on, @retry)
    {:noreply, %{state | dropped: busy}}
  end

  def handle_info(_message, state), do: {:noreply, state}

  # Nobody waits for the result any more.
  defp give_up(state, ticket) do
    case state.calls do
      %{^ticket => %{worker: nil}} ->
        drop_call(state, ticket)

      # What the worker may have offered is dropped when it ends.
      %{^ticket => call} ->
        %{state | calls: %{state.calls | ticket => %{call | cancelled?: true}}}

      _forgotten ->
        state
    end
  end

  defp drop_call(state, ticket) do
    drop_all(state.table, ticket)
    forget_call(state, ticket)
  end

  defp forget_call(state, ticket) do
    {call, calls} = Map.pop!(state.calls, ticket)
    Process.demonitor(call.monitor, [:flush])
    %{state | calls: calls, workers: Map.delete(state.workers, call.worker)}
  end

  defp add_claim(state, ticket, tracker) do
    # Some may have been dropped already.
    case :ets.select_count(state.table, [{{{ticket, :_}, :_}, [], [true]}]) do
      0 ->
        state

      left ->
        {monitor, tickets} =
          Map.get_lazy(state.trackers, tracker, fn ->
            {Process.monitor(tracker, tag: :tracker_down), MapSet.new()}
          end)

        trackers = Map.put(state.trackers, tracker, {monitor, MapSet.put(tickets, ticket)})
        %{state | trackers: trackers, claimed: Map.put(state.claimed, ticket, {tracker, left})}
    end
  end

  defp drop({ticket, _number} = key, state) do
    # Not `:ets.take/2`, which would put the handle into this heap.
    if :ets.member(state.table, key) do
      :ets.delete(state.table, key)

      case state.claimed do
        %{^ticket => {tracker, 1}} -> remove_claim(state, ticket, tracker)
        %{^ticket => {tracker, left}} -> %{state | claimed: %{state.claimed | ticket => {tracker, left - 1}}}
        _not_claimed -> state
      end
    else
      state
    end
  end

  defp remove_claim(state, ticket, tracker) do
    {monitor, tickets} = Map.fetch!(state.trackers, tracker)
    tickets = MapSet.delete(tickets, ticket)

    trackers =
      if MapSet.size(tickets) == 0 do
        Process.demonitor(monitor, [:flush])
        Map.delete(state.trackers, tracker)
      else
        %{state.trackers | tracker => {monitor, tickets}}
      end

    %{state | trackers: trackers, claimed: Map.delete(state.claimed, ticket)}
  end

  defp drop_all(table, ticket), do: :ets.match_delete(table, {{ticket, :_}, :_})
end
