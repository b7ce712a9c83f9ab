defmodule Snex.InterpreterTest do
  use Snex.Case, async: true

  import ExUnit.CaptureIO

  doctest Snex.Interpreter

  setup do
    Process.flag(:trap_exit, true)
    :ok
  end

  describe "start_link" do
    test "runs Python as a process of its own, in a session of its own" do
      inp = start_interpreter!()
      {:ok, {pid, sid}} = Snex.pyeval(inp, "import os; return os.getpid(), os.getsid(0)")
      assert pid == sid
      assert Interpreter.os_pid(inp) == pid
    end

    test "takes folder, environment and label" do
      inp = start_interpreter!(cd: "/", environment: %{"ANIMAL" => "snake"}, label: :my_label)
      assert Snex.pyeval(inp, "import os; return os.getcwd(), os.environ['ANIMAL']") == {:ok, {"/", "snake"}}
      assert :proc_lib.get_label(inp) == :my_label
    end

    test "extends PYTHONPATH, and does not replace it" do
      inp = start_interpreter!(environment: %{"PYTHONPATH" => "/somewhere/else"})
      {:ok, path} = Snex.pyeval(inp, "import sys; return sys.path")
      assert "/somewhere/else" in path
      assert Enum.any?(path, &String.ends_with?(&1, "snex/priv/python"))
    end

    test "runs Python through what wrap_exec returns" do
      wrap = fn python, args -> {"env", ["WRAPPED=yes", python | args]} end
      inp = start_interpreter!(wrap_exec: wrap)
      assert Snex.pyeval(inp, "import os; return os.environ['WRAPPED']") == {:ok, "yes"}

      inp = start_interpreter!(wrap_exec: {__MODULE__, :wrap, ["tuple"]})
      assert Snex.pyeval(inp, "import os; return os.environ['WRAPPED']") == {:ok, "tuple"}
    end

    def wrap(value, python, args), do: {"env", ["WRAPPED=#{value}", python | args]}

    test "talks over standard input and output where asked to, and prints do no harm" do
      # Like ssh or docker: only the standard streams pass through.
      wrap = fn python, args ->
        {"sh", ["-c", "exec 3>&- 4>&-; cat | \"$0\" \"$@\" | cat", python | args]}
      end

      inp = start_interpreter!(port_opts: [:use_stdio], wrap_exec: wrap)
      assert Snex.pyeval(inp, "print('not a frame', flush=True); return 1") == {:ok, 1}
      large = String.duplicate("x", 1_000_000)
      assert Snex.pyeval(inp, "return x", %{"x" => large}) == {:ok, large}
    end

    test "fails with the reason of a failing init script" do
      assert {:error, %Error{code: :python_runtime_error, reason: "not today"}} =
               Interpreter.start_link(init_script: "raise RuntimeError('not today')")
    end

    test "fails when the init script takes too long, and leaves no Python behind" do
      path = Path.join(System.tmp_dir!(), "snex-pid-#{System.unique_integer([:positive])}")
      on_exit(fn -> File.rm(path) end)
      script = "import os, time\nopen(path, 'w').write(str(os.getpid()))\ntime.sleep(1000)"

      assert {:error, %Error{code: :init_script_timeout}} =
               Interpreter.start_link(
                 init_script: {script, %{"path" => path}},
                 init_script_timeout: 2_000,
                 stop_timeout: 0
               )

      refute exists?(File.read!(path))
    end

    test "fails when there is no such Python" do
      assert {:error, %Error{code: :call_failed, reason: reason}} =
               Interpreter.start_link(python: "/no/python")

      assert reason =~ "/no/python"
    end

    test "fails when the program is no interpreter, and says what it said" do
      assert {:error, error} =
               Interpreter.start_link(wrap_exec: fn _, _ -> {"sh", ["-c", "echo no luck >&2; exit 9"]} end)

      assert %Error{code: :interpreter_exited, reason: {:exit_status, 9}, traceback: ["no luck\n"]} = error
      assert Exception.message(error) =~ "Python exited with status 9\n\nno luck"
    end

    test "fails when garbage comes instead of frames, and quotes it" do
      wrap = fn _python, _args -> {"sh", ["-c", "echo this is no frame >&4; sleep 1000"]} end
      assert {:error, %Error{code: :internal_error, reason: reason}} = Interpreter.start_link(wrap_exec: wrap)
      assert reason == ~S(expected a frame, got "this is no frame\n")
    end

    test "returns at once with sync_start?: false, and calls wait for the start" do
      inp = start_interpreter!(sync_start?: false, init_script: "import time; time.sleep(0.3); ready = True")
      assert Snex.pyeval(inp, "return ready") == {:ok, true}
    end

    test "with sync_start?: false a failing start makes the process exit" do
      {:ok, inp} = Interpreter.start_link(sync_start?: false, init_script: "raise ValueError('later')")
      assert_receive {:EXIT, ^inp, %Error{reason: "later"}}, 60_000
    end

    test "names an unknown option and the nearest known one" do
      assert_raise ArgumentError, "unknown option :pyton, did you mean :python?", fn ->
        Interpreter.start_link(pyton: "python3")
      end

      assert_raise ArgumentError, ~r/unknown option :zzz; known are \[:allow,/, fn ->
        Interpreter.start_link(zzz: 1)
      end

      assert_raise ArgumentError, ~r/option :stop_timeout cannot be :never/, fn ->
        Interpreter.start_link(stop_timeout: :never)
      end
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
  end

  describe "when Python ends" do
    test "by itself, the interpreter exits with its status, and callers know at once" do
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

    test "by a signal, its name is known" do
      {:ok, inp} = Interpreter.start_link()
      assert {:error, error} = Snex.pyeval(inp, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")

      assert %Error{code: :interpreter_exited, reason: {:exit_status, 139}, exception: %{signal: "SIGSEGV"}} =
               error

      assert Exception.message(error) =~ "ended by SIGSEGV"
      assert_receive {:EXIT, ^inp, ^error}, 60_000
    end
  end

  describe "stop" do
    test "returns when Python and all it started is gone, and tells callers why" do
      {:ok, inp} = Interpreter.start_link()

      {:ok, child} =
        Snex.pyeval(
          inp,
          "import subprocess; return subprocess.Popen(['sleep', '1000'], start_new_session=True).pid"
        )

      os_pid = Interpreter.os_pid(inp)
      test = self()

      waiting =
        Task.async(fn ->
          code = "import asyncio; await snex.send(test, 'waiting'); await asyncio.Event().wait()"
          Snex.pyeval(inp, code, %{"test" => test}, timeout: :infinity)
        end)

      assert_receive "waiting", 60_000
      assert Interpreter.stop(inp, :shutdown) == :ok
      refute exists?(os_pid)
      refute exists?(child)
      assert Task.await(waiting) == {:error, %Error{code: :call_failed, reason: :shutdown}}
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

    test "a killed interpreter process takes Python with it" do
      {:ok, inp} = Interpreter.start_link()
      os_pid = Interpreter.os_pid(inp)
      Process.exit(inp, :kill)
      assert_receive {:EXIT, ^inp, :killed}
      await_gone([os_pid])
      assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.pyeval(inp, "return 1")
    end
  end

  describe "output" do
    test "goes to the interpreter's group leader, whatever its size and whole characters at a time" do
      text =
        capture_io(fn ->
          {:ok, inp} = Interpreter.start_link()
          {:ok, nil} = Snex.pyeval(inp, "for n in range(50_000): print('ä€𝄞', n)", timeout: 60_000)
          Interpreter.stop(inp)
        end)

      assert text == Enum.map_join(0..49_999, &"ä€𝄞 #{&1}\n")
    end

    test "input is at its end at once" do
      inp = start_interpreter!()
      assert {:error, %Error{exception: %{type: "EOFError"}}} = Snex.pyeval(inp, "input()")
    end
  end
end
