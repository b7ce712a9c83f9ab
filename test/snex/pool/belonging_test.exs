defmodule Snex.Pool.BelongingTest do
  # Environments, objects and streams of a pool's interpreters, and the use of one alone.
  use Snex.Case, async: true

  import Snex.Pools

  alias Snex.Object
  alias Snex.Pool

  describe "an environment" do
    test "is used in the interpreter that made it" do
      pool = start_pool!(size: 2)
      {:ok, env} = Snex.make_env(pool, %{"x" => 1})
      assert Snex.Env.interpreter(env) in running(pool)
      for _ <- 1..10, do: assert(Snex.pyeval(env, "return x") == {:ok, 1})
      assert {:ok, copy} = Snex.make_env(env |> Snex.Env.interpreter(), %{}, from: env)
      assert Snex.get(copy, "x") == {:ok, 1}
    end

    test "counts where it is used, and its calls do not wait" do
      pool = start_pool!(size: 2)
      [one, other] = for pid <- running(pool), do: Snex.make_env!(pid)
      calls = [hold(one), hold(one)]
      assert Enum.sort(for(member <- Pool.info(pool).members, do: member.calls_running)) == [0, 2]
      elsewhere = hold(pool)
      assert elsewhere.os_pid != hd(calls).os_pid
      waiting = begin(pool)
      await_waiting(pool, 1)
      assert Snex.pyeval(other, "return 1") == {:ok, 1}
      assert {:ok, _} = let_go(hd(calls))
      assert {:ok, _} = let_go(List.last(calls))
      waiting = Map.merge(waiting, await_running(waiting))
      assert waiting.os_pid == hd(calls).os_pid
      assert {:ok, _} = let_go(waiting)
      assert {:ok, _} = let_go(elsewhere)
      await_idle(pool)
    end

    test "decides where a copy is made" do
      pool = start_pool!(size: 3)

      for pid <- running(pool) do
        {:ok, env} = Snex.make_env(pid, %{"x" => 1})
        assert {:ok, copy} = Snex.make_env(pool, %{"y" => 2}, from: env)
        assert Snex.Env.interpreter(copy) == pid
        assert Snex.pyeval(copy, "return x + y") == {:ok, 3}
      end

      other = Snex.make_env!(start_interpreter!())

      assert_raise ArgumentError, ~r/a pool that it does not belong to/, fn ->
        Snex.make_env(pool, %{}, from: other)
      end

      await_idle(pool)
    end

    test "of an interpreter that was replaced is not there any more, and the error says why" do
      pool = start_pool!(size: 1)
      {:ok, env} = Snex.make_env(pool)
      {:ok, object} = Snex.call(pool, "object", [], returns: :object)
      assert :ok = Pool.restart(pool)
      eventually(fn -> not Process.alive?(Snex.Env.interpreter(env)) end)

      assert {:error, %Error{code: :env_not_found} = error} = Snex.pyeval(env, "return 1")

      assert error.reason ==
               "#{inspect(env)} is gone with its interpreter, which was replaced by Snex.Pool.restart/1"

      assert {:error, %Error{code: :env_not_found}} = Snex.call(env, "abs", [1])
      assert {:error, %Error{code: :env_not_found}} = Snex.make_env(%{}, from: env)
      assert {:error, %Error{code: :env_not_found}} = Snex.make_env(pool, %{}, from: env)
      assert %Error{code: :env_not_found} = catch_error(Enum.to_list(Snex.stream(env, "yield 1")))
      assert Snex.destroy_env(env) == :ok

      assert {:error, %Error{code: :object_not_found} = error} = Object.repr(object)
      assert error.reason =~ "which was replaced by Snex.Pool.restart/1"
      assert {:error, %Error{code: :object_not_found}} = Snex.call(pool, "repr", [object])
      assert %Error{code: :object_not_found} = catch_error(Enum.to_list(object))
    end

    test "of an interpreter that was killed is not there any more either" do
      pool = start_pool!(size: 1)
      {:ok, env} = Snex.make_env(pool)
      kill(Snex.Env.interpreter(env))
      eventually(fn -> not Process.alive?(Snex.Env.interpreter(env)) end)
      assert {:error, %Error{code: :env_not_found} = error} = Snex.pyeval(env, "return 1")
      assert error.reason =~ "which has ended: Python was ended by SIGKILL (exit status 137)"
    end
  end

  describe "an object" do
    test "in the arguments of a call of the pool decides where it runs" do
      pool = start_pool!(size: 3)
      objects = for pid <- running(pool), do: Snex.call!(pid, "list", [[1, 2]], returns: :object)

      for object <- objects do
        assert Snex.call(pool, "len", [object]) == {:ok, 2}
        assert Snex.pyeval(pool, "return deep['a'][0]", %{"deep" => %{"a" => [object]}}) == {:ok, [1, 2]}
        assert pool |> Snex.stream("yield from x", %{"x" => object}) |> Enum.to_list() == [1, 2]
        assert {:ok, env} = Snex.make_env(pool, %{"x" => object})
        assert Snex.Env.interpreter(env) == object.interpreter
        assert Object.length(object) == {:ok, 2}
      end

      [one, other, _third] = objects

      assert_raise ArgumentError, ~r/belongs to the interpreter/, fn ->
        Snex.call(pool, "max", [one, other])
      end

      stranger = Snex.call!(start_interpreter!(), "list", [], returns: :object)

      assert_raise ArgumentError, ~r/a pool that it does not belong to/, fn ->
        Snex.call(pool, "len", [stranger])
      end

      assert {:ok, copy} = Object.copy(stranger, pool)
      assert copy.interpreter in running(pool)
      await_idle(pool)
    end

    test "does not wait, whoever is busy" do
      pool = start_pool!(size: 1)
      object = Snex.call!(pool, "list", [[1, 2]], returns: :object)
      call = hold(pool)
      waiting = begin(pool)
      await_waiting(pool, 1)
      assert Object.length(object) == {:ok, 2}
      assert {:ok, _} = let_go(call)
      assert {:ok, _} = waiting |> Map.merge(await_running(waiting)) |> let_go()
    end
  end

  describe "a stream" do
    test "takes its interpreter until it ends" do
      pool = start_pool!(size: 1)

      pool
      |> Snex.stream("yield from range(3)", %{}, demand: 1)
      |> Enum.each(fn _item ->
        assert {:error, %Error{code: :overloaded}} = Snex.pyeval(pool, "return 1", timeout: 10)
      end)

      assert Snex.pyeval(pool, "return 1") == {:ok, 1}
      stream = Snex.stream(pool, "while True: yield 1")
      assert Enum.take(stream, 2) == [1, 1]
      assert Snex.pyeval(pool, "return 1") == {:ok, 1}
      assert Enum.take(stream, 2) == [1, 1]
      await_idle(pool)
    end

    test "waits for an interpreter, and can give up" do
      pool = start_pool!(size: 1, queue: [timeout: 20])
      call = hold(pool)
      stream = Snex.stream(pool, "yield 1")
      assert %Error{code: :overloaded} = catch_error(Enum.to_list(stream))
      assert {:ok, _} = let_go(call)
      assert Enum.to_list(stream) == [1]
    end

    test "whose consumer is killed gives its interpreter back" do
      pool = start_pool!(size: 1)
      me = self()

      consumer =
        spawn(fn -> pool |> Snex.stream("while True: yield 1") |> Enum.each(&send(me, {:item, &1})) end)

      assert_receive {:item, 1}, 60_000
      Process.exit(consumer, :kill)
      assert Snex.pyeval(pool, "return 1", timeout: 60_000) == {:ok, 1}
      await_idle(pool)
    end
  end

  describe "a map" do
    test "uses all interpreters, and keeps the order" do
      pool =
        start_pool!(
          size: 2,
          init_script: "import os, time\ndef where(n):\n  time.sleep(0.001)\n  return (n, os.getpid())"
        )

      results = Snex.map!(pool, "where", 1..200, demand: 5)
      assert for({n, _os_pid} <- results, do: n) == Enum.to_list(1..200)
      assert results |> Enum.uniq_by(&elem(&1, 1)) |> length() == 2
      await_idle(pool)

      assert pool |> Snex.map("abs", Stream.cycle([-1]), stream: true) |> Enum.take(3) == [
               {:ok, 1},
               {:ok, 1},
               {:ok, 1}
             ]

      await_idle(pool)
      assert {:ok, [1, 2]} = Pool.checkout(pool, fn _py -> Snex.map!(pool, "abs", [-1, -2]) end)
      await_idle(pool)
    end
  end

  describe "an interpreter that is checked out" do
    test "is used by one alone" do
      pool = start_pool!(size: 2, concurrency: 2)
      shared = hold(pool)

      assert {:ok, :done} =
               Pool.checkout(pool, fn py ->
                 {:ok, os_pid} = Snex.pyeval(py, "import os; return os.getpid()")
                 assert os_pid != shared.os_pid
                 assert :checked_out in for(member <- Pool.info(pool).members, do: member.calls_running)
                 task = Task.async(fn -> hold(pool) |> Map.get(:os_pid) end)
                 assert Task.await(task) == shared.os_pid
                 :done
               end)

      assert {:ok, _} = let_go(shared)
      await_idle(pool)
    end

    test "is that of all calls of the process, and of what it checks out inside" do
      pool = start_pool!(size: 1)

      assert {:ok, {:ok, 3}} =
               Pool.checkout(pool, fn py ->
                 {:ok, 1} = Snex.pyeval(pool, "return 1")
                 {:ok, env} = Snex.make_env(pool, %{"x" => 3})
                 [1] = Enum.to_list(Snex.stream(pool, "yield 1"))
                 {:ok, ^py} = Pool.checkout(pool, & &1)
                 Snex.get(env, "x")
               end)

      await_idle(pool)
    end

    test "is free again when the function raises, and when its process is killed" do
      pool = start_pool!(size: 1)
      me = self()
      assert catch_throw(Pool.checkout(pool, fn _py -> throw(:ball) end)) == :ball
      assert_raise ArithmeticError, fn -> Pool.checkout(pool, fn _py -> 1 / Process.get(:none, 0) end) end

      for _ <- 1..10 do
        holder =
          spawn(fn ->
            Pool.checkout(pool, fn py ->
              send(me, {:has, py})
              Process.sleep(:infinity)
            end)
          end)

        assert_receive {:has, _py}, 60_000
        waiting = begin(pool)
        await_waiting(pool, 1)
        Process.exit(holder, :kill)
        assert {:ok, _} = waiting |> Map.merge(await_running(waiting)) |> let_go()
      end

      await_idle(pool)
    end

    test "is waited for, in order and within a timeout" do
      pool = start_pool!(size: 1)
      call = hold(pool)
      assert {:error, %Error{code: :overloaded}} = Pool.checkout(pool, & &1, timeout: 20)
      alone = Task.async(fn -> Pool.checkout(pool, & &1, timeout: 60_000) end)
      await_waiting(pool, 1)
      behind = begin(pool)
      await_waiting(pool, 2)
      assert {:ok, _} = let_go(call)
      assert {:ok, _py} = Task.await(alone)
      assert {:ok, _} = behind |> Map.merge(await_running(behind)) |> let_go()
    end
  end
end
