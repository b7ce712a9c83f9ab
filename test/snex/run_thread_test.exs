defmodule Snex.RunThreadTest do
  use Snex.Case, async: true

  import ExUnit.CaptureIO
  import ExUnit.CaptureLog

  test "blocking code in a thread lets other callers be served" do
    inp = start_interpreter!()
    env = Snex.make_env!(inp)
    nil = Snex.pyeval!(env, "import threading; gate = threading.Event()")

    blocking =
      Task.async(fn -> Snex.pyeval(env, "gate.wait(); return 'through'", run: :thread, timeout: 60_000) end)

    assert Snex.pyeval(env, "return 1", timeout: 60_000) == {:ok, 1}
    assert Snex.pyeval(env, "return 2", run: :thread, timeout: 60_000) == {:ok, 2}
    nil = Snex.pyeval!(env, "gate.set()")
    assert Task.await(blocking, :infinity) == {:ok, "through"}
  end

  test "asyncio.run, await, call_sync and send_sync work there" do
    inp = start_interpreter!()

    for code <- [
          "import asyncio\nreturn asyncio.run(snex.call('Elixir.Enum', 'sum', [[1, 2]]))",
          "return await Elixir.Enum.sum([1, 2])",
          "snex.send_sync(pid, 'sent')\nreturn snex.call_sync('Elixir.Enum', 'sum', [[1, 2]])"
        ] do
      assert Snex.pyeval(inp, code, %{"pid" => self()}, run: :thread, timeout: 60_000) == {:ok, 3}
    end

    assert_received "sent"
  end

  test "what is printed there belongs to the caller" do
    inp = start_interpreter!()
    print = fn -> {:ok, nil} = Snex.pyeval(inp, "print('from a thread')", run: :thread, timeout: 60_000) end
    assert capture_io(print) == "from a thread\n"
  end

  test "a timeout cancels it, and its finally blocks run" do
    inp = start_interpreter!()
    env = Snex.make_env!(inp)

    for {code, name} <- [
          {"while True: time.sleep(0.001)", "Cancelled"},
          {"asyncio.run(asyncio.sleep(1000))", "CancelledError"},
          {"snex.call_sync('timer', 'sleep', [snex.Atom('infinity')])", "Cancelled"}
        ] do
      code = """
      import asyncio, time
      try:
          #{code}
      except BaseException as e: name = type(e).__name__; raise
      finally: snex.send_sync(test, "ended")
      """

      assert {:error, %Error{code: :response_timeout}} =
               Snex.pyeval(env, code, %{"test" => self()}, run: :thread, timeout: 500)

      assert_receive "ended", 60_000
      assert Snex.pyeval!(env, "return name", timeout: 60_000) == name
    end
  end

  test "when the caller is killed, the thread is cancelled" do
    inp = start_interpreter!()

    code = """
    import time
    try:
        snex.send_sync(test, "running")
        while True: time.sleep(0.001)
    finally:
        snex.send_sync(test, "ended")
    """

    vars = %{"test" => self()}
    pid = spawn(fn -> Snex.pyeval(inp, code, vars, run: :thread, timeout: :infinity) end)
    assert_receive "running", 60_000
    Process.exit(pid, :kill)
    assert_receive "ended", 60_000
  end

  test "C code in a thread that does not return counts as stuck, although the event loop answers" do
    inp = start_interpreter!(on_stuck: :report)
    env = Snex.make_env!(inp)
    nil = Snex.pyeval!(env, "import threading; lock = threading.Lock(); lock.acquire()")

    log =
      capture_log(fn ->
        assert {:error, %Error{code: :response_timeout}} =
                 Snex.pyeval(env, "lock.acquire()", run: :thread, timeout: 100)

        eventually(fn -> :sys.get_state(inp).stuck != %{} end)
        assert Snex.pyeval(env, "lock.release(); return 1", timeout: 60_000) == {:ok, 1}
      end)

    assert log =~ "is stuck: request"
  end

  test "anything else than :loop and :thread is refused" do
    assert_raise ArgumentError, ~r/:run/, fn -> Snex.pyeval(self(), "return 1", run: :process) end
  end
end
