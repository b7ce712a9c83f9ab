defmodule Snex.Pool.ChangesTest do
  # Pools whose interpreters are replaced, added and taken away, on purpose or not.
  use Snex.Case, async: true

  import ExUnit.CaptureLog
  import Snex.Pools

  alias Snex.Pool

  describe "resize/2" do
    test "up: new interpreters serve those who wait" do
      pool = start_pool!(size: 1)
      first = hold(pool)
      waiting = for _ <- 1..2, do: begin(pool)
      await_waiting(pool, 2)
      assert Pool.resize(pool, 3) == :ok
      for call <- waiting, do: assert({:ok, _} = call |> Map.merge(await_running(call)) |> let_go())
      assert {:ok, _} = let_go(first)
      assert %{size: 3, running: 3} = Pool.info(pool)
    end

    test "down: what runs comes to its end, and the interpreter is gone then" do
      pool = start_pool!(size: 3)
      calls = for _ <- 1..3, do: hold(pool)
      assert Pool.resize(pool, 1) == :ok
      assert %{size: 1, running: 1} = info = Pool.info(pool)
      assert Enum.count(info.members, &(&1.status == :leaving)) == 2
      os_pids = for call <- calls, do: call.os_pid
      for call <- calls, do: assert({:ok, _} = let_go(call))
      until(pool, &(length(&1.members) == 1))
      [left] = running(pool)
      await_gone(os_pids -- [Interpreter.os_pid(left)])
      assert Snex.pyeval(pool, "return 1") == {:ok, 1}
    end

    test "under load: no call fails" do
      pool = start_pool!(size: 1, queue: [timeout: :infinity])
      me = self()

      callers =
        for _ <- 1..8 do
          spawn_link(fn ->
            Stream.repeatedly(fn -> {:ok, 1} = Snex.pyeval(pool, "return 1", timeout: 60_000) end)
            |> Enum.find(fn _ ->
              receive do
                :stop -> true
              after
                0 -> false
              end
            end)

            send(me, {:stopped, self()})
          end)
        end

      for size <- [3, 1, 2, 4, 1], do: assert(Pool.resize(pool, size) == :ok)
      for caller <- callers, do: send(caller, :stop)
      for caller <- callers, do: assert_receive({:stopped, ^caller}, 60_000)
      until(pool, &(length(&1.members) == 1))
      await_idle(pool)
    end
  end

  describe "restart/1" do
    test "replaces all, one after the other, and no call fails" do
      pool = start_pool!(size: 2)
      old = running(pool)
      call = hold(pool, timeout: :infinity)
      assert Pool.restart(pool) == :ok
      assert %{running: 2} = Pool.info(pool)
      assert old -- running(pool) == old
      # It runs on in the old one.
      assert %{status: :leaving, calls_running: 1} =
               Enum.find(Pool.info(pool).members, &(&1.calls_running == 1))

      assert {:ok, _} = let_go(call)
      until(pool, &(length(&1.members) == 2))
    end

    test "ends with the error of a start that fails, and the others go on" do
      flag = :counters.new(1, [])

      script = fn ->
        if :counters.get(flag, 1) == 0, do: "x = 1", else: raise("no more")
      end

      pool = start_pool!(size: 2, init_script: script)
      old = running(pool)
      :counters.put(flag, 1, 1)

      log =
        capture_log(fn ->
          assert {:error, %Error{code: :call_failed} = error} = Pool.restart(pool)
          assert error.reason =~ "no more"
        end)

      assert log =~ "could not be started"
      assert running(pool) == old
      assert for(member <- Pool.info(pool).members, do: member.due) == [nil, nil]
      assert %{failure: %{attempts: 1, error: %Error{code: :call_failed}}} = Pool.info(pool)
      for _ <- 1..10, do: assert(Snex.get(pool, "x") == {:ok, 1})
    end
  end

  describe "an interpreter that cannot be started" do
    @describetag :capture_log

    test "is tried again with pauses, and info/1 says why" do
      flag = :counters.new(1, [])
      script = fn -> if :counters.get(flag, 1) == 0, do: "x = 1", else: raise("no more") end
      pool = start_pool!(size: 1, init_script: script)
      :counters.put(flag, 1, 1)
      [pid] = running(pool)
      kill(pid)
      until(pool, &match?(%{failure: %{attempts: 3}}, &1))
      %{failure: failure, running: 0} = Pool.info(pool)
      assert failure.error.reason =~ "no more"
      assert failure.next_attempt_in > 0
      waiting = Task.async(fn -> Snex.get(pool, "x", timeout: 60_000) end)
      await_waiting(pool, 1)
      :counters.put(flag, 1, 0)
      assert Task.await(waiting, 60_000) == {:ok, 1}
      until(pool, &(&1.failure == nil))
    end

    test "without sync_start?: calls wait until one runs" do
      flag = :counters.new(1, [])

      script = fn ->
        :counters.add(flag, 1, 1)
        if :counters.get(flag, 1) > 2, do: "x = 1", else: raise("not yet")
      end

      opts = [init_script: script, sync_start?: false, queue: [timeout: :infinity]]
      pool = start_pool!([size: 1] ++ opts)
      assert Snex.get(pool, "x", timeout: 60_000) == {:ok, 1}
    end
  end

  describe "recycle:" do
    test "after so many calls, without an error for anybody" do
      pool = start_pool!(size: 2, recycle: [requests: 20, jitter: 0])
      old = running(pool)

      tasks =
        for _ <- 1..4 do
          Task.async(fn -> for _ <- 1..100, do: {:ok, 1} = Snex.pyeval(pool, "return 1", timeout: 60_000) end)
        end

      Task.await_many(tasks, :infinity)
      until(pool, &Enum.all?(&1.members, fn member -> member.interpreter not in old end))
      assert %{running: 2} = Pool.info(pool)
    end

    test "the substitute is ready before the old one ends" do
      pool = start_pool!(size: 1, recycle: [requests: 2])
      [old] = running(pool)
      {:ok, env} = Snex.make_env(pool)
      call = hold(env)

      until(
        pool,
        &(&1.running == 1 and hd(&1.members).interpreter == old and hd(&1.members).status == :leaving)
      )

      assert Snex.pyeval(pool, "import os; return os.getpid()") != {:ok, call.os_pid}
      assert {:ok, _} = let_go(call)
      await_gone([call.os_pid])
      assert {:error, %Error{code: :env_not_found, reason: reason}} = Snex.pyeval(env, "pass")

      assert reason =~
               "which was replaced after 2 calls, by the limit :requests of the pool's option :recycle"
    end

    test "not by memory below the limit" do
      pool = start_pool!(size: 1, recycle: [memory: 100_000_000_000])
      # As the pool does once a second.
      send(pool, :snex_check)
      assert [%{due: nil, status: :running, memory: memory}] = Pool.info(pool).members
      assert is_integer(memory) and memory > 0
    end

    test "by age, and by memory" do
      for recycle <- [[age: 1], [memory: 1]] do
        pool = start_pool!(size: 1, recycle: recycle)
        [old] = running(pool)
        until(pool, &(running(pool) != [] and old not in running(pool) and &1.running == 1))
      end
    end
  end

  describe "drain/1" do
    test "waits for what runs and waits, and refuses the rest" do
      pool = start_pool!(size: 1)
      {:ok, env} = Snex.make_env(pool)
      running = hold(pool)
      waiting = begin(pool)
      await_waiting(pool, 1)
      drain = Task.async(fn -> Pool.drain(pool) end)
      until(pool, & &1.draining)
      assert {:error, %Error{code: :call_failed, reason: reason}} = Snex.pyeval(pool, "return 1")
      assert reason == "the pool is drained: it takes no new calls"
      assert {:error, %Error{code: :call_failed}} = Pool.resize(pool, 2)
      assert {:error, %Error{code: :call_failed}} = Pool.restart(pool)
      assert {:error, %Error{code: :call_failed}} = Pool.checkout(pool, & &1)
      assert {:ok, _} = let_go(running)
      waiting = Map.merge(waiting, await_running(waiting))
      assert Task.yield(drain, 0) == nil
      assert {:ok, _} = let_go(waiting)
      assert Task.await(drain) == :ok
      assert Snex.pyeval(env, "return 1") == {:ok, 1}
      assert Pool.drain(pool) == :ok
    end

    test "when those who wait give up, and nothing else runs" do
      pool = start_pool!(size: 1)

      {:ok, drain} =
        Pool.checkout(pool, fn _py ->
          waiting = Task.async(fn -> Snex.pyeval(pool, "return 1", timeout: 100) end)
          await_waiting(pool, 1)
          drain = Task.async(fn -> Pool.drain(pool) end)
          assert {:error, %Error{code: :overloaded}} = Task.await(waiting)
          drain
        end)

      assert Task.await(drain) == :ok
    end
  end

  describe "the end of a pool" do
    test "by its supervisor ends all Pythons, and tells all callers" do
      pool = start_pool!(size: 2)
      calls = [hold(pool), hold(pool)]
      waiting = begin(pool)
      await_waiting(pool, 1)
      Process.unlink(pool)
      Supervisor.stop(pool, :shutdown)
      await_gone(for call <- calls, do: call.os_pid)

      for call <- [waiting | calls],
          do: assert({:error, %Error{code: :call_failed, reason: :shutdown}} = Task.await(call.task))

      assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.pyeval(pool, "return 1")
    end

    test "by a kill ends all Pythons, and tells all callers" do
      Process.flag(:trap_exit, true)
      {:ok, pool} = Pool.start_link(size: 2)
      calls = [hold(pool), hold(pool)]
      waiting = begin(pool)
      await_waiting(pool, 1)
      Process.exit(pool, :kill)
      await_gone(for call <- calls, do: call.os_pid)
      for call <- [waiting | calls], do: assert({:error, %Error{code: :call_failed}} = Task.await(call.task))
    end

    @tag :capture_log
    test "comes to a pool that is still starting" do
      Process.flag(:trap_exit, true)
      me = self()

      starter =
        spawn(fn ->
          Process.flag(:trap_exit, true)

          script = fn ->
            send(me, {:starting, self()})
            Process.sleep(:infinity)
          end

          send(me, {:result, Pool.start_link(size: 2, init_script: script)})
        end)

      launches = for _ <- 1..2, do: assert_receive({:starting, launch}, 60_000) && launch
      monitors = for launch <- launches, do: Process.monitor(launch)
      Process.exit(starter, :kill)
      for monitor <- monitors, do: assert_receive({:DOWN, ^monitor, :process, _launch, _reason}, 60_000)
      refute_received {:result, _}
    end
  end
end
