defmodule Snex.RequestTest do
  use Snex.Case, async: true

  alias Snex.Request

  @endless "import asyncio; await asyncio.Event().wait()"

  # The timeouts that a call counts down from.
  defp timeouts(call) do
    task = Task.async(fn -> receive do: (:go -> call.()) end)
    :erlang.trace_pattern({Request, :deadline, 1}, true, [])
    1 = :erlang.trace(task.pid, true, [:call])
    send(task.pid, :go)
    Task.await(task, :infinity)
    collect_timeouts(task.pid)
  end

  defp collect_timeouts(pid) do
    receive do
      {:trace, ^pid, :call, {Request, :deadline, [timeout]}} -> [timeout | collect_timeouts(pid)]
    after
      0 -> []
    end
  end

  describe "the timeout" do
    @describetag :interpreter

    test "is in ms or :infinity, 5000 by default", %{inp: inp} do
      assert timeouts(fn -> Snex.pyeval(inp, "return 1") end) == [5_000]
      assert timeouts(fn -> Snex.pyeval(inp, "return 1", timeout: 60_000) end) == [60_000]
      assert timeouts(fn -> Snex.pyeval(inp, "return 1", timeout: :infinity) end) == [:infinity]
    end

    test "of a call that is over cancels the work, and leaves no message", %{inp: inp} do
      {:ok, env} = Snex.make_env(inp)

      code = """
      import asyncio
      try:
          started.set()
          await asyncio.Event().wait()
      finally:
          cancelled.set()
      """

      Snex.pyeval(env, "import asyncio; started = asyncio.Event(); cancelled = asyncio.Event()")
      assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(env, code, timeout: 1_000)
      assert Snex.pyeval(env, "await cancelled.wait(); return started.is_set()") == {:ok, true}
      refute_received _
    end

    test "over, a late answer reaches nobody", %{inp: inp} do
      # Blocks the loop, so that the answer comes long after the caller has given up.
      code = "import time; time.sleep(0.2); return 'late'"
      assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(inp, code, timeout: 20)
      assert Snex.pyeval(inp, "return 'next'") == {:ok, "next"}
      refute_received _
    end

    test "over just as the answer comes leaves no message", %{inp: inp} do
      {:ok, env} = Snex.make_env(inp, %{"pause" => 0.0009})
      {:ok, nil} = Snex.pyeval(env, "import time")

      for _ <- 1..500 do
        assert code(Snex.pyeval(env, "time.sleep(pause); return 1", timeout: 1)) in [
                 :ok,
                 :response_timeout,
                 :overloaded
               ]

        refute_received _
      end
    end

    test "over just as the interpreter process is killed leaves no message" do
      Process.flag(:trap_exit, true)

      for _ <- 1..20 do
        {:ok, inp} = Interpreter.start_link(port_opts: [busy_limits_port: {1_024, 2_048}])
        os_pid = Interpreter.os_pid(inp)
        moment = System.monotonic_time(:millisecond) + 50

        callers =
          for n <- 1..60 do
            # Half of them wait for room, and then take long to be written.
            vars = if rem(n, 2) == 0, do: %{}, else: %{"numbers" => Enum.to_list(1..5_000)}

            Task.async(fn ->
              left = max(moment + rem(n, 3) - 1 - System.monotonic_time(:millisecond), 0)
              assert {:error, %Error{}} = Snex.pyeval(inp, @endless, vars, timeout: left)
              receive do: (:look -> Process.info(self(), :messages))
            end)
          end

        Process.send_after(self(), :now, moment, abs: true)
        assert_receive :now, 60_000
        Process.exit(inp, :kill)
        # Whoever waits is told before Python is ended.
        eventually(fn -> not exists?(os_pid) end)
        for caller <- callers, do: send(caller.pid, :look)
        assert callers |> Task.await_many(60_000) |> Enum.uniq() == [messages: []]
      end
    end

    test "of 0 gives up at once, also when the answer is quicker", %{inp: inp} do
      for _ <- 1..200 do
        # Python may also be quick enough to say that it is too late.
        assert code(Snex.pyeval(inp, "return 1", timeout: 0)) in [:ok, :response_timeout, :overloaded]
      end

      assert Snex.pyeval(inp, "return 2") == {:ok, 2}
      refute_received _
    end

    test "covers waiting for the start of an interpreter" do
      Process.flag(:trap_exit, true)
      {:ok, inp} = Interpreter.start_link(sync_start?: false, init_script: @endless)
      assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(inp, "return 1", timeout: 10)
      Process.exit(inp, :kill)
    end

    test "covers waiting for a full pipe, while Python does not read; after that, callers go on" do
      inp = start_interpreter!(port_opts: [busy_limits_port: {1_000, 10_000}])
      {:ok, env} = Snex.make_env(inp)
      payload = %{"x" => String.duplicate("x", 60_000)}
      test = self()

      # Python blocks until a byte comes through this pipe.
      {:ok, writer} = Snex.pyeval(env, "import os; r, w = os.pipe(); return w")

      blocked =
        Task.async(fn ->
          Snex.pyeval(
            env,
            "await snex.send(test, 'blocked'); os.read(r, 1); return 'unblocked'",
            %{"test" => test},
            timeout: :infinity
          )
        end)

      assert_receive "blocked", 60_000

      callers =
        for n <- 1..40 do
          Task.async(fn ->
            Snex.pyeval(inp, "return (n, len(x))", Map.put(payload, "n", n), timeout: :infinity)
          end)
        end

      # The pipe and the queue are full: who comes now waits, and gives up in time.
      eventually(fn ->
        Task.await(
          Task.async(fn ->
            result = Snex.pyeval(inp, "return 1", payload, timeout: 10)
            refute_received _
            match?({:error, %Error{code: :response_timeout}}, result)
          end)
        )
      end)

      # The high-water mark, and as much as one request each of those who came just before it was reached.
      assert Interpreter.info(inp).queued <= 10_000 + 4 * 61_000
      File.write!("/proc/#{Interpreter.os_pid(inp)}/fd/#{writer}", "x")
      assert Task.await(blocked, :infinity) == {:ok, "unblocked"}
      assert Enum.map(callers, &Task.await(&1, :infinity)) == for(n <- 1..40, do: {:ok, {n, 60_000}})
    end
  end

  describe "on_timeout" do
    @describetag :interpreter

    test ":cancel, the default, cancels the task in Python", %{inp: inp} do
      code = """
      import asyncio
      try:
          await asyncio.Event().wait()
      except asyncio.CancelledError:
          await snex.send(test, "cancelled")
          raise
      """

      for opts <- [[], [on_timeout: :cancel]] do
        assert {:error, %Error{code: :response_timeout}} =
                 Snex.pyeval(inp, code, %{"test" => self()}, [timeout: 1_000] ++ opts)

        assert_receive "cancelled", 60_000
      end
    end

    test ":leave lets the work run to its end, and drops the answer", %{inp: inp} do
      {:ok, env} = Snex.make_env(inp)
      {:ok, nil} = Snex.pyeval(env, "import asyncio; go = asyncio.Event(); done = asyncio.Event()")

      assert {:error, %Error{code: :response_timeout}} =
               Snex.pyeval(env, "await go.wait(); done.set(); return 1", timeout: 10, on_timeout: :leave)

      assert Snex.pyeval(env, "go.set(); await done.wait(); return 2") == {:ok, 2}
      refute_received _
    end
  end

  # A `receive` that does not know where its answer can be at the earliest looks at every message before it.
  test "a long mailbox costs a call nothing: each receive begins where its reference was made" do
    {:ok, {_module, [debug_info: {:debug_info_v1, backend, data}]}} =
      Request |> :code.which() |> :beam_lib.chunks([:debug_info])

    {:ok, forms} = backend.debug_info(:erlang_v1, Request, data, [])
    {:ok, Request, _binary, [{_file, notes}]} = :compile.forms(forms, [:return, :binary, :recv_opt_info])
    notes = for {_place, module, note} <- notes, do: to_string(module.format_error(note))

    assert Enum.count(notes, &(&1 =~ "OPTIMIZED: all clauses match reference")) == 3
    assert Enum.count(notes, &(&1 =~ "OPTIMIZED: reference used to mark a message queue position")) == 2
    refute Enum.any?(notes, &(&1 =~ "NOT OPTIMIZED"))
  end

  defp code({:ok, 1}), do: :ok
  defp code({:error, %Error{code: code}}), do: code
end
