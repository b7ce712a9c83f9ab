defmodule Snex.PoolTest do
  use Snex.Case, async: true

  import Snex.Pools

  alias Snex.Pool

  doctest Pool

  describe "a call" do
    test "goes to the interpreter that has least to do" do
      pool = start_pool!(size: 2, concurrency: 2)
      calls = for _ <- 1..4, do: hold(pool)
      assert calls |> Enum.frequencies_by(& &1.os_pid) |> Map.values() == [2, 2]
      for call <- calls, do: assert(let_go(call) == {:ok, call.os_pid})
      await_idle(pool)
    end

    test "waits when all are busy, and those who wait are served in order" do
      pool = start_pool!(size: 1)
      first = hold(pool)

      later =
        for n <- 1..5 do
          call = begin(pool)
          await_waiting(pool, n)
          call
        end

      assert {:ok, _} = let_go(first)

      for call <- later do
        call = Map.merge(call, await_running(call))
        refute Enum.any?(later -- [call], &running?/1)
        assert {:ok, _} = let_go(call)
      end

      await_idle(pool)
    end

    test "that has waited too long is :overloaded, and was not begun" do
      pool = start_pool!(size: 1, queue: [timeout: 20], init_script: "begun = []")
      call = hold(pool)
      assert {:error, %Error{code: :overloaded} = error} = Snex.pyeval(pool, "begun.append(1)")
      assert error.reason =~ "no interpreter of the pool was free within 20 ms"
      assert {:ok, _} = let_go(call)
      assert Snex.pyeval(pool, "return begun") == {:ok, []}
    end

    test "waits no longer than its own timeout" do
      pool = start_pool!(size: 1, queue: [timeout: :infinity])
      call = hold(pool, timeout: :infinity)
      assert {:error, %Error{code: :overloaded}} = Snex.pyeval(pool, "return 1", timeout: 20)
      assert {:error, %Error{code: :overloaded}} = Snex.call(pool, "abs", [1], timeout: 20)
      assert {:error, %Error{code: :overloaded}} = Snex.make_env(pool, %{}, timeout: 20)
      assert Pool.info(pool).waiting == 0
      assert {:ok, _} = let_go(call)
    end

    test "beyond the limit of the queue is :overloaded at once" do
      pool = start_pool!(size: 1, queue: [limit: 1, timeout: :infinity])
      running = hold(pool)
      waiting = begin(pool)
      await_waiting(pool, 1)
      assert {:error, %Error{code: :overloaded} = error} = Snex.pyeval(pool, "return 1")

      assert error.reason ==
               "1 call waits for an interpreter of the pool, as many as the option :queue allows"

      assert {:ok, _} = let_go(running)
      assert {:ok, _} = waiting |> Map.merge(await_running(waiting)) |> let_go()
    end

    test "whose process dies while it waits gives its place to the next" do
      pool = start_pool!(size: 1)
      running = hold(pool)
      dies = begin(pool)
      await_waiting(pool, 1)
      next = begin(pool)
      await_waiting(pool, 2)
      Task.shutdown(dies.task, :brutal_kill)
      await_waiting(pool, 1)
      assert {:ok, _} = let_go(running)
      assert {:ok, _} = next |> Map.merge(await_running(next)) |> let_go()
      await_idle(pool)
    end

    test "whose process dies while it runs makes room when Python has ended its work" do
      pool = start_pool!(size: 1)
      dies = hold(pool, [], true)
      next = begin(pool)
      await_waiting(pool, 1)
      Task.shutdown(dies.task, :brutal_kill)
      # Python cleans up.
      %{holder: cleaning} = await_running(dies)
      assert Pool.info(pool).waiting == 1
      send(cleaning, :go)
      assert {:ok, _} = next |> Map.merge(await_running(next)) |> let_go()
      await_idle(pool)
    end

    test "that has timed out makes room when Python has ended its work" do
      pool = start_pool!(size: 1, queue: [timeout: :infinity])
      late = hold(pool, [timeout: 100], true)
      assert {:error, %Error{code: :response_timeout}} = Task.await(late.task)
      %{holder: cleaning} = await_running(late)
      assert [%{calls_running: 1}] = Pool.info(pool).members
      assert {:error, %Error{code: :overloaded}} = Snex.pyeval(pool, "return 1", timeout: 20)
      send(cleaning, :go)
      assert Snex.pyeval(pool, "return 1", timeout: :infinity) == {:ok, 1}
      await_idle(pool)
    end

    test "that is left to itself after its timeout makes room when Python has answered it" do
      pool = start_pool!(size: 1)
      late = hold(pool, timeout: 100, on_timeout: :leave)
      assert {:error, %Error{code: :response_timeout}} = Task.await(late.task)
      assert {:error, %Error{code: :overloaded}} = Snex.pyeval(pool, "return 1", timeout: 20)
      send(late.holder, :go)
      assert Snex.pyeval(pool, "return 1") == {:ok, 1}
    end

    test "that raises gives its place back" do
      pool = start_pool!(size: 1)
      assert_raise ArgumentError, fn -> Snex.pyeval(pool, "pass", %{1 => 2}) end
      assert {:error, %Error{code: :python_runtime_error}} = Snex.pyeval(pool, "1 / 0")
      await_idle(pool)
      assert Snex.pyeval(pool, "return 1") == {:ok, 1}
    end

    test "reaches a pool by every kind of name" do
      name = :"pool_#{System.unique_integer([:positive])}"
      registry = :"registry_#{System.unique_integer([:positive])}"
      start_supervised!({Registry, keys: :unique, name: registry})

      for name <- [name, {:via, Registry, {registry, "key"}}, {:global, name}] do
        start_pool!(size: 1, name: name)
        assert Snex.call(name, "abs", [-1]) == {:ok, 1}
      end

      assert Snex.call({name, node()}, "abs", [-1]) == {:ok, 1}
    end
  end

  describe "callers that are killed at any moment" do
    test "leave nothing behind" do
      pool = start_pool!(size: 2, queue: [limit: 100_000], init_script: "import asyncio")

      callers =
        for n <- 1..300 do
          spawn(fn ->
            case rem(n, 4) do
              0 -> Snex.pyeval(pool, "await asyncio.sleep(0.001)")
              1 -> Snex.call(pool, "abs", [n])
              2 -> Snex.make_env(pool, %{"x" => n})
              3 -> pool |> Snex.stream("yield from range(1000)") |> Enum.to_list()
            end
          end)
        end

      for caller <- Enum.shuffle(callers) do
        for _ <- 1..:rand.uniform(200), do: :erlang.yield()
        Process.exit(caller, :kill)
      end

      await_idle(pool)
      assert Snex.pyeval(pool, "return 1") == {:ok, 1}
    end
  end

  describe "an interpreter that goes down" do
    test "is replaced, and only the calls that run in it fail" do
      pool = start_pool!(size: 2)
      [one, other] = [hold(pool), hold(pool)]
      waiting = begin(pool)
      await_waiting(pool, 1)
      System.cmd("kill", ["-KILL", "#{one.os_pid}"])
      assert {:error, %Error{code: :interpreter_exited}} = Task.await(one.task)
      assert {:ok, _} = let_go(other)
      assert {:ok, _} = waiting |> Map.merge(await_running(waiting)) |> let_go()
      until(pool, &(&1.running == 2))
      await_idle(pool)
    end

    test "never is chosen afterwards" do
      pool = start_pool!(size: 2)

      for _ <- 1..10 do
        until(pool, &(&1.running == 2))
        call = hold(pool)
        System.cmd("kill", ["-KILL", "#{call.os_pid}"])
        assert {:error, %Error{code: :interpreter_exited}} = Task.await(call.task)
        for _ <- 1..20, do: assert({:ok, 1} = Snex.pyeval(pool, "return 1"))
      end
    end

    test "has its calls run once more elsewhere, with :retry" do
      pool = start_pool!(size: 2)
      call = hold(pool, retry: 1)
      System.cmd("kill", ["-KILL", "#{call.os_pid}"])
      again = await_running(call)
      assert again.os_pid != call.os_pid
      assert call |> Map.merge(again) |> let_go() == {:ok, again.os_pid}

      call = hold(pool, retry: 1)
      System.cmd("kill", ["-KILL", "#{call.os_pid}"])
      System.cmd("kill", ["-KILL", "#{await_running(call).os_pid}"])
      assert {:error, %Error{code: :interpreter_exited}} = Task.await(call.task)
    end
  end

  describe "Elixir code that Python calls" do
    test "does not wait for the interpreter that waits for it" do
      pool = start_pool!(size: 1)
      inner = fn -> Snex.pyeval!(pool, "return 42", %{}, timeout: 60_000) end
      code = "return await inner()"
      assert Snex.pyeval(pool, code, %{"inner" => inner}, timeout: 60_000) == {:ok, 42}

      in_task = fn -> Task.await(Task.async(inner), :infinity) end
      assert Snex.pyeval(pool, code, %{"inner" => in_task}, timeout: 60_000) == {:ok, 42}

      callback = Serde.callback(fn -> Snex.call!(pool, "abs", [-42], timeout: 60_000) end)
      assert Snex.pyeval(pool, "return inner()", %{"inner" => callback}, timeout: 60_000) == {:ok, 42}

      stream = Serde.stream(Stream.map(1..3, &Snex.call!(pool, "abs", [-&1], timeout: 60_000)))
      assert Snex.pyeval(pool, "return list(x)", %{"x" => stream}, timeout: 60_000) == {:ok, [1, 2, 3]}
      await_idle(pool)
    end

    test "runs elsewhere if there is room" do
      pool = start_pool!(size: 2)
      inner = fn -> Snex.pyeval!(pool, "import os; return os.getpid()") end
      code = "import os\nreturn (os.getpid(), await inner())"
      assert {:ok, {one, other}} = Snex.pyeval(pool, code, %{"inner" => inner})
      assert one != other
    end
  end
end
