defmodule Snex.Pool.Server do
  @moduledoc false
  # The process of a pool: it owns the interpreters, and keeps their number. Calls do not pass through here; see `Snex.Pool.Choice`.

  use GenServer

  alias Snex.Error
  alias Snex.Native
  alias Snex.Pool.Cluster
  alias Snex.Pool.Members
  alias Snex.Pool.Queue
  alias Snex.Pool.Template

  # How often memory and age are checked, in ms.
  @check 1_000

  # `asked` has the callers that wait for an answer, with what each waits for. `cluster` is a monitor and a group of `Snex.Pool.Cluster`.
  @enforce_keys [:members, :concurrency]
  defstruct [:members, :concurrency, :cluster, draining: false, asked: []]

  @impl GenServer
  def init({own, options}) do
    # So that terminate/2 runs however this process ends: it waits until all interpreters are gone.
    Process.flag(:trap_exit, true)
    patience = if own.queue.timeout != :infinity, do: own.queue.timeout
    Native.pool_open(own.concurrency, own.queue.limit, patience)
    cluster = if own.scope == :cluster, do: Cluster.join({own.name, own.interpreter})

    members = %Members{
      module: own.interpreter,
      options: options,
      size: own.size,
      recycle: if(own.fork == :each_call, do: %{own.recycle | requests: 1, jitter: 0}, else: own.recycle),
      name: own.name,
      template: Template.new(own.fork, own.name)
    }

    if own.fork == :each_call, do: Native.pool_once(own.size)
    if own.recycle.memory || own.recycle.age, do: Process.send_after(self(), :snex_check, @check)
    members = Members.settle(members)
    state = %__MODULE__{members: members, concurrency: own.concurrency, cluster: cluster}
    if own.sync_start?, do: await_start(state), else: {:ok, state}
  end

  # Waits until all interpreters run, or one could not be started.
  defp await_start(%{members: members} = state) do
    cond do
      members.backoff.failures > 0 ->
        Members.stop(members, :shutdown)
        Native.pool_close(:erlang.term_to_binary(members.backoff.error))
        {:error, members.backoff.error}

      Members.settled?(members) ->
        {:ok, state}

      true ->
        [parent | _] = Process.get(:"$ancestors")
        parent = if is_atom(parent), do: Process.whereis(parent), else: parent

        receive do
          {:EXIT, ^parent, reason} ->
            Members.stop(members, reason)
            exit(reason)

          {:EXIT, pid, _reason} = message
          when is_map_key(members.all, pid) or is_map_key(members.template.all, pid) ->
            await_start(handled(message, state))

          {{tag, _pid}, _ok} = message when tag in [:snex_member, :snex_template] ->
            await_start(handled(message, state))
        end
    end
  end

  defp handled(message, state) do
    {:noreply, state} = handle_info(message, state)
    state
  end

  @impl GenServer
  def handle_call(:info, _from, state) do
    info =
      state.members
      |> Members.info()
      |> Map.merge(%{
        waiting: Queue.waiting(self()),
        concurrency: state.concurrency,
        nodes: Map.new([self() | Cluster.others(self())], &{node(&1), &1}),
        draining: state.draining
      })

    {:reply, info, state}
  end

  def handle_call(:drain, from, state) do
    Native.pool_drain()
    answer(%{state | draining: true, asked: [{from, :drain} | state.asked]})
  end

  def handle_call(wish, _from, %{draining: true} = state) when wish == :restart or elem(wish, 0) == :resize do
    reason = "the pool is drained: it can no longer be changed"
    {:reply, {:error, %Error{code: :call_failed, reason: reason}}, state}
  end

  def handle_call({:resize, size}, from, state) do
    members = Members.resize(state.members, size)
    answer(%{state | members: members, asked: [{from, :resize} | state.asked]})
  end

  def handle_call(:restart, from, state) do
    {old, members} = Members.restart(state.members)
    answer(%{state | members: members, asked: [{from, {:restart, old}} | state.asked]})
  end

  # A request for an interpreter.
  def handle_call(other, _from, state) do
    reason =
      "a pool does not answer #{inspect(other)}: ask one of its interpreters, which Snex.Pool.info/1 lists"

    {:reply, {:error, %Error{code: :call_failed, reason: reason}}, state}
  end

  @impl GenServer
  def handle_info({{:snex_member, pid}, :ok}, state), do: update(state, &Members.started(&1, pid))

  def handle_info({{:snex_template, pid}, :ok}, state), do: update(state, &Members.template_started(&1, pid))

  def handle_info({:EXIT, pid, reason}, %{members: members} = state)
      when is_map_key(members.all, pid) or is_map_key(members.template.all, pid) do
    before = state.members.backoff
    %{backoff: backoff} = members = Members.ended(state.members, pid, reason)
    state = if backoff.failures > before.failures, do: give_up(state, backoff.error), else: state
    answer(%{state | members: members})
  end

  def handle_info({:snex_pool, :worn, pid}, state), do: update(state, &Members.worn(&1, pid))
  def handle_info({:snex_pool, :idle, _nil}, state), do: update(state, &Members.dismiss/1)
  def handle_info({:snex_proven, pid}, state), do: update(state, &Members.proven(&1, pid))

  # The process that knows the pools on other nodes is gone.
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, %{cluster: {monitor, group}} = state),
    do: {:noreply, %{state | cluster: Cluster.join(group)}}

  def handle_info(:snex_retry, state), do: update(state, &Members.retry/1)

  def handle_info(:snex_check, state) do
    Process.send_after(self(), :snex_check, @check)
    update(state, &Members.check/1)
  end

  def handle_info({:EXIT, _pid, :normal}, state), do: {:noreply, state}
  def handle_info({:EXIT, _pid, reason}, state), do: {:stop, reason, state}
  def handle_info(_message, state), do: {:noreply, state}

  @impl GenServer
  def terminate(reason, state) do
    Native.pool_close(:erlang.term_to_binary(reason))
    for pid <- Map.keys(state.members.all), do: Native.pool_bury(pid, "was stopped with its pool")
    Members.stop(state.members, reason)
  end

  # Options may hold secrets.
  @impl GenServer
  def format_status(status) do
    Map.replace_lazy(status, :state, fn %{members: members} ->
      members |> Map.take([:module, :name, :size]) |> Map.put(:failures, members.backoff.failures)
    end)
  end

  defp update(state, fun), do: answer(%{state | members: fun.(state.members)})

  # Answers the callers whose condition is met.
  defp answer(state) do
    {done, asked} = Enum.split_with(state.asked, fn {_from, wish} -> true?(wish, state) end)
    for {from, _wish} <- done, do: GenServer.reply(from, :ok)
    {:noreply, %{state | asked: asked}}
  end

  defp true?(:resize, state), do: Members.settled?(state.members)

  defp true?({:restart, old}, state) do
    not Template.renewing?(state.members.template) and Enum.all?(old, &Members.left?(state.members, &1))
  end

  defp true?(:drain, state) do
    Queue.waiting(self()) == 0 and Enum.all?(Map.keys(state.members.all), &Native.pool_idle/1)
  end

  # The pool tries again, but callers do not wait for that.
  defp give_up(state, error) do
    {failed, others} = Enum.split_with(state.asked, fn {_from, wish} -> wish != :drain end)
    for {from, _wish} <- failed, do: GenServer.reply(from, {:error, error})
    %{state | asked: others}
  end
end
