defmodule Bench.Pools do
  @moduledoc """
  Calls on a pool: what choosing costs, and what several interpreters bring.
  """

  alias Bench.{Calls, Row, Stats}

  @code "return 1"
  @members 4
  # Of processor time, in ms.
  @work 1

  def rows, do: [pool: &pool/1, pool_16: &pool_16/1, each_call: &each_call/1]

  # One call each in turn, and in the same interpreter: the pool chooses the first one that is idle.
  defp pool(context) do
    with_pool(context, 2, "", fn pool ->
      {:ok, py} = Snex.Pool.checkout(pool, & &1)
      direct = fn -> {:ok, 1} = Snex.pyeval(py, @code) end
      chosen = fn -> {:ok, 1} = Snex.pyeval(pool, @code) end
      [floor, value] = Stats.in_turns(context.turns * 200, 1, [direct, chosen])

      %Row{
        name: "pool",
        what: "p50 of pyeval(pool, \"return 1\"), one caller; floor: the same on its interpreter",
        floor: floor,
        value: value,
        unit: :ns,
        goal: :at_most,
        target: 1.15
      }
    end)
  end

  defp pool_16(context) do
    script = """
    import time

    def work():
        return sum(range(count))

    def measured(n):
        global count
        count = n
        start = time.process_time()
        work()
        return time.process_time() - start

    count = int(100_000 * #{@work / 1_000} / min(measured(100_000) for _ in range(20)))
    """

    with_pool(context, 1, script, fn one ->
      with_pool(context, @members, script, fn several ->
        context = %{context | calls: div(context.calls, 16)}

        per_second = fn pool ->
          Calls.per_second(context, fn -> {:ok, _sum} = Snex.pyeval(pool, "return work()") end)
        end

        {floor, value} = Enum.unzip(for _ <- 1..context.runs, do: {per_second.(one), per_second.(several)})

        %Row{
          name: "pool_16",
          what:
            "calls per second of 16 callers, #{@work} ms of work each, on #{@members} interpreters; floor: on one of them",
          floor: floor,
          value: value,
          unit: :per_second,
          goal: :at_least,
          target: 1.9
        }
      end)
    end)
  end

  # A fork for each call.
  defp each_call(context) do
    with_pool(context, [size: 2, fork: :each_call], fn pool ->
      # One for each of the sixteen callers at least.
      context = %{context | calls: max(div(context.calls, 160), 16)}
      call = fn -> {:ok, 1} = Snex.pyeval(pool, @code, %{}, timeout: 60_000) end

      %Row{
        name: "each_call",
        what:
          "calls per second of \"return 1\" on a pool with fork: :each_call, each in a copy of its own; floor: 100",
        floor: [100],
        value: for(_ <- 1..context.runs, do: Calls.per_second(context, call)),
        unit: :per_second,
        goal: :at_least,
        target: 2.0
      }
    end)
  end

  defp with_pool(context, size, script, fun), do: with_pool(context, [size: size, init_script: script], fun)

  defp with_pool(context, opts, fun) do
    {:ok, pool} = Snex.Pool.start_link([python: context.python] ++ opts)
    result = fun.(pool)
    GenServer.stop(pool)
    result
  end
end
