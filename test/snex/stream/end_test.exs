defmodule Snex.Stream.EndTest do
  # Streams whose end comes from this side, or from an interpreter that is gone: generators are closed, and nothing is lost.
  use Snex.Case, async: true

  @moduletag :capture_log

  # How a generator has ended: "closed", "cancelled", or the name of another exception.
  @generators %{
    "sync" => """
    try:
        while True: yield 1
    except BaseException as e: how = type(e).__name__; raise
    finally: snex.send_sync(test, how)
    """,
    "async" => """
    import asyncio
    try:
        while True:
            await asyncio.sleep(0)
            yield 1
    except BaseException as e: how = type(e).__name__; raise
    finally: await snex.send(test, how)
    """,
    # One that has nothing more to say for a while.
    "blocking" => """
    import time
    try:
        yield 1
        while True: time.sleep(0.001)
    except BaseException as e: how = type(e).__name__; raise
    finally: snex.send_sync(test, how)
    """,
    "waiting" => """
    import asyncio
    try:
        yield 1
        await asyncio.Event().wait()
    except BaseException as e: how = type(e).__name__; raise
    finally: await snex.send(test, how)
    """
  }

  @ends ["GeneratorExit", "Cancelled", "CancelledError"]

  setup do
    {:ok, inp: start_interpreter!()}
  end

  defp endless(inp, name, opts \\ []), do: Snex.stream(inp, @generators[name], %{"test" => self()}, opts)

  defp assert_closed(inp, name) do
    assert_receive how when how in @ends, 60_000
    if name in ["sync"], do: assert(how == "GeneratorExit")
    assert_rest(inp)
  end

  defp assert_rest(inp) do
    eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
    eventually(fn -> Snex.pyeval!(inp, "return 1") == 1 end)
    refute_received _
  end

  for name <- Map.keys(@generators), run <- [:auto, :thread, :loop], {name, run} != {"blocking", :loop} do
    test "Enum.take/2 closes a generator (#{name}, run: #{inspect(run)})", %{inp: inp} do
      assert inp |> endless(unquote(name), run: unquote(run)) |> Enum.take(1) == [1]
      assert_closed(inp, unquote(name))
    end

    test "a consumer that is killed closes a generator (#{name}, run: #{inspect(run)})", %{inp: inp} do
      stream = endless(inp, unquote(name), run: unquote(run))
      test = self()

      consumer =
        spawn(fn ->
          Enum.each(stream, fn 1 ->
            send(test, {:got, self()})
            receive do: (:go -> nil)
          end)
        end)

      assert_receive {:got, ^consumer}, 60_000
      # In the hand of the consumer, or while it waits for the next one.
      if Enum.random([true, false]), do: send(consumer, :go)
      Process.exit(consumer, :kill)
      received_all({:got, consumer})
      assert_closed(inp, unquote(name))
    end
  end

  defp received_all(message) do
    receive do
      ^message -> received_all(message)
    after
      0 -> :ok
    end
  end

  test "consumers that are killed at any moment, and those that want no more, leave no generator open" do
    script = """
    opened = closed = 0

    def sync():
        global opened, closed
        opened += 1
        try:
            while True: yield 1
        finally: closed += 1

    async def later():
        global opened, closed
        opened += 1
        try:
            while True: yield 1
        finally: closed += 1

    def left():
        return opened - closed
    """

    inp = start_interpreter!(init_script: script)

    1..400
    |> Task.async_stream(
      fn round ->
        source = {Enum.at(["sync", "later"], rem(round, 2)), []}

        opts = [
          demand: Enum.at([1, 7, 256], rem(round, 3)),
          run: Enum.at([:auto, :thread, :loop], rem(round, 5) |> min(2))
        ]

        stream = Snex.stream(inp, source, opts)

        if rem(round, 4) == 0 do
          Enum.take(stream, round)
        else
          consumer = spawn(fn -> Enum.each(stream, fn 1 -> :ok end) end)
          for _ <- 1..rem(round * 37, 2_000)//1, do: :erlang.yield()
          Process.exit(consumer, :kill)
        end
      end,
      timeout: :infinity,
      max_concurrency: 8
    )
    |> Stream.run()

    eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
    eventually(fn -> Snex.call!(inp, "left", [], timeout: 60_000) == 0 end)
    assert Snex.get!(inp, "opened") > 100
  end

  test "an exception, an exit and a throw in the consumer close it", %{inp: inp} do
    for kind <- [:error, :exit, :throw] do
      stream = endless(inp, "sync")

      assert catch_it(fn -> Enum.each(stream, fn 1 -> :erlang.raise(kind, :mine, []) end) end) ==
               {kind, :mine}

      assert_closed(inp, "sync")
    end
  end

  defp catch_it(fun) do
    fun.()
  catch
    kind, reason -> {kind, reason}
  end

  test "Stream.take_while/2, Enum.find/2 and a halted zip close it", %{inp: inp} do
    assert inp |> endless("sync") |> Stream.take_while(&(&1 == 2)) |> Enum.to_list() == []
    assert_closed(inp, "sync")
    assert inp |> endless("sync") |> Enum.find(&(&1 == 1)) == 1
    assert_closed(inp, "sync")
    assert inp |> endless("sync") |> Stream.zip([:a, :b]) |> Enum.to_list() == [{1, :a}, {1, :b}]
    assert_closed(inp, "sync")
  end

  test "one that is suspended is closed when its process ends", %{inp: inp} do
    stream = endless(inp, "sync")

    Task.await(
      Task.async(fn ->
        {:suspended, 1, _go_on} =
          Enumerable.reduce(stream, {:cont, nil}, fn item, _acc -> {:suspend, item} end)

        nil
      end),
      :infinity
    )

    assert_closed(inp, "sync")
  end

  test "a generator that ignores it, or raises meanwhile, disturbs nobody" do
    # What Python says of it.
    inp = start_interpreter!(output: self())

    for cleanup <- ["except GeneratorExit: yield 2", "finally: raise ValueError('mine')"] do
      code = "try:\n    while True: yield 1\n#{cleanup}"
      assert inp |> Snex.stream(code) |> Enum.take(3) == [1, 1, 1]
      eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
      assert_receive {:snex_output, ^inp, :stderr, said}, 60_000
      assert said =~ "Exception ignored while a generator was closed"
    end
  end

  test "finally blocks may still print, call, and take their time", %{inp: inp} do
    code = """
    import asyncio
    try:
        while True:
            await asyncio.sleep(0)
            yield 1
    finally:
        await asyncio.sleep(0.05)
        await snex.send(test, await Elixir.Enum.sum([1, 2]))
    """

    assert inp |> Snex.stream(code, %{"test" => self()}) |> Enum.take(2) == [1, 1]
    assert_receive 3, 60_000
    assert_rest(inp)
  end

  test "what has arrived comes before the error of an interpreter that is killed" do
    for generator <- ["yield from range(100)", "for x in range(100):\n  await asyncio.sleep(0)\n  yield x"] do
      Process.flag(:trap_exit, true)
      {:ok, inp} = Interpreter.start_link()
      env = Snex.make_env!(inp)
      pid = Interpreter.os_pid(inp)
      code = "import asyncio, os, signal\n#{generator}\nos.kill(os.getpid(), signal.SIGKILL)"
      test = self()

      error =
        catch_error(
          env
          |> Snex.stream(code)
          |> Enum.each(fn x ->
            # All items have been sent before the consumer takes the second one.
            if x == 0, do: await_gone([pid])
            send(test, {:item, x})
          end)
        )

      assert %Error{code: :interpreter_exited, reason: {:exit_status, 137}} = error
      items = received([])
      # Those that were not sent when it ended are lost; there is no gap.
      assert items == Enum.to_list(0..(length(items) - 1)//1)
      assert items != []
      assert_receive {:EXIT, ^inp, %Error{}}, 60_000
    end
  end

  defp received(items) do
    receive do
      {:item, item} -> received([item | items])
    after
      0 -> Enum.reverse(items)
    end
  end

  test "Interpreter.stop/1 is the error of a stream under way, which says why", %{inp: inp} do
    test = self()

    consumer =
      Task.async(fn ->
        catch_error(
          inp
          |> Snex.stream("import asyncio\nyield 1\nawait asyncio.Event().wait()")
          |> Enum.each(&send(test, {:item, &1}))
        )
      end)

    assert_receive {:item, 1}, 60_000
    Interpreter.stop(inp)
    assert %Error{code: :call_failed, reason: :normal} = Task.await(consumer, :infinity)
  end

  test "a stream waits for an interpreter that is still starting, as any call does" do
    inp = start_interpreter!(sync_start?: false, init_script: "import time; time.sleep(0.2); x = 1")
    assert inp |> Snex.stream("yield x") |> Enum.to_list() == [1]
    failing = start_supervised!({Interpreter, sync_start?: false, init_script: "1 / 0"}, restart: :temporary)
    assert %Error{code: :call_failed} = catch_error(failing |> Snex.stream("yield x") |> Enum.to_list())
  end

  test "a stream that waits for its interpreter gives up in time" do
    # Never as a copy, which runs as soon as its template does.
    inp =
      start_supervised!(
        {Interpreter, sync_start?: false, init_script: "import asyncio; await asyncio.sleep(1)"}
      )

    assert %Error{code: :response_timeout} =
             catch_error(inp |> Snex.stream("yield 1", timeout: 10) |> Enum.to_list())

    assert inp |> Snex.stream("yield 1") |> Enum.to_list() == [1]
  end

  test "more streams than :max_in_flight allows are refused" do
    inp = start_interpreter!(max_in_flight: 1)
    stream = Snex.stream(inp, "while True: yield 1", demand: 1)
    {:suspended, 1, go_on} = Enumerable.reduce(stream, {:cont, nil}, fn item, _acc -> {:suspend, item} end)
    assert %Error{code: :overloaded} = catch_error(inp |> Snex.stream("yield 1") |> Enum.to_list())
    assert {:halted, nil} = go_on.({:halt, nil})
    eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
    assert inp |> Snex.stream("yield 1") |> Enum.to_list() == [1]
  end
end
