defmodule Snex.Interpreter.LimitsTest do
  use Snex.Case, async: true

  import ExUnit.CaptureLog

  @gib 1024 * 1024 * 1024

  setup do
    Process.flag(:trap_exit, true)
    {_name, python} = hd(pythons())
    {:ok, python: python}
  end

  # What a child of Python's may use, as a shell says it.
  defp ulimit(inp, option) do
    code =
      "import subprocess; return subprocess.check_output(['sh', '-c', 'ulimit ' + option], text=True).strip()"

    {:ok, text} = Snex.pyeval(inp, code, %{"option" => option})
    text
  end

  test "memory: what does not fit is an error of that call, for Python and for what it starts", context do
    inp = start_interpreter!(python: context.python, limits: [memory: @gib], on_memory_limit: :keep)
    assert {:error, error} = Snex.pyeval(inp, "return len(bytearray(2 * gib))", %{"gib" => @gib})
    assert error.exception.type == "MemoryError"
    assert Snex.pyeval(inp, "return len(bytearray(1000))") == {:ok, 1000}

    # There is room for the value, and none for its encoding.
    for code <- [
          "['x' * 1000] * 2_000_000",
          "[{b'x' * 1000: 1, 1: 2}] * 2_000_000",
          "[['x' * 60_000] * 40_000]"
        ] do
      assert {:error, error} = Snex.pyeval(inp, "return #{code}", timeout: 60_000)
      assert error.exception.type == "MemoryError"
    end

    assert ulimit(inp, "-v") == "#{div(@gib, 1024)}"

    code =
      "import subprocess, sys; return subprocess.run([sys.executable, '-c', f'bytearray({2 * gib})']).returncode"

    assert Snex.pyeval(inp, code, %{"gib" => @gib}) == {:ok, 1}

    # Without the limit, there would have been room: address space that nobody touches, so it costs no time.
    code = "import mmap; return len(mmap.mmap(-1, 2 * gib))"
    assert {:error, %Error{exception: %{type: "OSError"}}} = Snex.pyeval(inp, code, %{"gib" => @gib})
    free = start_interpreter!(python: context.python)
    assert Snex.pyeval(free, code, %{"gib" => @gib}) == {:ok, 2 * @gib}
  end

  test "memory: the interpreter ends after the call that had none, and its supervisor starts another",
       context do
    name = :"limited_#{System.unique_integer([:positive])}"
    start_supervised!({Interpreter, name: name, python: context.python, limits: [memory: @gib]})
    monitor = Process.monitor(name)

    capture_log(fn ->
      assert {:error, %Error{exception: %{type: "MemoryError"}}} = Snex.pyeval(name, "x = bytearray(1 << 32)")
      assert_receive {:DOWN, ^monitor, :process, _, %Error{reason: :memory_limit} = error}, 60_000
      assert error.code == :interpreter_exited
      assert Exception.message(error) =~ ":on_memory_limit"
    end)

    eventually(fn -> match?({:ok, 1}, Snex.pyeval(name, "return 1")) end)
  end

  @tag :slow
  test "cpu: Python ends when it has used its time, even if it ignores the first signal", context do
    busy = "while True: pass"

    for {code, status, signal} <- [
          {busy, 152, "SIGXCPU"},
          {"import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n" <> busy, 137, "SIGKILL"}
        ] do
      {:ok, inp} = Interpreter.start_link(python: context.python, limits: [cpu: 1])
      assert {:error, error} = Snex.pyeval(inp, code, timeout: :infinity)
      assert %Error{code: :interpreter_exited, reason: {:exit_status, ^status}} = error
      assert error.exception.signal == signal
      assert_receive {:EXIT, ^inp, %Error{code: :interpreter_exited}}, 60_000
    end
  end

  test "open_files: one more is an error of that call", context do
    inp = start_interpreter!(python: context.python, limits: [open_files: 40])

    code = """
    import errno
    files = []
    try:
        while True:
            files.append(open("/dev/null"))
    except OSError as error:
        return errno.errorcode[error.errno], len(files) < 40
    """

    assert Snex.pyeval(inp, code) == {:ok, {"EMFILE", true}}
    assert Snex.pyeval(inp, "return len(open('/dev/null').read())") == {:ok, 0}
    assert ulimit(inp, "-n") == "40"
  end

  test "nice: is added to that of the VM", context do
    code = "import os; return os.nice(0)"
    inp = start_interpreter!(python: context.python)
    {:ok, usual} = Snex.pyeval(inp, code)
    inp = start_interpreter!(python: context.python, limits: [nice: 5])
    assert Snex.pyeval(inp, code) == {:ok, min(usual + 5, 19)}
  end
end
