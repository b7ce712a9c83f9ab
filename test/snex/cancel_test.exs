defmodule Snex.CancelTest do
  use Snex.Case, async: true

  import ExUnit.CaptureLog

  @blocking %{
    "a loop of pure Python" => "while True: pass",
    "time.sleep" => "import time; time.sleep(1000)",
    "a loop that catches Exception" =>
      "while True:\n    try:\n        1 / 0\n    except Exception:\n        pass",
    "code that blocks in an async function" =>
      "import asyncio, time\nawait asyncio.sleep(0)\ntime.sleep(1000)",
    "a print without end" => "while True: print('x')",
    "a result without end" =>
      "import itertools\nx = []\nfor _ in range(3_000_000): x.append([x and x[0]])\nreturn [x] * 1000"
  }

  for {what, code} <- @blocking do
    test "after a timeout, #{what} is interrupted and the next call is answered" do
      inp = start_interpreter!(output: :discard)
      assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(inp, unquote(code), timeout: 200)
      assert Snex.pyeval(inp, "return 1", timeout: 60_000) == {:ok, 1}
      refute_received _
    end
  end

  test "a cancelled call has time to clean up, and then is interrupted again" do
    inp = start_interpreter!(cleanup_timeout: 60_000)
    {:ok, env} = Snex.make_env(inp)
    {:ok, nil} = Snex.pyeval(env, "import threading, time; lock = threading.Lock()")

    code = """
    lock.acquire()
    try:
        time.sleep(1000)
    finally:
        time.sleep(0.7)
        lock.release()
    """

    assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(env, code, timeout: 200)
    assert Snex.pyeval(env, "return lock.locked()", timeout: 60_000) == {:ok, false}

    {:ok, inp} = Interpreter.start_link(cleanup_timeout: 0, on_stuck: :report)
    code = "import time\ntry: time.sleep(1000)\nfinally: time.sleep(1000)"
    assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(inp, code, timeout: 200)
    assert Snex.pyeval(inp, "return 1", timeout: 60_000) == {:ok, 1}
  end

  for action <- ["signal.SIG_DFL", "signal.SIG_IGN", "lambda *_: None"] do
    test "a library may set the handlers of SIGINT and SIGTERM to #{action}" do
      inp = start_interpreter!()

      code =
        "import signal, time\nfor n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, #{unquote(action)})"

      assert Snex.pyeval(inp, code) == {:ok, nil}

      for blocking <- ["time.sleep(1000)", code <> "\ntime.sleep(1000)"] do
        assert {:error, %Error{code: :response_timeout}} =
                 Snex.pyeval(inp, "import time\n" <> blocking, timeout: 200)

        assert Snex.pyeval(inp, "return 1", timeout: 60_000) == {:ok, 1}
      end

      assert {_, 0} = System.cmd("kill", ["-TERM", to_string(Interpreter.os_pid(inp))])
      assert Snex.pyeval(inp, "return 2", timeout: 60_000) == {:ok, 2}
    end
  end

  test "when the caller is killed, code that blocks is interrupted" do
    inp = start_interpreter!()
    test = self()

    caller =
      spawn(fn ->
        code = "import time; await snex.send(test, 'blocking'); time.sleep(1000)"
        Snex.pyeval(inp, code, %{"test" => test}, timeout: :infinity)
      end)

    assert_receive "blocking", 60_000
    Process.exit(caller, :kill)
    assert Snex.pyeval(inp, "return 1", timeout: 60_000) == {:ok, 1}
  end

  test "when the caller is killed, code that awaits is cancelled" do
    inp = start_interpreter!()
    {:ok, env} = Snex.make_env(inp)
    {:ok, nil} = Snex.pyeval(env, "import asyncio; cancelled = asyncio.Event()")
    test = self()

    pid =
      spawn(fn ->
        code = """
        try:
            await snex.send(test, "running")
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        """

        Snex.pyeval(env, code, %{"test" => test}, timeout: :infinity)
      end)

    assert_receive "running", 60_000
    Process.exit(pid, :kill)
    assert Snex.pyeval(env, "await cancelled.wait(); return True", timeout: 60_000) == {:ok, true}
    assert Interpreter.info(inp).requests_in_flight == 0
  end

  test "when the caller is killed while its variables are written, nothing is left under way" do
    inp = start_interpreter!()
    {:ok, env} = Snex.make_env(inp)
    # Large enough for a dirty scheduler, where a process may be gone before its call has come to its end.
    large = Enum.to_list(1..300_000)
    test = self()

    for round <- 1..100 do
      {pid, monitor} =
        spawn_monitor(fn ->
          # Known to the interpreter, or not yet.
          if rem(round, 2) == 0, do: Snex.pyeval(env, "return 1", timeout: :infinity)
          send(test, :now)
          Snex.pyeval(env, "import time; time.sleep(1000)", %{"x" => large}, timeout: :infinity)
        end)

      assert_receive :now, 60_000
      Process.sleep(rem(round, 10))
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}, 60_000
    end

    assert Snex.pyeval(env, "return 1", timeout: 60_000) == {:ok, 1}
    eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
  end

  test "finally blocks run, and Cancelled is no Exception" do
    inp = start_interpreter!()
    {:ok, env} = Snex.make_env(inp)

    code = """
    # Not `while True: pass`: CPython 3.11 and 3.12 raise a signal's exception at a jump back past the `try` around it.
    import time
    seen = []
    try:
        try:
            time.sleep(1000)
        except Exception:
            seen.append("exception")
    except snex.Cancelled:
        seen.append("cancelled")
        raise
    finally:
        seen.append("finally")
    """

    assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(env, code, timeout: 1_000)
    assert Snex.pyeval(env, "return seen", timeout: 60_000) == {:ok, ["cancelled", "finally"]}
  end

  test "code that awaits may take its time to clean up, and is neither interrupted nor stuck" do
    inp = start_interpreter!(on_stuck: :restart)
    {:ok, env} = Snex.make_env(inp)

    code = """
    import asyncio, time
    seen = []
    try:
        await asyncio.Event().wait()
    finally:
        for n in range(80):
            await asyncio.sleep(0.05)
            time.sleep(0.01)
        seen.append("cleaned up")
    """

    assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(env, code, timeout: 1_000)
    wait = "import asyncio\nwhile not seen: await asyncio.sleep(0.01)\nreturn seen"
    assert Snex.pyeval(env, wait, timeout: 60_000) == {:ok, ["cleaned up"]}
  end

  test "of a thousand that interleave, only the request concerned is interrupted, never its neighbour" do
    inp = start_interpreter!()

    code = """
    import asyncio, time
    for n in range(5):
        await asyncio.sleep(0)
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end: pass
    return number
    """

    # Of each three, one gives up in the middle, one is killed there, and one has to get its own answer.
    results =
      1..1_000
      |> Task.async_stream(fn number -> {number, one_of_three(inp, code, number)} end,
        max_concurrency: 24,
        timeout: :infinity
      )
      |> Enum.map(fn {:ok, pair} -> pair end)

    for {number, result} <- results do
      case rem(number, 3) do
        0 ->
          assert result == {{:ok, number}, []}

        1 ->
          assert result == {{:ok, number}, []} or
                   match?({{:error, %Error{code: :response_timeout}}, []}, result)

        2 ->
          assert result in [{{:ok, number}, []}, :killed]
      end
    end

    # That there were some of each sort.
    assert Enum.any?(results, &match?({_, {{:error, _}, []}}, &1))
    assert Enum.any?(results, &match?({_, :killed}, &1))
    assert Snex.pyeval(inp, "return 1", timeout: 60_000) == {:ok, 1}
    eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
  end

  # In a process of its own: what the call returns and what is in the mailbox then, or that it was killed before.
  defp one_of_three(inp, code, number) do
    timeout = if rem(number, 3) == 1, do: 30, else: :infinity

    {pid, monitor} =
      spawn_monitor(fn ->
        result = Snex.pyeval(inp, code, %{"number" => number}, timeout: timeout)
        exit({result, elem(Process.info(self(), :messages), 1)})
      end)

    if rem(number, 3) == 2, do: Process.send_after(self(), {:kill, pid}, 20 + rem(number, 40))

    receive do
      {:kill, ^pid} ->
        Process.exit(pid, :kill)
        receive do: ({:DOWN, ^monitor, _, _, reason} -> reason)

      {:DOWN, ^monitor, _, _, reason} ->
        reason
    end
  end

  test "an answer that comes late reaches nobody, whether the work was cancelled or left alone" do
    inp = start_interpreter!()
    {:ok, env} = Snex.make_env(inp)
    {:ok, nil} = Snex.pyeval(env, "import asyncio; go = asyncio.Event(); late = set()")

    for number <- 1..200 do
      on_timeout = if rem(number, 2) == 0, do: :cancel, else: :leave

      # Cancelled or not, it has a result; unless it was cancelled before it began.
      code = """
      try:
          await go.wait()
      except asyncio.CancelledError:
          pass
      late.add(#{number})
      return #{number}
      """

      assert {:error, %Error{code: :response_timeout}} =
               Snex.pyeval(env, code, %{}, timeout: 1, on_timeout: on_timeout)
    end

    left_alone = Enum.to_list(1..200//2)
    wait = "go.set()\nwhile not late.issuperset(wanted): await asyncio.sleep(0.001)"
    assert Snex.pyeval(env, wait, %{"wanted" => left_alone}, timeout: 60_000) == {:ok, nil}
    eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
    assert Snex.pyeval(env, "return 'after'") == {:ok, "after"}
    refute_received _

    # As close to the deadline as can be: whichever comes first, there is one result and nothing after it.
    for number <- 1..1_000 do
      result = Snex.pyeval(inp, "return number", %{"number" => number}, timeout: rem(number, 2))

      assert result == {:ok, number} or
               match?({:error, %Error{code: code}} when code in [:response_timeout, :overloaded], result)

      refute_received _
    end

    eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
    assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    refute_received _
  end

  @c_call "sum(range(10 ** 15))"

  test "on_stuck: :report: code in C that never returns is reported in the log, and Python goes on" do
    inp = start_interpreter!(on_stuck: :report, stop_timeout: 0)

    log =
      capture_log(fn ->
        assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(inp, @c_call, timeout: 1_000)
        eventually(fn -> :sys.get_state(inp).stuck != %{} end)
      end)

    assert log =~ "is stuck: request"
    refute log =~ "restart"
    assert Map.values(:sys.get_state(inp).stuck) == [nil]
  end

  for run <- [:loop, :thread] do
    test "on_stuck: code that goes on whatever is raised in it is stuck, with run: #{inspect(run)}" do
      Process.flag(:trap_exit, true)
      {:ok, inp} = Interpreter.start_link(on_stuck: :restart, cleanup_timeout: 100, stop_timeout: 0)
      code = "import time\nwhile True:\n    try: time.sleep(0.01)\n    except BaseException: pass"

      capture_log(fn ->
        assert {:error, %Error{code: :response_timeout}} =
                 Snex.pyeval(inp, code, run: unquote(run), timeout: 200)

        assert_receive {:EXIT, ^inp, %Error{code: :call_failed, reason: :stuck}}, 60_000
      end)
    end
  end

  test "on_stuck: {:restart, ms}: an interpreter that is still stuck after that time is replaced" do
    Process.flag(:trap_exit, true)
    {:ok, inp} = Interpreter.start_link(on_stuck: {:restart, 500})
    os_pid = Interpreter.os_pid(inp)

    log =
      capture_log(fn ->
        assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(inp, @c_call, timeout: 1_000)
        assert_receive {:EXIT, ^inp, %Error{code: :call_failed, reason: :stuck}}, 60_000
      end)

    assert log =~ "it is restarted unless the request returns within 500 ms"
    refute exists?(os_pid)
  end

  @tag :tmp_dir
  test "on_stuck: {:restart, ms}: one that comes back in time goes on", %{tmp_dir: tmp_dir} do
    # The default; the test takes a time that is never over.
    assert %{on_stuck: {:restart, 30_000}} = elem(Interpreter.Options.split!([]), 1)
    inp = start_interpreter!(on_stuck: {:restart, 3_600_000})
    pipe = Path.join(tmp_dir, "pipe")
    {_, 0} = System.cmd("mkfifo", [pipe])

    # A wait in C that keeps the GIL, until somebody writes to the pipe.
    code = """
    import _signal, ctypes, os, signal
    # As C code does it: `signal.pthread_sigmask` leaves the signal that interrupts alone.
    _signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    try:
        ctypes.PyDLL(None).read(os.open(pipe, os.O_RDWR), ctypes.create_string_buffer(1), 1)
    finally:
        _signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGURG})
    """

    capture_log(fn ->
      assert {:error, %Error{code: :response_timeout}} =
               Snex.pyeval(inp, code, %{"pipe" => pipe}, timeout: 1_000)

      eventually(fn -> :sys.get_state(inp).stuck != %{} end)
      assert [timer] = Map.values(:sys.get_state(inp).stuck)
      assert is_integer(Process.read_timer(timer))
      {_, 0} = System.cmd("sh", ["-c", "echo >'#{pipe}'"])
      eventually(fn -> :sys.get_state(inp).stuck == %{} end)
      assert Process.read_timer(timer) == false
    end)

    assert Snex.pyeval(inp, "return 1", timeout: 60_000) == {:ok, 1}
  end

  test "on_stuck: :restart: an interpreter that is stuck is ended, and replaced by its supervisor" do
    name = :"stuck_#{System.unique_integer([:positive])}"
    start_supervised!({Interpreter, name: name, on_stuck: :restart})
    os_pid = Interpreter.os_pid(name)
    monitor = Process.monitor(name)

    capture_log(fn ->
      other =
        Task.async(fn ->
          Snex.pyeval(name, "import asyncio; await asyncio.Event().wait()", timeout: :infinity)
        end)

      eventually(fn -> Interpreter.info(name).requests_in_flight == 1 end)
      assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(name, @c_call, timeout: 1_000)
      assert_receive {:DOWN, ^monitor, :process, _, %Error{code: :call_failed, reason: :stuck}}, 60_000
      assert Task.await(other, :infinity) == {:error, %Error{code: :call_failed, reason: :stuck}}
    end)

    refute exists?(os_pid)
    eventually(fn -> is_pid(Process.whereis(name)) end)
    assert Snex.pyeval(name, "return 1") == {:ok, 1}
  end
end
