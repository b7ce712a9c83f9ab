defmodule Snex.Pool.SoakTest do
  # Not async: it counts what is left in this VM.
  use Snex.Case

  import Snex.Pools

  alias Snex.Native
  alias Snex.Object
  alias Snex.Pool

  @moduletag :long
  @moduletag :capture_log
  @moduletag timeout: 600_000

  @time 30_000
  @callers 24

  # What may come of a call whose interpreter or caller may be killed.
  @codes [
    :interpreter_exited,
    :call_failed,
    :env_not_found,
    :object_not_found,
    :overloaded,
    :response_timeout
  ]

  @init_script """
  import asyncio, os

  async def later(n):
      await asyncio.sleep(n / 1000)
      return n
  """

  test "mixed traffic, while Pythons, interpreters and callers are killed, and the pool changes: each call has one answer, and nothing is left" do
    before = left()

    opts = [
      concurrency: 2,
      init_script: @init_script,
      output: :discard,
      queue: [limit: 10_000, timeout: :infinity]
    ]

    pool = start_alone!([size: 3, recycle: [requests: 500, age: 5_000]] ++ opts)
    counts = :counters.new(2, [])
    until = System.monotonic_time(:millisecond) + @time

    keeper =
      spawn_link(fn ->
        Process.flag(:trap_exit, true)
        callers = for _ <- 1..@callers, do: spawn_link(fn -> call(pool, counts, until) end)
        keep(MapSet.new(callers), pool, counts, until)
      end)

    monitor = Process.monitor(keeper)
    disturb(pool, keeper, until)
    assert_receive {:DOWN, ^monitor, :process, ^keeper, :normal}, 60_000

    # Each caller that lives has got an answer to its last call: no call is lost.
    [ended, killed] = for n <- 1..2, do: :counters.get(counts, n)
    IO.puts("\n#{ended} calls have ended, #{killed} callers were killed")
    assert ended > 0 and killed > 0
    assert :ok = Pool.resize(pool, 2)
    await_idle(pool)
    assert %{running: 2, waiting: 0} = Pool.info(pool)
    os_pids = for %{interpreter: pid} <- Pool.info(pool).members, do: os_pid(pid)
    GenServer.stop(pool)
    await_gone(Enum.filter(os_pids, & &1))
    eventually(fn -> left() == before end, 6_000, fn -> inspect({before, left()}) end)
    assert Native.panics() == 0
  end

  # One that is being replaced may be gone by now.
  defp os_pid(interpreter) do
    Interpreter.os_pid(interpreter)
  catch
    :exit, _gone -> nil
  end

  defp left, do: Map.take(Native.resources_count(), [:pools, :running, :registered, :pending, :workers])

  # Callers that are killed are replaced, and the call that each of them was at is written down.
  defp keep(callers, pool, counts, until) do
    if MapSet.size(callers) > 0 do
      receive do
        {:EXIT, pid, :normal} ->
          keep(MapSet.delete(callers, pid), pool, counts, until)

        {:EXIT, pid, :killed} ->
          :counters.add(counts, 2, 1)
          caller = spawn_link(fn -> call(pool, counts, until) end)
          keep(callers |> MapSet.delete(pid) |> MapSet.put(caller), pool, counts, until)

        {:EXIT, _pid, reason} ->
          exit(reason)

        :kill_one ->
          Process.exit(Enum.random(callers), :kill)
          keep(callers, pool, counts, until)
      end
    end
  end

  defp call(pool, counts, until) do
    right!(request(:rand.uniform(7), pool))
    :counters.add(counts, 1, 1)
    if System.monotonic_time(:millisecond) < until, do: call(pool, counts, until)
  end

  defp right!(:ok), do: :ok
  defp right!({:error, %Error{code: code}}) when code in @codes, do: :ok
  defp right!(other), do: raise("not right: #{inspect(other)}")

  defp request(1, pool), do: answer(Snex.pyeval(pool, "return n", %{"n" => 7}, retry: 1), 7)
  defp request(2, pool), do: answer(Snex.call(pool, "later", [3]), 3)
  defp request(3, pool), do: answer(Snex.pyeval(pool, "await asyncio.sleep(1000)", timeout: 20), nil)

  defp request(4, pool) do
    with {:ok, env} <- Snex.make_env(pool, %{"x" => 1}), do: answer(Snex.get(env, "x"), 1)
  end

  defp request(5, pool) do
    with {:ok, object} <- Snex.call(pool, "list", [[1, 2]], returns: :object),
         {:ok, 2} <- Object.length(object),
         do: answer(Snex.call(pool, "sum", [object]), 3)
  end

  defp request(6, pool) do
    10 = pool |> Snex.stream("yield from range(100)") |> Enum.take(10) |> length()
    :ok
  rescue
    error in Error -> {:error, error}
  end

  defp request(7, pool) do
    with {:ok, result} <- Pool.checkout(pool, &Snex.call(&1, "abs", [-1]), timeout: 10_000),
         do: answer(result, 1)
  end

  defp answer({:ok, value}, value), do: :ok
  defp answer(other, _value), do: other

  defp disturb(pool, keeper, until) do
    if System.monotonic_time(:millisecond) < until do
      Process.sleep(:rand.uniform(100))

      case :rand.uniform(10) do
        n when n <= 5 -> send(keeper, :kill_one)
        n when n <= 7 -> with pid when pid != nil <- any(pool), do: python_killed(pid)
        8 -> with pid when pid != nil <- any(pool), do: Process.exit(pid, :kill)
        9 -> Pool.resize(pool, Enum.random(2..4))
        10 -> Pool.restart(pool)
      end

      disturb(pool, keeper, until)
    end
  end

  defp any(pool) do
    case running(pool) do
      [] -> nil
      pids -> Enum.random(pids)
    end
  end

  defp python_killed(pid) do
    kill(pid)
  catch
    :exit, _gone -> :ok
  end
end
