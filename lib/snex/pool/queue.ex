defmodule Snex.Pool.Queue do
  @moduledoc false
  # How a call gets a slot in an interpreter of a pool: at once, or after waiting in the queue. See `Snex.Pool.Choice`.

  alias Snex.Error
  alias Snex.Interpreter.Down
  alias Snex.Native
  alias Snex.Pool.Cluster
  alias Snex.Remote
  alias Snex.Request
  alias Snex.Telemetry

  @doc """
  Acquires a slot in an interpreter of a pool, or the whole interpreter if `alone?`. Waits as long as the options allow. Returns
  `{:elsewhere, pool, patience}` if the call is to run in a pool on another node, where it may wait for `patience` ms; and `:noproc` if
  there is no such pool.
  """
  @spec acquire_slot(pid(), boolean(), %{:deadline => Request.deadline(), optional(atom()) => term()}) ::
          {pid(), slot :: reference()} | {:elsewhere, pid(), timeout()} | :noproc | {:error, Error.t()}
  def acquire_slot(pool, alone?, options) do
    with :busy <- Native.pool_take(pool, alone?), do: wait(pool, alone?, options)
  end

  defp wait(pool, alone?, options) do
    begun = System.monotonic_time()

    case wait_for_slot(pool, others(pool, alone?, options), alone?, options) do
      {:elsewhere, other, _patience} = elsewhere ->
        Telemetry.pool_forwarded(pool, begun, other)
        elsewhere

      result ->
        outcome = with {pid, _slot} when is_pid(pid) <- result, do: :served
        Telemetry.pool_waited(pool, begun, outcome)
        result
    end
  end

  # The pools on other nodes that may be asked. None for a call that was sent here or has come back: a call is sent on once at most.
  defp others(_pool, true, _options), do: []
  defp others(_pool, _alone?, %{home: _patience}), do: []
  defp others(pool, _alone?, _options), do: if(Remote.caller() == nil, do: Cluster.others(pool), else: [])

  defp wait_for_slot(pool, others, alone?, options) do
    reference = make_ref()

    case Native.pool_wait(pool, reference, alone?, Process.get(:"$callers")) do
      {:waiting, ticket, patience} ->
        patience = patience(patience, options)
        place = {reference, ticket, pool, patience}
        if others == [], do: await_slot(place, patience), else: ask(others, place)

      :noproc ->
        {:error, %Error{code: :call_failed, reason: :noproc}}

      {interpreter, slot} when is_pid(interpreter) ->
        {interpreter, slot}

      refused ->
        patience = patience(with({:overloaded, _limit, patience} <- refused, do: patience), options)
        ask_without_place(others, patience) || {:error, refused(refused)}
    end
  end

  # How long a call may wait: the least of the patience of this queue, that of the node that has sent it, and its own deadline.
  defp patience(patience, options) do
    patience = if is_integer(patience), do: patience, else: :infinity
    Enum.min([patience, own_patience(options), Request.time_left(options.deadline)])
  end

  defp own_patience(%{sent: %{patience: patience}}), do: patience
  defp own_patience(%{home: patience}), do: patience
  defp own_patience(_options), do: :infinity

  # Asks other pools for their load, to find one that is less loaded than this one. The load here does not include the call itself.
  defp ask(others, {reference, ticket, pool, patience} = place) do
    until = Request.deadline(patience)
    {at_a_time, waiting, _once?} = Native.pool_figures(pool)
    # Without a running interpreter, any other pool is better.
    asked = Cluster.ask(others, if(at_a_time == 0, do: :infinity, else: 1 + (waiting - 1) / at_a_time))

    receive do
      {^reference, :slot, {interpreter, slot}} ->
        Cluster.no_answer(asked)
        {interpreter, slot}

      {^reference, :down, down} ->
        Cluster.no_answer(asked)
        {:error, Down.error(down)}

      {^asked, other} ->
        left = Request.time_left(until)

        if other != nil and Native.pool_forget(ticket),
          do: {:elsewhere, other, left},
          else: await_slot(place, left)
    after
      patience ->
        Cluster.no_answer(asked)
        give_up(ticket, reference, pool, patience)
    end
  end

  # This pool has refused the call, so any pool that takes it is better.
  defp ask_without_place([], _patience), do: nil

  defp ask_without_place(others, patience) do
    until = Request.deadline(patience)
    asked = Cluster.ask(others, :infinity)

    receive do
      {^asked, nil} -> nil
      {^asked, other} -> {:elsewhere, other, Request.time_left(until)}
    after
      patience ->
        Cluster.no_answer(asked)
        nil
    end
  end

  defp await_slot({reference, ticket, pool, patience}, left) do
    receive do
      {^reference, :slot, {interpreter, slot}} -> {interpreter, slot}
      {^reference, :down, down} -> {:error, Down.error(down)}
    after
      left -> give_up(ticket, reference, pool, patience)
    end
  end

  defp refused({:overloaded, limit, _patience}) do
    reason = "#{calls(limit)} for an interpreter of the pool, as many as the option :queue allows"
    %Error{code: :overloaded, reason: reason}
  end

  defp refused(:draining),
    do: %Error{code: :call_failed, reason: "the pool is drained: it takes no new calls"}

  defp calls(1), do: "1 call waits"
  defp calls(number), do: "#{number} calls wait"

  defp give_up(ticket, reference, pool, patience) do
    if Native.pool_forget(ticket) do
      behind = waiting(pool)

      overloaded(
        "no interpreter of the pool was free within #{patience} ms; #{calls(behind)} behind this one. " <>
          "Snex.Pool.info/1 shows what the interpreters are doing"
      )
    else
      # A slot has been granted just now.
      receive do
        {^reference, :slot, {interpreter, slot}} -> {interpreter, slot}
        {^reference, :down, down} -> {:error, Down.error(down)}
      end
    end
  end

  defp overloaded(reason), do: {:error, %Error{code: :overloaded, reason: reason}}

  @doc """
  How many calls wait in a pool.
  """
  @spec waiting(pid()) :: non_neg_integer()
  def waiting(pool), do: pool |> Native.pool_figures() |> elem(1)
end
