defmodule Snex.Interpreter.OptionsTest do
  use Snex.Case, async: true

  import ExUnit.CaptureLog

  setup do
    Process.flag(:trap_exit, true)
    :ok
  end

  describe "limits" do
    test "of memory: what does not fit fails in Python, not on the machine" do
      inp = start_interpreter!(limits: [memory: 1024 * 1024 * 1024])
      assert {:error, %Error{exception: %{type: "MemoryError"}}} = Snex.pyeval(inp, "x = bytearray(4 << 30)")
      assert Snex.pyeval(inp, "return len(bytearray(1 << 20))") == {:ok, 1_048_576}
    end

    test "of open files and niceness hold for Python and its children" do
      inp = start_interpreter!(limits: [open_files: 64, nice: 3])

      code = """
      import os, resource, subprocess
      child = subprocess.check_output(["sh", "-c", "ulimit -n; nice"]).split()
      return resource.getrlimit(resource.RLIMIT_NOFILE)[0], os.nice(0), [int(n) for n in child]
      """

      assert Snex.pyeval(inp, code) == {:ok, {64, 3, [64, 3]}}
    end

    test "of processor time end a loop" do
      {:ok, inp} = Interpreter.start_link(limits: [cpu: 1])
      assert {:error, error} = Snex.pyeval(inp, "while True: pass", timeout: :infinity)
      assert %Error{code: :interpreter_exited, exception: %{signal: signal}} = error
      assert signal in ["SIGXCPU", "SIGKILL"]
      assert_receive {:EXIT, ^inp, ^error}, 60_000
    end

    test "that make no sense are named" do
      assert_raise ArgumentError, ~r/unknown limit :memori, did you mean :memory\?/, fn ->
        Interpreter.start_link(limits: [memori: 1])
      end

      assert_raise ArgumentError, ~r/the limit :cpu cannot be 0/, fn ->
        Interpreter.start_link(limits: [cpu: 0])
      end
    end
  end

  describe "allow" do
    defp call(inp, call) do
      code = "try:\n    return await #{call}\nexcept snex.ElixirError as e:\n    return str(e)"
      {:ok, result} = Snex.pyeval(inp, code)
      result
    end

    test "names modules, functions or arities, and refuses the rest by name" do
      inp = start_interpreter!(allow: [String, {Enum, :sum}, {:erlang, :abs, 1}])
      assert call(inp, "Elixir.String.upcase('a')") == "A"
      assert call(inp, "Elixir.Enum.sum([1, 2])") == 3
      assert call(inp, "snex.call('erlang', 'abs', [-1])") == 1

      assert call(inp, "Elixir.Enum.count([1])") =~
               "Enum.count/1 is not among the functions that Python may call"

      assert call(inp, "snex.call('erlang', 'abs', [])") =~ ":erlang.abs/0 is not among"
    end

    test "none refuses all, before any atom is made" do
      inp = start_interpreter!(allow: :none)
      name = "Elixir.NeverHeardOf#{System.unique_integer([:positive])}"
      assert call(inp, "snex.call('#{name}', 'fun', [])") =~ "is not among"
      assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
    end

    test "a refused cast is logged" do
      inp = start_interpreter!(allow: :none)
      test = self()

      log =
        capture_log(fn ->
          code = "await snex.cast('Elixir.System', 'halt', []); await snex.send(test, 'sent')"
          {:ok, nil} = Snex.pyeval(inp, code, %{"test" => test})
          assert_receive "sent", 60_000
        end)

      assert log =~ "System.halt/0 is not among the functions that Python may call"
    end

    test "messages may be sent whatever is allowed" do
      inp = start_interpreter!(allow: :none)
      {:ok, nil} = Snex.pyeval(inp, "await snex.send(test, 1)", %{"test" => self()})
      assert_received 1
    end
  end

  describe "atoms: :existing" do
    test "replies may name atoms that exist, and no others" do
      inp = start_interpreter!(atoms: :existing)
      assert Snex.pyeval(inp, "return snex.Atom('ok')") == {:ok, :ok}
      name = "never_heard_of_#{System.unique_integer([:positive])}"
      assert {:error, error} = Snex.pyeval(inp, "return [snex.Atom('#{name}')]")
      assert %Error{code: :internal_error, reason: reason} = error
      assert reason =~ "names an atom that does not exist"
      assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    test "holds for calls too, and the error is Python's" do
      inp = start_interpreter!(atoms: :existing)
      name = "NeverHeardOf#{System.unique_integer([:positive])}"
      code = "try:\n    await Elixir.#{name}.fun()\nexcept snex.ElixirError as e:\n    return str(e)"
      assert {:ok, message} = Snex.pyeval(inp, code)
      assert message =~ "names an atom that does not exist"
    end
  end

  describe "info" do
    test "tells about Python, its process and its requests" do
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
      {:ok, nil} = Snex.pyeval(env, "done.set()")
      assert Task.await(waiting) == {:ok, nil}
      assert Interpreter.info(inp).requests_in_flight == 0
    end
  end

  describe "a caller that dies" do
    test "has its work cancelled" do
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
  end

  describe "on_timeout" do
    test ":leave lets the work run to its end, and drops the answer" do
      inp = start_interpreter!()
      {:ok, env} = Snex.make_env(inp)
      {:ok, nil} = Snex.pyeval(env, "import asyncio; go = asyncio.Event(); done = asyncio.Event()")

      assert {:error, %Error{code: :response_timeout}} =
               Snex.pyeval(env, "await go.wait(); done.set(); return 1", timeout: 10, on_timeout: :leave)

      assert Snex.pyeval(env, "go.set(); await done.wait(); return 2") == {:ok, 2}
      refute_received _
    end
  end
end
