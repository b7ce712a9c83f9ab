defmodule Snex.Interpreter.StopTest do
  # `stop` against trees that do not want to end. Not async: it measures.
  use Snex.Case

  alias Snex.ProcessTree

  @moduletag timeout: 300_000

  @stop_timeout 500
  # What is promised beyond that, and what a machine that is busy otherwise may need.
  @promised 1_000
  @allowed 10_000

  # Each starts its tree and then goes on.
  @trees %{
    "Python, which ignores SIGTERM and blocks" => """
    import signal, threading, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    await snex.send(test, "ready")
    time.sleep(1000)
    """,
    "Python in a C call that holds the GIL" => """
    await snex.send(test, "ready")
    sum(range(10 ** 15))
    """,
    "children in other sessions, without a parent, deaf to SIGTERM" => """
    import os, signal, subprocess, sys
    deaf = "import signal, time\\nfor n in 1, 2, 3, 15: signal.signal(n, signal.SIG_IGN)\\nprint(flush=True)\\ntime.sleep(1000)"
    for session in False, True:
        child = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=session, stdout=subprocess.PIPE)
        child.stdout.readline()
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.dup2(write, 1)
            os.execv(sys.executable, [sys.executable, "-c", deaf])
        os._exit(0)
    os.wait()
    os.read(read, 1)
    await snex.send(test, "ready")
    """,
    "a child that was stopped" => """
    import os, signal, subprocess
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    await snex.send(test, "ready")
    """,
    "processes that start each other again when one is killed" => """
    import os, signal, subprocess, sys
    guard = '''
    import os, signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    depth = 0
    def child():
        global depth
        pid = os.fork()
        if pid == 0:
            depth += 1
        return pid
    for _ in range(3):
        if child() == 0:
            break
    if depth == 0:
        print(flush=True)
    while depth < 40:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            signal.pause()
            continue
        if child() == 0:
            # In place of the one that is gone, in a session of its own.
            os.setsid()
    '''
    import textwrap
    bomb = subprocess.Popen([sys.executable, "-c", textwrap.dedent(guard)], start_new_session=True, stdout=subprocess.PIPE)
    bomb.stdout.readline()
    await snex.send(test, "ready")
    """,
    "a chain in which each process forks the next one and exits" => """
    import os, signal
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setsid()
        while True:
            if os.fork() != 0:
                os._exit(0)
    await snex.send(test, "ready")
    """
  }

  # Whatever Python forks holds the lock, also a process that is never there when all processes are looked at.
  @hold """
  import fcntl
  held = open(lock, "w")
  fcntl.flock(held, fcntl.LOCK_EX)
  """

  defp free?(python, lock) do
    code = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    {_, status} = System.cmd(python, ["-c", code, lock], stderr_to_stdout: true)
    status == 0
  end

  # The interpreter, and processes that are not its own although they bear the same mark.
  defp start(:started, opts), do: {elem({:ok, _} = Interpreter.start_link(opts), 1), []}

  defp start(:copy, opts) do
    {template, []} = start(:started, opts)
    {:ok, copy} = Interpreter.fork(template)
    {copy, [Interpreter.os_pid(template)]}
  end

  for {what, code} <- @trees, kind <- [:started, :copy] do
    @tag :tmp_dir
    test "stop ends #{what}, and returns when it is gone (#{kind})", %{tmp_dir: tmp_dir} do
      {_name, python} = hd(pythons())

      {inp, others} =
        start(unquote(kind), python: python, stop_timeout: @stop_timeout, output: :discard)

      {:ok, mark} = Snex.pyeval(inp, "import os; return os.environ['SNEX_TREE']")
      variable = "SNEX_TREE=" <> mark
      os_pid = Interpreter.os_pid(inp)
      lock = Path.join(tmp_dir, "lock")
      env = Snex.Env.disable_gc(Snex.make_env!(inp, %{"test" => self(), "lock" => lock}))
      {:ok, nil} = Snex.pyeval(env, @hold)
      call = Task.async(fn -> Snex.pyeval(env, unquote(code), timeout: :infinity) end)
      assert_receive "ready", 60_000
      assert ProcessTree.with_variable(variable) != []
      refute free?(python, lock)

      begun = System.monotonic_time(:millisecond)
      assert Interpreter.stop(inp) == :ok
      took = System.monotonic_time(:millisecond) - begun
      assert ProcessTree.with_variable(variable) == others
      assert free?(python, lock)
      # Reaped, too.
      refute exists?(os_pid)

      IO.puts(
        "stop with #{unquote(what)} (#{unquote(kind)}): #{took} ms, of which #{@stop_timeout} are the grace"
      )

      if took > @stop_timeout + @promised, do: IO.puts("... which is more than promised")
      assert took <= @stop_timeout + @allowed
      assert Task.await(call) in [{:ok, nil}, {:error, %Error{code: :call_failed, reason: :normal}}]
    end
  end
end
