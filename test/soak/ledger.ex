defmodule Snex.Soak.Ledger do
  @moduledoc """
  The books: each call is written down before it is sent, and taken out exactly once when it ends.

  Owned by the node that conducts, in tables of this process. Callers of that node write by themselves, for whoever is dead
  writes nothing any more. Callers of other nodes send messages to this process, which come before the news of their death.

  If the connection to a node is lost, its callers live on, but what they were at has been written off. They end with what they
  want to write next.
  """

  use GenServer

  @open :snex_soak_open
  @totals :snex_soak_totals
  @effects :snex_soak_effects
  @numbers :snex_soak_numbers

  @type outcome() :: :answered | {:failed, cause :: String.t()} | :wrong

  def start_link, do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc """
  Notes that the calling process makes calls, and that these end with it. `home` is the node with the books.
  """
  def enter(home), do: ask(home, {:enter, self()})

  @doc """
  Writes down a call that is about to be sent. Returns its number, which nothing else has.
  """
  @spec open(node(), atom()) :: pos_integer()
  def open(home, kind) when home == node(), do: write(self(), kind)
  def open(home, kind), do: ask(home, {:open, kind})

  @doc """
  Takes out a call that has ended.
  """
  @spec close(node(), pos_integer(), outcome()) :: :ok
  def close(home, number, outcome) when home == node(), do: take(number, outcome)

  def close(home, number, outcome), do: ask(home, {:close, number, outcome})

  # What a caller of another node wants to write.
  defp ask(home, what) do
    with :written_off <- GenServer.call({__MODULE__, home}, what, :infinity), do: exit(:normal)
  end

  @doc """
  A process that makes a call of this sort just now, if there is one.
  """
  @spec caller_at(atom()) :: pid() | nil
  def caller_at(kind) do
    case :ets.match(@open, {:_, :"$1", kind, :_}) do
      [] -> nil
      callers -> callers |> Enum.random() |> hd()
    end
  end

  @doc """
  Counts that the other node was cut off from this one, after that and before it comes back: by then, all that one had made for the
  other is gone.
  """
  def cut, do: :atomics.add(numbers(), 2, 1)

  @doc """
  How often that was. 0 on the other node, whose callers end with the connection.
  """
  def cuts, do: if(numbers = numbers(), do: :atomics.get(numbers, 2), else: 0)

  @doc """
  Notes that something happened which must not: `what` is one of the rows of the report, `detail` a text.
  """
  def blame(home, what, detail), do: GenServer.call({__MODULE__, home}, {:blame, what, detail}, :infinity)

  @doc """
  Counts a fault that was injected, or anything else that the report names.
  """
  def count(home, what), do: GenServer.call({__MODULE__, home}, {:count, what}, :infinity)

  @doc """
  Counts handles of objects, `{:handles, :made | :released}`, items of streams, `{:items, what}`, or elements of maps,
  `{:elements, what}`.
  """
  def note(home, what, count) when home == node(), do: bump(what, count)
  def note(home, what, count), do: GenServer.call({__MODULE__, home}, {:note, what, count}, :infinity)

  @doc """
  Notes all of these or, if the calling process is killed meanwhile, none.
  """
  def note_all(home, counts), do: GenServer.call({__MODULE__, home}, {:note_all, counts}, :infinity)

  # ---- Called by Python ------------------------------------------------------------------------

  @doc """
  What Python calls for the sake of a request. Seen twice, it was called twice.
  """
  def effect(number) do
    :ets.update_counter(@effects, number, 1, {number, 0})
    {:seen, number}
  end

  @doc """
  How often Python has called `effect/1` for a request.
  """
  def effects(home, number) when home == node(), do: :ets.lookup_element(@effects, number, 2, 0)
  def effects(home, number), do: GenServer.call({__MODULE__, home}, {:effects, number}, :infinity)

  # ---- The end -------------------------------------------------------------------------------------

  @doc """
  Every call that does not end within `patience` ms from now on is lost: whoever made it lives, and waits.
  """
  def close_lost(patience) do
    cond do
      :ets.info(@open, :size) == 0 ->
        :ok

      patience <= 0 ->
        for {number, _caller, kind, sent} <- :ets.tab2list(@open) do
          age = System.monotonic_time(:millisecond) - sent
          detail = "call #{number} (#{kind}) has not returned for #{age} ms"
          GenServer.call(__MODULE__, {:blame, :lost, detail}, :infinity)
          # It may yet return, when its interpreter is stopped.
          :ets.update_element(@open, number, {3, :lost})
        end

      true ->
        Process.sleep(10)
        close_lost(patience - 10)
    end
  end

  @doc """
  All counts so far, and up to ten details of each thing that must not happen.
  """
  def totals do
    doubled = :ets.select_count(@effects, [{{:_, :"$1"}, [{:>, :"$1", 1}], [true]}])
    {Map.new(:ets.tab2list(@totals)), GenServer.call(__MODULE__, :details), doubled}
  end

  # ---- The process -----------------------------------------------------------------------------------

  @impl GenServer
  def init(nil) do
    for table <- [@open, @totals, @effects],
        do: :ets.new(table, [:named_table, :public, write_concurrency: true])

    # Of calls, and of cuts.
    :persistent_term.put(@numbers, :atomics.new(2, []))
    :ok = :net_kernel.monitor_nodes(true, [:nodedown_reason])
    # Monitors of callers, and up to ten details of each thing that must not happen.
    {:ok, %{callers: %{}, details: %{}}}
  end

  @impl GenServer
  def handle_call({:enter, caller}, _from, state),
    do: {:reply, :ok, put_in(state.callers[caller], Process.monitor(caller))}

  def handle_call(what, {caller, _tag}, state)
      when elem(what, 0) in [:open, :close] and not is_map_key(state.callers, caller),
      do: {:reply, :written_off, state}

  def handle_call({:open, kind}, {caller, _tag}, state), do: {:reply, write(caller, kind), state}
  def handle_call({:close, number, outcome}, _from, state), do: {:reply, take(number, outcome), state}
  def handle_call({:effects, number}, _from, state), do: {:reply, effects(node(), number), state}
  def handle_call(:details, _from, state), do: {:reply, state.details, state}

  def handle_call({:note, what, count}, _from, state),
    do: {:reply, bump(what, count), state}

  def handle_call({:note_all, counts}, _from, state) do
    for {what, count} <- counts, do: bump(what, count)
    {:reply, :ok, state}
  end

  def handle_call({:count, what}, _from, state) do
    bump({:fault, what})
    {:reply, :ok, state}
  end

  def handle_call({:blame, what, detail}, _from, state) do
    bump({:blame, what})
    {:reply, :ok, update_in(state.details[what], &Enum.take([detail | &1 || []], 10))}
  end

  @impl GenServer
  def handle_info({:DOWN, _reference, :process, caller, reason}, state) do
    for [number, kind] <- :ets.match(@open, {:"$1", caller, :"$2", :_}),
        do: take(number, {:failed, why(reason, kind)})

    {:noreply, %{state | callers: Map.delete(state.callers, caller)}}
  end

  def handle_info({:nodeup, _node, _info}, state), do: {:noreply, state}

  def handle_info({:nodedown, _node, info}, state) do
    bump({:connection, inspect(info[:nodedown_reason])})
    {:noreply, state}
  end

  defp why(:noconnection, _kind), do: "its node killed or cut off"
  defp why(_reason, :checked_out), do: "its caller killed: checked out"
  defp why(_reason, _kind), do: "its caller killed"

  defp write(caller, kind) do
    number = :atomics.add_get(numbers(), 1, 1)
    :ets.insert(@open, {number, caller, kind, System.monotonic_time(:millisecond)})
    bump({:sent, kind})
    number
  end

  defp numbers, do: :persistent_term.get(@numbers, nil)

  defp take(number, outcome) do
    case :ets.take(@open, number) do
      [{_number, _caller, :lost, _sent}] -> :ok
      [_row] -> bump({:ended, outcome})
      [] -> bump({:blame, :marked_twice})
    end

    :ok
  end

  defp bump(what, count \\ 1) do
    :ets.update_counter(@totals, what, count, {what, 0})
    :ok
  end
end
