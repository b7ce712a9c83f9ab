defmodule Snex.Interpreter.EndTest do
  # The end of Python, or of its warden, while many wait. Not async: it measures.
  use Snex.Case

  import ExUnit.CaptureLog

  alias Snex.ProcessTree

  @moduletag timeout: 300_000

  @callers 200
  @gib 1024 * 1024 * 1024

  # What takes the last of the memory, and keeps it.
  @hog """
  hog, size = None, 1 << 24
  while size >= 16:
      try:
          while True:
              hog = (hog, bytes(size))
      except MemoryError:
          size >>= 1
  """

  # Ways of Python to end: its code, and how that is reported.
  @ways [
    {"exit", "import ctypes; ctypes.CDLL(None).exit(4)", 4, nil},
    {"os._exit", "import os; os._exit(3)", 3, nil},
    {"os.abort", "import os; os.abort()", 134, "SIGABRT"},
    {"a wrong pointer", "import ctypes; ctypes.string_at(0)", 139, "SIGSEGV"},
    {"SIGKILL", "import os; os.kill(os.getpid(), 9)", 137, "SIGKILL"},
    {"a signal without a handler", "import os, signal; os.kill(os.getpid(), signal.SIGVTALRM)", 154,
     "SIGVTALRM"}
  ]

  # Callers that wait: those whose code awaits, and some that print before. Each returns what it got, when, and what else it
  # found in its mailbox.
  defp callers(inp) do
    test = self()

    tasks =
      for n <- 1..@callers do
        Task.async(fn ->
          print = if rem(n, 4) == 0, do: "print('waiting')\n", else: ""
          code = print <> "import asyncio; await snex.send(test, 'waiting'); await asyncio.Event().wait()"
          result = Snex.pyeval(inp, code, %{"test" => test}, timeout: :infinity, output: :discard)
          at = System.monotonic_time(:millisecond)
          {result, at, Process.info(self(), [:messages, :monitors])}
        end)
      end

    for _ <- tasks, do: assert_receive("waiting", 60_000)
    tasks
  end

  defp assert_all_told(tasks, begun, what) do
    results = Task.await_many(tasks, 60_000)
    took = (results |> Enum.map(&elem(&1, 1)) |> Enum.max()) - begun
    IO.puts("#{what}: #{length(results)} callers told after at most #{took} ms")
    for {_, _, info} <- results, do: assert(info == [messages: [], monitors: []])
    [result] = Enum.uniq(for {result, _, _} <- results, do: result)
    result
  end

  # In the mailbox of the test, but for the ends of its own tasks.
  defp assert_nothing_left do
    {:messages, messages} = Process.info(self(), :messages)
    assert Enum.reject(messages, &match?({:EXIT, _, :normal}, &1)) == []
  end

  setup do
    Process.flag(:trap_exit, true)
    {_name, python} = hd(pythons())
    {:ok, python: python}
  end

  for {what, code, status, signal} <- @ways do
    test "#{what}: all who wait are told how Python ended, and its last words", context do
      capture_log(fn ->
        {:ok, inp} = Interpreter.start_link(python: context.python, output: :discard)
        tasks = callers(inp)
        words = "import sys; print('last words', file=sys.stderr, flush=True)\n"
        begun = System.monotonic_time(:millisecond)
        assert {:error, error} = Snex.pyeval(inp, words <> unquote(code), timeout: :infinity)
        assert %Error{code: :interpreter_exited, reason: {:exit_status, unquote(status)}} = error
        assert error.exception[:signal] == unquote(signal)
        assert "last words\n" in error.traceback
        assert assert_all_told(tasks, begun, unquote(what)) == {:error, error}
        assert_receive {:EXIT, ^inp, ^error}, 60_000
        assert {:error, %Error{}} = Snex.pyeval(inp, "return 1")
        assert_nothing_left()
      end)
    end
  end

  test "out of memory: it is an error of the call, or Python ends and all are told", context do
    capture_log(fn ->
      {:ok, inp} =
        Interpreter.start_link(
          python: context.python,
          output: :discard,
          limits: [memory: @gib],
          on_memory_limit: :keep
        )

      {:ok, env} = Snex.make_env(inp)
      tasks = callers(inp)
      # That call alone.
      assert {:error, error} = Snex.pyeval(env, "x = bytes(1 << 31)")
      assert error.exception.type == "MemoryError"
      assert Snex.pyeval(env, "return 1") == {:ok, 1}

      # All that there is. Nobody can run without memory: not the event loop either.
      begun = System.monotonic_time(:millisecond)
      Snex.pyeval(env, @hog, timeout: :infinity)

      case Snex.pyeval(env, "return list(range(1000))", timeout: 60_000) do
        # Gone then, or by now.
        {:error, %Error{code: code}} when code in [:interpreter_exited, :call_failed] ->
          assert {:error, %Error{code: :interpreter_exited} = error} =
                   assert_all_told(tasks, begun, "out of memory")

          assert_receive {:EXIT, ^inp, ^error}, 60_000

        # A Python that has come through: with an answer, or an error of the call.
        other ->
          assert match?({:ok, _}, other) or match?({:error, %Error{code: :python_runtime_error}}, other)
          assert Interpreter.stop(inp) == :ok
          assert {:error, %Error{code: :call_failed}} = assert_all_told(tasks, begun, "out of memory")
      end
    end)
  end

  test "sys.exit and exit are errors of the call, and all others wait on", context do
    {:ok, inp} = Interpreter.start_link(python: context.python, output: :discard)
    tasks = callers(inp)

    for code <- ["import sys; sys.exit(5)", "exit(5)", "raise SystemExit(5)"] do
      assert {:error, %Error{exception: %{type: "SystemExit"}}} = Snex.pyeval(inp, code)
    end

    assert Interpreter.info(inp).requests_in_flight == @callers
    begun = System.monotonic_time(:millisecond)
    assert Interpreter.stop(inp) == :ok
    assert {:error, %Error{code: :call_failed, reason: :normal}} = assert_all_told(tasks, begun, "stop")
  end

  # Children of all sorts: in the session, in another one, whose parent is gone, and a pool.
  @family """
  import multiprocessing, os, subprocess, time
  sleeping = ["sleep", "1000"]
  children = [subprocess.Popen(sleeping), subprocess.Popen(sleeping, start_new_session=True)]
  deaf = subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 1000; done"], start_new_session=True)
  if os.fork() == 0:
      os.setsid()
      if os.fork() == 0:
          os.closerange(0, 100)
          os.execvp("sleep", sleeping)
      os._exit(0)
  os.wait()
  pool = multiprocessing.get_context("fork").Pool(2)
  """

  test "of the warden, by SIGKILL: Python and all that it started are gone, all are told, another one is started",
       context do
    capture_log(fn ->
      name = :"end_#{System.unique_integer([:positive])}"
      start_supervised!({Interpreter, name: name, python: context.python, output: :discard})
      # Otherwise the pool would go with it.
      env = Snex.Env.disable_gc(Snex.make_env!(name))
      {:ok, nil} = Snex.pyeval(env, @family)
      os_pid = Interpreter.os_pid(name)
      warden = ProcessTree.parent(os_pid)
      # Python, two children and the shell with one of its own, one that left, two of the pool.
      eventually(fn -> length(ProcessTree.descendants(warden)) == 8 end)
      tree = ProcessTree.descendants(warden)
      monitor = Process.monitor(name)
      tasks = callers(name)

      watcher = ProcessTree.watch(tree)
      begun = {System.monotonic_time(:millisecond), System.os_time(:microsecond)}
      {_, 0} = System.cmd("kill", ["-KILL", to_string(warden)])
      gone = div(ProcessTree.await_end(watcher) - elem(begun, 1), 1000)
      IO.puts("SIGKILL of the warden: #{length(tree)} processes gone after #{gone} ms")

      assert {:error, error} = assert_all_told(tasks, elem(begun, 0), "SIGKILL of the warden")

      assert %Error{code: :interpreter_exited, reason: {:exit_status, 137}, exception: %{signal: "SIGKILL"}} =
               error

      assert_receive {:DOWN, ^monitor, :process, _, ^error}, 60_000

      eventually(fn -> is_pid(Process.whereis(name)) end)
      assert Snex.pyeval(name, "return 1", timeout: 60_000) == {:ok, 1}
      assert Interpreter.os_pid(name) != os_pid
      assert_nothing_left()
    end)
  end
end
