defmodule Snex.Soak.Traffic do
  @moduledoc """
  The callers: so many on each node, whatever becomes of them.

  One process that monitors all of them, and starts another for each that is gone. It knows a node while it is up.
  """

  use GenServer

  alias Snex.Soak.Caller
  alias Snex.Soak.Ledger

  # `callers` are processes on their nodes; `dealt` is how many there have been, which is part of the seed of each.
  defstruct [:seed, :interpreters, :size, nodes: [], callers: %{}, dealt: 0]

  def start_link(seed, interpreters, size),
    do: GenServer.start_link(__MODULE__, {seed, interpreters, size}, name: __MODULE__)

  @doc """
  Has callers on a node from now on, until it goes.
  """
  def add_node(node), do: GenServer.call(__MODULE__, {:add_node, node}, :infinity)

  @doc """
  Kills one of the callers, in whatever it is at.
  """
  def kill_one, do: GenServer.call(__MODULE__, :kill_one, :infinity)

  @doc """
  Kills all callers of the node that calls this, and returns when they are gone.
  """
  def end_callers do
    for pid <- Process.list(), Process.info(pid, :initial_call) == {:initial_call, {Caller, :run, 3}} do
      monitor = Process.monitor(pid)
      Process.exit(pid, :kill)

      receive do
        {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
      end
    end

    :ok
  end

  @doc """
  Has all callers finish, and waits until they have, or `patience` ms are over. Returns those that have not: each of them
  has lost a call.
  """
  def finish(patience), do: GenServer.call(__MODULE__, {:finish, patience}, :infinity)

  @doc """
  Has all callers that have finished look into their mailboxes for the last time, and ends them all.
  """
  def check(stuck), do: GenServer.call(__MODULE__, {:check, stuck}, :infinity)

  @impl GenServer
  def init({seed, interpreters, size}),
    do: {:ok, %__MODULE__{seed: seed, interpreters: interpreters, size: size}}

  @impl GenServer
  def handle_call({:add_node, node}, _from, state) do
    state = %{state | nodes: [node | List.delete(state.nodes, node)]}
    {:reply, :ok, Enum.reduce(1..state.size, state, fn _, state -> start_caller(node, state) end)}
  end

  def handle_call(:kill_one, _from, state) do
    {pid, _node} = Enum.random(state.callers)
    Process.exit(pid, :kill)
    {:reply, :ok, state}
  end

  def handle_call({:finish, patience}, _from, state) do
    for {pid, _node} <- state.callers, do: send(pid, {:soak_finish, self()})
    {finished, stuck} = await(:soak_finished, Map.keys(state.callers), patience)
    {:reply, stuck, %{state | nodes: [], callers: Map.take(state.callers, finished ++ stuck)}}
  end

  def handle_call({:check, stuck}, _from, state) do
    finished = Map.keys(state.callers) -- stuck
    for pid <- finished, do: send(pid, {:soak_check, self()})
    {_checked, []} = await(:soak_checked, finished, 60_000)
    for pid <- stuck, do: Process.exit(pid, :kill)
    {:reply, :ok, state}
  end

  @impl GenServer
  # One that has lost a call gets on when its interpreter is stopped.
  def handle_info({:soak_finished, _late}, state), do: {:noreply, state}
  def handle_info(:out_of_patience, state), do: {:noreply, state}

  def handle_info({:DOWN, _reference, :process, pid, reason}, state) do
    {node, callers} = Map.pop!(state.callers, pid)
    state = %{state | callers: callers}

    case reason do
      :noconnection ->
        {:noreply, %{state | nodes: List.delete(state.nodes, node)}}

      killed_or_normal when killed_or_normal in [:killed, :normal] ->
        {:noreply, if(node in state.nodes, do: start_caller(node, state), else: state)}

      # A caller that fails by itself has found something that it did not expect.
      reason ->
        Ledger.blame(node(), :wrong, "a caller has failed: #{inspect(reason, limit: 20)}")
        {:noreply, start_caller(node, state)}
    end
  end

  defp start_caller(node, state) do
    args = [node(), {state.seed, state.dealt, 0}, state.interpreters]
    {pid, _monitor} = Node.spawn_monitor(node, Caller, :run, args)
    %{state | callers: Map.put(state.callers, pid, node), dealt: state.dealt + 1}
  end

  # The processes that have said so, and those that have not in time. Those that are gone are neither.
  defp await(said, pids, patience) do
    timer = Process.send_after(self(), :out_of_patience, patience)
    answers = collect(said, [], MapSet.new(pids))
    Process.cancel_timer(timer)
    answers
  end

  defp collect(said, have, rest) do
    if MapSet.size(rest) == 0 do
      {have, []}
    else
      receive do
        {^said, pid} -> collect(said, [pid | have], MapSet.delete(rest, pid))
        # It has been killed before.
        {:DOWN, _reference, :process, pid, _reason} -> collect(said, have, MapSet.delete(rest, pid))
        :out_of_patience -> {have, MapSet.to_list(rest)}
      end
    end
  end
end
