defmodule Snex.InterpreterTest do
  use Snex.Case, async: true

  import ExUnit.CaptureLog

  doctest Snex.Interpreter

  setup do
    Process.flag(:trap_exit, true)
    :ok
  end

  describe "an interpreter process" do
    test "has a name of any kind, by which os_pid, info and stop reach it" do
      for {server, pid} <- start_named_interpreters!() do
        assert Interpreter.os_pid(server) == Interpreter.os_pid(pid)
        assert Interpreter.info(server).os_pid == Interpreter.os_pid(pid)
      end

      for name <- [:"stopped_#{System.unique_integer([:positive])}", {:global, make_ref()}] do
        {:ok, inp} = Interpreter.start_link(name: name)
        assert Interpreter.stop(name) == :ok
        refute Process.alive?(inp)
      end
    end

    test "has a child_spec whose id is its name, or the module" do
      assert %{id: Interpreter, start: {Interpreter, :start_link, [[]]}} = Interpreter.child_spec([])
      assert %{id: :mine} = Interpreter.child_spec(name: :mine)
    end

    test "works under a supervisor, which restarts it" do
      name = :"supervised_#{System.unique_integer([:positive])}"
      start_supervised!({Interpreter, name: name})
      first = Interpreter.os_pid(name)
      monitor = Process.monitor(name)
      System.cmd("kill", ["-KILL", to_string(first)])
      assert_receive {:DOWN, ^monitor, :process, _, %Error{code: :interpreter_exited}}, 60_000
      eventually(fn -> is_pid(Process.whereis(name)) end)
      assert Snex.pyeval(name, "return 1") == {:ok, 1}
      refute Interpreter.os_pid(name) == first
    end

    test "that is killed takes Python with it" do
      {:ok, inp} = Interpreter.start_link()
      os_pid = Interpreter.os_pid(inp)
      Process.exit(inp, :kill)
      assert_receive {:EXIT, ^inp, :killed}
      await_gone([os_pid])
      assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.pyeval(inp, "return 1")
    end
  end

  describe "info" do
    test "tells Python's version, implementation, executable, encoder and os_pid, uptime, requests, environments, memory" do
      inp = start_interpreter!()
      {:ok, env} = Snex.make_env(inp)

      {:ok, {version, executable}} =
        Snex.pyeval(env, "import sys; return sys.version.split()[0], sys.executable")

      test = self()

      waiting =
        Task.async(fn ->
          code = "import asyncio; done = asyncio.Event(); await snex.send(test, 'here'); await done.wait()"
          Snex.pyeval(env, code, %{"test" => test}, timeout: :infinity)
        end)

      assert_receive "here", 60_000
      info = Interpreter.info(inp)
      assert %{python: ^version, executable: ^executable, environments: 1, requests_in_flight: 1} = info
      assert info.implementation in ["CPython", "PyPy"]
      assert info.requests_served >= 2
      assert info.os_pid == Interpreter.os_pid(inp)
      assert info.uptime >= 0
      assert info.memory > 1_000_000
      assert info.encoder in ["pure", "native"]
      {:ok, nil} = Snex.pyeval(env, "done.set()")
      assert Task.await(waiting) == {:ok, nil}
      assert Interpreter.info(inp).requests_in_flight == 0
    end

    test "counts the resident memory of the whole process tree" do
      inp = start_interpreter!()
      before = Interpreter.info(inp).memory
      size = 200_000_000

      code = """
      import subprocess, sys
      script = f"x = bytearray(b'x') * {size}; print('ready', flush=True); input()"
      child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
      child.stdout.readline()
      """

      assert Snex.pyeval(inp, code, %{"size" => size}, timeout: 60_000) == {:ok, nil}
      assert Interpreter.info(inp).memory > before + size
    end
  end

  describe "when Python ends" do
    test "by itself, the interpreter exits with its exit status and last words, and callers get the same" do
      {:ok, inp} = Interpreter.start_link()

      waiting =
        Task.async(fn ->
          Snex.pyeval(inp, "import asyncio; await asyncio.Event().wait()", timeout: :infinity)
        end)

      code = "import os, sys; print('last words', file=sys.stderr, flush=True); os._exit(3)"

      assert {:error, %Error{code: :interpreter_exited, reason: {:exit_status, 3}} = error} =
               Snex.pyeval(inp, code)

      assert error.traceback == ["last words\n"]
      assert {:error, ^error} = Task.await(waiting)
      assert_receive {:EXIT, ^inp, ^error}, 60_000
    end

    test "by a signal, the exit status is 128 and its number, and the error has its name" do
      for {name, number} <- [SIGSEGV: 11, SIGKILL: 9, SIGABRT: 6] do
        {:ok, inp} = Interpreter.start_link()
        assert {:error, error} = Snex.pyeval(inp, "import os; os.kill(os.getpid(), #{number})")
        status = 128 + number
        name = to_string(name)

        assert %Error{code: :interpreter_exited, reason: {:exit_status, ^status}, exception: %{signal: ^name}} =
                 error

        assert Exception.message(error) =~ "ended by #{name} (exit status #{status})"
        assert_receive {:EXIT, ^inp, ^error}, 60_000
      end
    end

    test "by a real-time signal, the error has its number and its place among them, and nothing is left" do
      {:ok, inp} = Interpreter.start_link()
      code = "import subprocess; return subprocess.Popen(['sleep', '1000'], start_new_session=True).pid"
      {:ok, child} = Snex.pyeval(inp, code)
      assert {:error, error} = Snex.pyeval(inp, "import os; os.kill(os.getpid(), 40)")
      assert %Error{code: :interpreter_exited, reason: {:exit_status, 168}} = error
      assert error.exception == %{signal: "signal 40 (SIGRTMIN+6)"}
      assert Exception.message(error) =~ "ended by signal 40 (SIGRTMIN+6)"
      assert_receive {:EXIT, ^inp, ^error}, 60_000
      await_gone([child])
    end

    test "the error has the last lines of stderr, of Python and of C code" do
      {:ok, inp} = Interpreter.start_link(output: :discard)

      code = """
      import os, sys
      for n in range(100):
          print("line", n, file=sys.stderr)
      os.write(2, b"from C\\n")
      os._exit(1)
      """

      assert {:error, %Error{traceback: lines} = error} = Snex.pyeval(inp, code)
      assert lines == Enum.map(81..99, &"line #{&1}\n") ++ ["from C\n"]
      assert Exception.message(error) =~ "Python exited with status 1\n\nline 81\n"
      assert_receive {:EXIT, ^inp, ^error}, 60_000
    end
  end

  describe "stop" do
    test "returns once Python and everything it started is gone and reaped; pending callers get the reason" do
      {:ok, inp} = Interpreter.start_link()

      {:ok, child} =
        Snex.pyeval(
          inp,
          "import subprocess; return subprocess.Popen(['sleep', '1000'], start_new_session=True).pid"
        )

      os_pid = Interpreter.os_pid(inp)
      waiting = pending_call(inp)
      assert Interpreter.stop(inp, :shutdown) == :ok
      refute exists?(os_pid)
      refute exists?(child)
      assert Task.await(waiting) == {:error, %Error{code: :call_failed, reason: :shutdown}}
    end

    test "ends the processes that work for the interpreter, whatever the reason" do
      for reason <- [:normal, :shutdown] do
        {:ok, inp} = Interpreter.start_link()
        {:links, links} = Process.info(inp, :links)
        helpers = links -- [self()]
        assert length(helpers) == 2
        monitors = for pid <- helpers, do: Process.monitor(pid)
        Interpreter.stop(inp, reason)
        for monitor <- monitors, do: assert_receive({:DOWN, ^monitor, :process, _pid, _reason}, 60_000)
      end
    end

    test "has stop/1, stop/2 and stop/3: with a reason, :normal by default, and a timeout, none by default" do
      for {stop, reason} <- [
            {&Interpreter.stop/1, :normal},
            {&Interpreter.stop(&1, :shutdown), :shutdown},
            {&Interpreter.stop(&1, {:shutdown, :why}, 60_000), {:shutdown, :why}}
          ] do
        {:ok, inp} = Interpreter.start_link()
        pending = pending_call(inp)
        assert stop.(inp) == :ok
        assert_received {:EXIT, ^inp, ^reason}
        assert Task.await(pending) == {:error, %Error{code: :call_failed, reason: reason}}
      end
    end

    test "is :ok for an interpreter that is gone, that never was, or whose registry is not there" do
      {:ok, inp} = Interpreter.start_link(name: :stopped_before)
      assert Interpreter.stop(inp) == :ok
      gone = [inp, :stopped_before, {:global, make_ref()}, {:via, Registry, {NoSuch, :x}}, {:nobody, node()}]
      for server <- gone, do: assert(Interpreter.stop(server) == :ok)
    end

    test "is :ok for all who ask at once, and while Python ends by itself" do
      capture_log(fn ->
        for round <- 1..10 do
          {:ok, inp} = Interpreter.start_link(stop_timeout: 0)
          os_pid = Interpreter.os_pid(inp)

          stops =
            for n <- 1..5,
                do: Task.async(fn -> Interpreter.stop(inp, Enum.at([:normal, :shutdown], rem(n, 2))) end)

          if rem(round, 2) == 0, do: System.cmd("kill", ["-KILL", to_string(os_pid)])
          assert Task.await_many(stops, 60_000) == List.duplicate(:ok, 5)
          assert_receive {:EXIT, ^inp, _reason}, 60_000
        end
      end)
    end

    test "exits when its timeout is over, and what it began goes on" do
      {:ok, inp} = Interpreter.start_link(stop_timeout: 1_000)

      code =
        "import subprocess; return subprocess.Popen(['sh', '-c', 'trap : TERM; while :; do sleep 0.1; done']).pid"

      {:ok, child} = Snex.pyeval(inp, code)
      assert {:timeout, _} = catch_exit(Interpreter.stop(inp, :normal, 0))
      assert_receive {:EXIT, ^inp, :normal}, 60_000
      refute exists?(child)
    end

    # A call that waits for an answer, and has begun to.
    defp pending_call(inp) do
      test = self()

      task =
        Task.async(fn ->
          code = "import asyncio; await snex.send(test, 'waiting'); await asyncio.Event().wait()"
          Snex.pyeval(inp, code, %{"test" => test}, timeout: :infinity)
        end)

      assert_receive "waiting", 60_000
      task
    end

    test "lets code clean up within the grace" do
      path = Path.join(System.tmp_dir!(), "snex-clean-#{System.unique_integer([:positive])}")
      on_exit(fn -> File.rm(path) end)
      {:ok, inp} = Interpreter.start_link()

      {:ok, nil} =
        Snex.pyeval(inp, "import atexit; atexit.register(lambda: open(path, 'a').write('atexit'))", %{
          "path" => path
        })

      Interpreter.stop(inp)
      assert File.read!(path) == "atexit"
    end

    test "interrupts code that blocks" do
      {:ok, inp} = Interpreter.start_link(stop_timeout: 60_000)
      test = self()

      blocked =
        Task.async(fn ->
          Snex.pyeval(
            inp,
            "import time; await snex.send(test, 'blocking'); time.sleep(1000)",
            %{"test" => test},
            timeout: :infinity
          )
        end)

      assert_receive "blocking", 60_000
      # Without an interrupt this would take the whole grace, which is longer than a test may run.
      assert Interpreter.stop(inp) == :ok
      assert {:error, %Error{code: :call_failed, reason: :normal}} = Task.await(blocked)
    end
  end
end
