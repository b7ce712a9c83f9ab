defmodule Snex.Serde.StreamLifeTest do
  use Snex.Case, async: true

  @moduletag :interpreter

  # Numbers without an end. Tells the test when it begins, and when it has cleaned up behind itself.
  defp numbers(test \\ self()) do
    Stream.resource(
      fn ->
        send(test, {:begun, self()})
        0
      end,
      &{[&1], &1 + 1},
      fn _ -> send(test, {:ended, self()}) end
    )
  end

  # It has begun, and ends with its process.
  defp assert_ended do
    assert_receive {:begun, producer}, 60_000
    monitor = Process.monitor(producer)
    assert_receive {:ended, ^producer}, 60_000
    assert_receive {:DOWN, ^monitor, :process, ^producer, _reason}, 60_000
  end

  describe "the enumerable is ended, so that it cleans up, when Python" do
    test "has enough of it", %{inp: inp} do
      for {how, code} <- [
            {"drops it", "next(rows)\ndel rows"},
            {"drops it in the middle of a loop", "for row in rows:\n  break\ndel rows"},
            {"drops it in the middle of an async loop", "async for row in rows:\n  break\ndel rows"},
            {"closes it", "next(rows)\nrows.close()\nrows.close()"},
            {"closes it asynchronously", "next(rows)\nawait rows.aclose()"},
            {"leaves a with block", "with rows as r:\n  next(r)"},
            {"leaves an async with block", "async with rows as r:\n  await anext(r)"},
            {"fails in a with block",
             "try:\n  with rows:\n    next(rows)\n    raise ValueError\nexcept ValueError: pass"},
            {"closes it from another thread",
             "import asyncio\nnext(rows)\nawait asyncio.to_thread(rows.close)"}
          ] do
        # The call goes on until the enumerable has ended.
        test = self()
        wait = fn -> assert_ended() && send(test, {:seen, how}) end
        # In the process of the test the messages of the enumerable.
        rows = numbers()
        code = code <> "\nawait wait()"

        task =
          Task.async(fn ->
            Snex.pyeval(inp, code, %{"rows" => Serde.stream(rows), "wait" => fn -> await_go(test) end},
              timeout: 60_000
            )
          end)

        wait.()
        assert_receive {:waits, waiting}, 60_000
        send(waiting, :go)
        assert {how, Task.await(task, 60_000)} == {how, {:ok, nil}}
      end
    end

    test "has ended the call that brought it", %{inp: inp} do
      keep = "global kept\nkept = rows\n"

      for {code, run} <- [
            {keep <> "next(rows)", :loop},
            {keep <> "next(rows)", :thread},
            {keep <> "await anext(rows)", :loop},
            {keep <> "next(rows)\nraise ValueError", :loop},
            {keep <> "await anext(rows)\nraise ValueError", :thread}
          ] do
        {:ok, env} = Snex.make_env(inp)
        Snex.pyeval(env, code, %{"rows" => Serde.stream(numbers())}, run: run)
        assert_ended()

        for code <- ["next(kept)", "await anext(kept)"] do
          assert {:error, error} = Snex.pyeval(env, code)
          assert error.exception.type == "RuntimeError"
          assert error.reason =~ "ended with the call"
        end
      end
    end

    test "has ended the request whose call has returned it", %{inp: inp} do
      rows = numbers()
      code = "global kept\nkept = await f()\nreturn next(kept)"
      {:ok, env} = Snex.make_env(inp)
      assert Snex.pyeval(env, code, %{"f" => fn -> Serde.stream(rows) end}) == {:ok, 0}
      assert_ended()
    end

    test "waits for an item that does not come, and the call is cancelled", %{inp: inp} do
      test = self()
      slow = Stream.map(numbers(), fn n -> if n == 3, do: block(test), else: n end)

      for {code, run} <- [
            {"list(rows)", :loop},
            {"list(rows)", :thread},
            {"[row async for row in rows]", :loop},
            {"[row async for row in rows]", :thread},
            {"import asyncio\nawait asyncio.to_thread(list, rows)", :loop}
          ] do
        task =
          Task.async(fn ->
            Snex.pyeval(inp, code, %{"rows" => Serde.stream(slow)}, run: run, timeout: 500)
          end)

        assert_receive {:blocks, producer}, 60_000
        assert {:error, %Error{code: :response_timeout}} = Task.await(task, 60_000)
        # It gets to know when it goes on.
        send(producer, :go)
        assert_ended()
        assert Snex.pyeval(inp, "return 1", timeout: 60_000) == {:ok, 1}
      end
    end
  end

  defp await_go(test) do
    send(test, {:waits, self()})
    receive(do: (:go -> nil))
  end

  defp block(test) do
    send(test, {:blocks, self()})
    receive(do: (:go -> :late))
  end

  describe "the enumerable is ended as well" do
    test "when the caller is killed", %{inp: inp} do
      test = self()

      for {code, run} <- [
            {"await snex.send(pid, next(rows))\nawait wait()", :loop},
            {"for row in rows: snex.send_sync(pid, row)", :loop},
            {"for row in rows: snex.send_sync(pid, row)", :thread}
          ] do
        rows = numbers()

        caller =
          spawn(fn ->
            vars = %{"rows" => Serde.stream(rows), "pid" => test, "wait" => fn -> await_go(test) end}
            Snex.pyeval(inp, code, vars, run: run, timeout: :infinity)
          end)

        assert_receive 0, 60_000
        Process.exit(caller, :kill)
        assert_ended()
      end
    end

    test "when the interpreter stops, or is killed" do
      for how <- [:stop, :kill_python, :kill_owner] do
        test = self()
        inp = start_supervised!({Interpreter, []}, id: how, restart: :temporary)
        rows = numbers()
        code = "import os\nawait snex.send(pid, (next(rows), os.getpid()))\nawait wait()"
        vars = %{"rows" => Serde.stream(rows), "pid" => test, "wait" => fn -> await_go(test) end}
        task = Task.async(fn -> Snex.pyeval(inp, code, vars, timeout: :infinity) end)
        assert_receive {0, os_pid}, 60_000

        case how do
          :stop -> Interpreter.stop(inp)
          :kill_python -> System.cmd("kill", ["-9", "#{os_pid}"])
          :kill_owner -> Process.exit(inp, :kill)
        end

        assert_ended()
        assert {:error, %Error{}} = Task.await(task, 60_000)
      end
    end

    test "not when a caller that gives up leaves the call to go on", %{inp: inp} do
      test = self()

      code =
        "for row in rows:\n  await snex.send(pid, row)\n  if row == 2: await wait()\n  if row == 1000: break"

      rows = numbers()

      {caller, monitor} =
        spawn_monitor(fn ->
          vars = %{"rows" => Serde.stream(rows, demand: 4), "pid" => test, "wait" => fn -> await_go(test) end}

          {:error, %Error{code: :response_timeout}} =
            Snex.pyeval(inp, code, vars, timeout: 500, on_timeout: :leave)
        end)

      assert_receive {:waits, waiting}, 60_000
      assert_receive {:DOWN, ^monitor, :process, ^caller, :normal}, 60_000
      send(waiting, :go)
      for n <- 0..1000, do: assert_receive(^n, 60_000)
      assert_ended()
    end

    test "by force, if it blocks and does not come back", %{inp: inp} do
      test = self()

      blocks =
        Stream.map(1..2, fn n ->
          if n == 2 do
            send(test, {:blocks, self()})
            Process.sleep(:infinity)
          end

          n
        end)

      assert Snex.pyeval(inp, "return next(rows)", %{"rows" => Serde.stream(blocks)}) == {:ok, 1}
      assert_receive {:blocks, producer}, 60_000
      monitor = Process.monitor(producer)
      assert_receive {:DOWN, ^monitor, :process, ^producer, :killed}, 60_000
    end
  end

  describe "what goes wrong in between is an ElixirError:" do
    @code """
    await snex.send(pid, "ready" if next(rows) == 0 else "?")
    await wait()
    try:
        for row in rows: pass
    except snex.ElixirError as error:
        return error.kind, str(error), list(rows)
    """

    test "the process that runs the enumerable is killed", %{inp: inp} do
      test = self()
      slow = Stream.map(numbers(), fn n -> if n < 1, do: n, else: block(test) end)
      vars = %{"rows" => Serde.stream(slow), "pid" => test, "wait" => fn -> await_go(test) end}
      task = Task.async(fn -> Snex.pyeval(inp, @code, vars, timeout: 60_000) end)
      assert_receive "ready", 60_000
      assert_receive {:blocks, producer}, 60_000
      Process.exit(producer, :kill)
      assert_receive {:waits, waiting}, 60_000
      send(waiting, :go)
      assert Task.await(task, 60_000) == {:ok, {"exit", "** (exit) killed", []}}
    end

    test "the process that feeds Python is killed, and the one that runs the enumerable with it", %{inp: inp} do
      test = self()
      vars = %{"rows" => Serde.stream(numbers()), "pid" => test, "wait" => fn -> await_go(test) end}
      task = Task.async(fn -> Snex.pyeval(inp, @code, vars, timeout: 60_000) end)
      assert_receive "ready", 60_000
      assert_receive {:begun, producer}, 60_000
      monitor = Process.monitor(producer)
      {:links, [feeder]} = Process.info(producer, :links)
      Process.exit(feeder, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^producer, :killed}, 60_000
      assert_receive {:waits, waiting}, 60_000
      send(waiting, :go)
      assert Task.await(task, 60_000) == {:ok, {"exit", "** (exit) killed", []}}
    end
  end

  describe "a stream that Python never gets to see" do
    # The feeders of an interpreter.
    defp feeders(inp) do
      for pid <- Process.list(), Process.info(pid, :label) == {:label, {Snex.Source.Feeder, inp}}, do: pid
    end

    test "is closed when nobody waits any more for the call that returns it", %{inp: inp} do
      test = self()

      code = """
      import asyncio
      task = asyncio.create_task(f())
      await asyncio.sleep(0)
      await snex.send(pid, "called")
      await wait()
      task.cancel()
      await wait()
      """

      f = fn ->
        send(test, {:f, self()})
        receive(do: (:return -> [Serde.stream(numbers(test)), Serde.stream(numbers(test))]))
      end

      vars = %{"f" => f, "pid" => test, "wait" => fn -> await_go(test) end}
      task = Task.async(fn -> Snex.pyeval(inp, code, vars, timeout: 60_000) end)
      assert_receive {:f, returning}, 60_000
      assert_receive {:waits, first}, 60_000
      send(first, :go)
      assert_receive {:waits, second}, 60_000
      monitor = Process.monitor(returning)
      send(returning, :return)
      assert_receive {:DOWN, ^monitor, :process, ^returning, :normal}, 60_000
      eventually(fn -> feeders(inp) == [] end)
      send(second, :go)
      assert Task.await(task, 60_000) == {:ok, nil}
      refute_received {:begun, _producer}
    end

    test "is closed when what it comes with cannot be loaded", %{inp: inp} do
      bad = [Serde.object("builtins", "int", ["x"]), Serde.stream(1..3)]
      worse = [Serde.stream(1..3), Serde.object("builtins", "int", ["x"]), Serde.stream(1..3)]

      for value <- [bad, worse] do
        assert {:error, %Error{code: :python_runtime_error}} = Snex.pyeval(inp, "return x", %{"x" => value})
        eventually(fn -> feeders(inp) == [] end)

        code = "try:\n  await f()\nexcept ValueError:\n  await wait()"
        test = self()
        vars = %{"f" => fn -> value end, "wait" => fn -> await_go(test) end}
        task = Task.async(fn -> Snex.pyeval(inp, code, vars, timeout: 60_000) end)
        assert_receive {:waits, waiting}, 60_000
        eventually(fn -> feeders(inp) == [] end)
        send(waiting, :go)
        assert Task.await(task, 60_000) == {:ok, nil}
      end
    end

    test "is closed when the call cannot be made", %{inp: inp} do
      assert_raise ArgumentError, fn ->
        Snex.pyeval(inp, "return x", %{"x" => Serde.stream(1..3), "y" => %Serde.Float{value: "none"}})
      end

      other = start_interpreter!()
      {:ok, foreign} = Snex.call(other, "object", [], returns: :object)

      assert_raise ArgumentError, fn ->
        Snex.pyeval(inp, "return x", %{"x" => [Serde.stream(1..3), ~D[2026-11-27], foreign]})
      end

      eventually(fn -> feeders(inp) == [] end)
    end
  end

  test "items that find the queue towards Python full wait for room, and arrive", %{inp: inp} do
    test = self()

    numbers =
      Stream.resource(
        fn -> 1 end,
        fn number ->
          send(test, {:asked, self(), number})
          receive do: ({:go, count} -> {Enum.to_list(number..(number + count - 1)), number + count})
        end,
        fn _ -> nil end
      )

    code = "await begun(next(rows))\nreturn [row for _, row in zip(range(1000), rows)]"
    begun = &send(test, {:begun, &1})

    reader =
      Task.async(fn ->
        Snex.pyeval(inp, code, %{"rows" => Serde.stream(numbers), "begun" => begun}, timeout: 60_000)
      end)

    assert_receive {:asked, producer, 1}, 60_000
    send(producer, {:go, 1})
    assert_receive {:begun, 1}, 60_000
    assert_receive {:asked, ^producer, 2}, 60_000
    {:links, [feeder]} = Process.info(producer, :links)

    os_pid = to_string(Interpreter.os_pid(inp))
    {_, 0} = System.cmd("kill", ["-STOP", os_pid])

    large =
      for _ <- 1..3,
          do:
            Task.async(fn ->
              Snex.pyeval(inp, "return len(x)", %{"x" => :binary.copy(<<0>>, 8_000_000)}, timeout: 60_000)
            end)

    eventually(fn -> Interpreter.info(inp).queued > 8_000_000 end)
    send(producer, {:go, 1000})
    # All of them are at the feeder, which can't hand them on.
    assert_receive {:asked, ^producer, 1002}, 60_000
    eventually(fn -> :sys.get_state(feeder).waiting != nil end)
    {_, 0} = System.cmd("kill", ["-CONT", os_pid])

    assert Task.await(reader, 60_000) == {:ok, Enum.to_list(2..1001)}
    for task <- large, do: assert(Task.await(task, 60_000) == {:ok, 8_000_000})
  end

  test "a forked child is told that the stream is not its own", %{inp: inp} do
    code = """
    import os
    first = next(rows)
    r, w = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            list(rows)
        except RuntimeError as error:
            os.write(w, str(error).encode())
        rows.close()
        os._exit(0)
    os.close(w)
    os.waitpid(child, 0)
    return first, os.read(r, 1000).decode(), next(rows)
    """

    slow = Stream.map(numbers(), & &1)

    assert {:ok, {0, message, 1}} =
             Snex.pyeval(inp, code, %{"rows" => Serde.stream(slow, demand: 1)}, timeout: 60_000)

    assert message =~ "forked"
  end
end
