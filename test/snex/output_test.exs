defmodule Snex.OutputTest do
  use Snex.Case, async: true

  import ExUnit.CaptureIO
  import ExUnit.CaptureLog

  describe ":group_leader, the default: prints go to the group leader of the calling process" do
    @describetag :interpreter

    test "and are delivered before the result", %{inp: inp} do
      for n <- 1..50 do
        text =
          capture_io(fn ->
            assert Snex.pyeval(inp, "print('hello', n)\nreturn n", %{"n" => n}) == {:ok, n}
            IO.write("after")
          end)

        assert text == "hello #{n}\nafter"
      end
    end

    test "from standard error as well", %{inp: inp} do
      code = "import sys; print('one'); print('two', file=sys.stderr); print('three')"
      text = capture_io(fn -> {:ok, nil} = Snex.pyeval(inp, code) end)
      assert Enum.sort(String.split(text)) == ["one", "three", "two"]
    end

    test "also when the code raises, and when it prints no line end", %{inp: inp} do
      text = capture_io(fn -> {:error, _} = Snex.pyeval(inp, "print('last words', end='')\n1 / 0") end)
      assert text == "last words"
    end

    test "each to that of its own call, with calls interleaved on one loop", %{inp: inp} do
      code = """
      import asyncio
      for n in range(20):
          print(name, n)
          await asyncio.sleep(0)
      return name
      """

      results =
        1..30
        |> Task.async_stream(
          fn n ->
            {:ok, text} = with_captured(fn -> Snex.pyeval(inp, code, %{"name" => "call #{n}"}) end)
            {n, text}
          end,
          max_concurrency: 30
        )
        |> Enum.map(fn {:ok, pair} -> pair end)

      for {n, text} <- results, do: assert(text == Enum.map_join(0..19, &"call #{n} #{&1}\n"))
    end

    test "also those of tasks, and of threads started through asyncio.to_thread", %{inp: inp} do
      code = """
      import asyncio
      async def task(): print('task', name)
      await asyncio.gather(asyncio.to_thread(print, 'thread', name), asyncio.create_task(task()))
      """

      1..10
      |> Task.async_stream(fn n ->
        {_result, text} = with_captured(fn -> Snex.pyeval(inp, code, %{"name" => n}) end)
        assert Enum.sort(String.split(text, "\n", trim: true)) == ["task #{n}", "thread #{n}"]
      end)
      |> Enum.each(fn {:ok, true} -> :ok end)
    end

    test "each character whole and in its place, wherever chunks are cut", %{inp: inp} do
      code = "for n in range(50_000): print('ä€𝄞', n)"
      text = capture_io(fn -> {:ok, nil} = Snex.pyeval(inp, code, timeout: 60_000) end)
      assert text == Enum.map_join(0..49_999, &"ä€𝄞 #{&1}\n")
    end

    test "bytes that are not UTF-8 as U+FFFD, the work in proportion to their number" do
      destination = %{stdout: :group_leader, stderr: :group_leader}

      for bytes <- [<<0xFF>>, "é" <> <<0xC3>>, <<0xE2, 0x82>>, <<0xF0, 0x9F, 0x90, ?a>>, <<0xC0, 0x80>>] do
        work = fn times ->
          text = String.duplicate(bytes, times) <> <<0xE2, 0x82>>

          {{spent, cut}, printed} =
            with_captured(fn ->
              {:reductions, before} = Process.info(self(), :reductions)
              {:ok, cut} = Snex.Output.print(destination, self(), :stdout, text, %{}, :infinity)
              {:reductions, now} = Process.info(self(), :reductions)
              {now - before, cut}
            end)

          assert printed == String.replace_invalid(String.duplicate(bytes, times))
          assert cut == %{stdout: <<0xE2, 0x82>>}
          spent
        end

        assert work.(32 * 1024) < 16 * work.(4 * 1024)
      end
    end

    test "all of them, whole characters at a time, 100 MB", %{inp: inp} do
      code = """
      line = 'ä€𝄞' * 1000
      for n in range(12_000):
          print(line, n)
      """

      # Counts instead of keeping: what travels is not held anywhere.
      {counter, device} = counting_device()

      task =
        Task.async(fn ->
          Process.group_leader(self(), device) && Snex.pyeval(inp, code, %{}, timeout: :infinity)
        end)

      assert Task.await(task, :infinity) == {:ok, nil}
      assert counted(counter) == 12_000 * 9_000 + Enum.sum(for n <- 0..11_999, do: String.length(" #{n}\n"))
    end

    # Captures what is printed below a group leader of its own.
    defp with_captured(fun) do
      {:ok, device} = StringIO.open("")
      Process.group_leader(self(), device)
      result = fun.()
      {:ok, {_in, text}} = StringIO.close(device)
      if match?({:ok, _}, result), do: {elem(result, 0), text}, else: {result, text}
    end

    defp counting_device do
      counter = :counters.new(1, [])

      device =
        spawn_link(fn ->
          count(counter)
        end)

      {counter, device}
    end

    defp count(counter) do
      receive do
        {:io_request, from, ref, {:put_chars, :unicode, chars}} ->
          :counters.add(counter, 1, IO.iodata_length(chars))
          send(from, {:io_reply, ref, :ok})
          count(counter)
      end
    end

    defp counted(counter), do: :counters.get(counter, 1)
  end

  describe "order is kept:" do
    test "prints of stdout and stderr, and of calls one after the other, come in order" do
      inp = start_interpreter!(output: self())

      code = """
      import sys
      for n in range(100):
          print(call, n, file=sys.stderr if n % 3 == 0 else sys.stdout)
      """

      for call <- 1..3, do: {:ok, nil} = Snex.pyeval(inp, code, %{"call" => call})

      for call <- 1..3, n <- 0..99 do
        stream = if rem(n, 3) == 0, do: :stderr, else: :stdout
        line = "#{call} #{n}\n"
        assert_received {:snex_output, ^inp, received_stream, received}
        assert {received_stream, received} == {stream, line}
      end
    end
  end

  describe "a device that does not answer" do
    setup do
      # Takes requests, and keeps them.
      device = spawn_link(fn -> receive do: (:never -> :ok) end)
      {:ok, device: device, inp: start_interpreter!(output: :discard)}
    end

    test "does not hold up a caller longer than its timeout, and leaves it no message", %{
      inp: inp,
      device: device
    } do
      for code <- ["print('hello')", "while True: print('hello')"] do
        caller =
          Task.async(fn ->
            Process.group_leader(self(), device)
            result = Snex.pyeval(inp, code, timeout: 100, output: :group_leader)
            {result, Process.info(self(), :messages)}
          end)

        assert {{:error, %Error{code: :response_timeout}}, {:messages, []}} = Task.await(caller, 60_000)
      end

      assert capture_io(fn -> {:ok, nil} = Snex.pyeval(inp, "print('others')", output: :group_leader) end) ==
               "others\n"
    end

    test "answers late: the text is there, and the caller has no message", %{inp: inp} do
      {:ok, device} = StringIO.open("")
      :sys.suspend(device)

      caller =
        Task.async(fn ->
          Process.group_leader(self(), device)
          result = Snex.pyeval(inp, "print('hello')", timeout: 100, output: :group_leader)
          :sys.resume(device)
          {result, StringIO.contents(device), Process.info(self(), :messages)}
        end)

      assert {{:error, %Error{code: :response_timeout}}, {"", "hello\n"}, {:messages, []}} =
               Task.await(caller, 60_000)
    end
  end

  describe "outside of any call" do
    test "prints go to the interpreter's group leader: of tasks that outlive their call, of threads, at exit" do
      {:ok, device} = StringIO.open("")
      leader = Process.group_leader()
      Process.group_leader(self(), device)
      {:ok, inp} = Interpreter.start_link()
      Process.group_leader(self(), leader)

      code = """
      import asyncio, atexit, threading
      go = asyncio.Event()
      done = asyncio.Event()

      async def later():
          await go.wait()
          print("task")
          done.set()

      task = asyncio.create_task(later())
      atexit.register(print, "exit")
      print("now")
      """

      {:ok, env} = Snex.make_env(inp)
      assert capture_io(fn -> {:ok, nil} = Snex.pyeval(env, code) end) == "now\n"

      assert capture_io(fn -> {:ok, nil} = Snex.pyeval(env, "go.set(); await done.wait()") end) == ""

      code = "thread = threading.Thread(target=print, args=('thread',)); thread.start(); thread.join()"
      assert capture_io(fn -> {:ok, nil} = Snex.pyeval(env, code) end) in ["", "thread\n"]
      Interpreter.stop(inp)
      {:ok, {_input, text}} = StringIO.close(device)
      assert ["task" | rest] = String.split(text, "\n", trim: true)
      assert List.last(rest) == "exit"
    end
  end

  describe "what C code and child processes print" do
    test "goes to the interpreter's output, never breaks the protocol" do
      text =
        capture_io(fn ->
          {:ok, inp} = Interpreter.start_link()

          capture_io(fn ->
            {:ok, nil} =
              Snex.pyeval(
                inp,
                "import os, subprocess; os.write(1, b'raw\\n'); subprocess.run(['echo', 'child'])"
              )

            {:ok, 1} = Snex.pyeval(inp, "return 1")

            Interpreter.stop(inp)
          end)
        end)

      assert text == "raw\nchild\n"
    end
  end

  describe "the option :output" do
    test "pid: it gets {:snex_output, interpreter, :stdout or :stderr, binary}" do
      inp = start_interpreter!()
      {:ok, nil} = Snex.pyeval(inp, "import sys; print('out'); print('err', file=sys.stderr)", output: self())
      assert_received {:snex_output, ^inp, :stdout, "out\n"}
      assert_received {:snex_output, ^inp, :stderr, "err\n"}
    end

    test "[stdout: ..., stderr: ...], of an interpreter, holds for calls that do not say otherwise" do
      inp = start_interpreter!(output: [stdout: self(), stderr: :discard])
      code = "import sys; print('out'); print('err', file=sys.stderr)"
      assert capture_io(fn -> {:ok, nil} = Snex.pyeval(inp, code) end) == ""
      assert_received {:snex_output, ^inp, :stdout, "out\n"}
      assert capture_io(fn -> {:ok, nil} = Snex.pyeval(inp, code, output: :group_leader) end) =~ "out\n"
      refute_received _
    end

    test ":logger: each line is logged, those of stderr as warnings" do
      inp = start_interpreter!(output: :logger)
      code = "import sys; print('first\\nsecond'); print('careful', file=sys.stderr)"
      log = capture_log(fn -> {:ok, nil} = Snex.pyeval(inp, code) end)
      assert log =~ ~r/\[info\].*first/
      assert log =~ ~r/\[info\].*second/
      assert log =~ ~r/\[warning\].*careful/
    end

    # The lines that the log has, without those of other tests.
    defp logged(inp, fun) do
      id = :"lines_#{System.unique_integer([:positive])}"
      :ok = :logger.add_handler(id, __MODULE__, %{config: {self(), inp}, level: :all})
      fun.()
      :ok = :logger.remove_handler(id)
      logged_lines([])
    end

    @doc false
    # The callback of a handler of `:logger`.
    def log(%{meta: %{snex_interpreter: inp, snex_stream: stream}, msg: {:string, line}}, %{
          config: {test, inp}
        }),
        do: send(test, {:logged, stream, IO.chardata_to_string(line)})

    def log(_event, _config), do: :ok

    defp logged_lines(lines) do
      receive do
        {:logged, stream, line} -> logged_lines([{stream, line} | lines])
      after
        0 -> Enum.reverse(lines)
      end
    end

    test ":logger: a line that comes in parts is one line, each stream for itself; the last needs no end" do
      inp = start_interpreter!(output: :logger)

      code = """
      import asyncio, sys
      for n, part in enumerate(["one ", "tw", "o\\nthr", "ee\\n\\nfour"]):
          sys.stdout.write(part)
          sys.stdout.flush()
          sys.stderr.write(str(n))
          sys.stderr.flush()
          await asyncio.sleep(0.01)
      """

      lines = logged(inp, fn -> {:ok, nil} = Snex.pyeval(inp, code) end)
      assert Enum.sort(lines) == [stderr: "0123", stdout: "four", stdout: "one two", stdout: "three"]

      # Also after an error, and for a character that comes in parts.
      code = """
      import sys
      for byte in "ä\\nö".encode():
          sys.stdout.buffer.write(bytes([byte]))
          sys.stdout.flush()
      raise ValueError
      """

      lines = logged(inp, fn -> {:error, _} = Snex.pyeval(inp, code) end)
      assert lines == [stdout: "ä", stdout: "ö"]
    end

    test ":logger: lines of C code and child processes are whole; what has no end comes when the interpreter ends" do
      {:ok, inp} = Interpreter.start_link(output: :logger)

      lines =
        logged(inp, fn ->
          code = """
          import os, time
          for part in (b"low ", b"level\\nlast ", b"words"):
              os.write(1, part)
              time.sleep(0.05)
          """

          {:ok, nil} = Snex.pyeval(inp, code)
          monitor = Process.monitor(output_process(inp))
          Interpreter.stop(inp)
          assert_receive {:DOWN, ^monitor, :process, _pid, _reason}, 60_000
        end)

      assert lines == [stdout: "low level", stdout: "last words"]
    end

    defp output_process(inp) do
      {:links, links} = Process.info(inp, :links)

      Enum.find(
        links,
        &((Process.info(&1, :dictionary) |> elem(1))[:"$process_label"] == {Interpreter.Output, inp})
      )
    end

    test ":logger: a line without an end is logged in parts, none larger than 128 KiB" do
      inp = start_interpreter!(output: :logger)
      code = "import sys\nfor _ in range(300): sys.stdout.write('ä' * 512); sys.stdout.flush()"
      lines = logged(inp, fn -> {:ok, nil} = Snex.pyeval(inp, code, %{}, timeout: 60_000) end)
      assert length(lines) > 1
      assert for({:stdout, line} <- lines, into: "", do: line) == String.duplicate("ä", 300 * 512)
      assert Enum.all?(lines, fn {_stream, line} -> byte_size(line) <= 128 * 1024 end)
    end

    # The streams of the VM itself, which is one of its own here.
    test ":inherit: it goes to the VM's own standard output and error" do
      folder =
        Path.join(System.tmp_dir!(), "snex-inherit-#{System.pid()}-#{System.unique_integer([:positive])}")

      File.mkdir_p!(folder)
      on_exit(fn -> File.rm_rf!(folder) end)

      code = """
      {:ok, device} = StringIO.open("")
      Process.group_leader(self(), device)
      {:ok, inp} = Snex.Interpreter.start_link(output: :inherit)
      code = "import os, sys; print('out'); print('err', file=sys.stderr); os.write(1, b'raw '); os.write(2, b'low ')"
      {:ok, nil} = Snex.pyeval(inp, code)
      Snex.Interpreter.stop(inp)
      {:ok, {"", ""}} = StringIO.close(device)
      """

      script = ~s(exec elixir -pa "$1" -e "$2" >"$3/out" 2>"$3/err")
      args = ["-c", script, "sh", Application.app_dir(:snex, "ebin"), code, folder]
      {"", status} = System.cmd("sh", args)
      text = fn name -> folder |> Path.join(name) |> File.read!() |> String.split() |> Enum.sort() end
      assert {status, text.("out"), text.("err")} == {0, ["out", "raw"], ["err", "low"]}
    end

    test ":group_leader, of a call, wins over that of the interpreter" do
      inp = start_interpreter!(output: :discard)
      assert capture_io(fn -> {:ok, nil} = Snex.pyeval(inp, "print('x')", output: :group_leader) end) == "x\n"
    end

    test ":discard: it goes nowhere" do
      inp = start_interpreter!(output: :discard)
      assert capture_io(fn -> {:ok, 1} = Snex.pyeval(inp, "print('x' * 1_000_000); return 1") end) == ""
    end

    test "that makes no sense raises ArgumentError, which names it" do
      inp = start_interpreter!()

      assert_raise ArgumentError, ~r/option :output cannot be :nowhere: expected :group_leader/, fn ->
        Snex.pyeval(inp, "1", output: :nowhere)
      end

      assert_raise ArgumentError, ~r/option :output cannot be \[out: :discard\]/, fn ->
        Interpreter.start_link(output: [out: :discard])
      end
    end
  end

  describe "Python never waits for good:" do
    test "with a reader that is gone, what a killed caller's code prints is taken away" do
      # What comes after the caller is the interpreter's.
      inp = start_interpreter!(output: :discard)
      test = self()
      {:ok, env} = Snex.make_env(inp)

      # A group leader that never answers, and a caller that waits for it.
      stuck = spawn_link(fn -> Process.sleep(:infinity) end)

      caller =
        spawn(fn ->
          Process.group_leader(self(), stuck)
          code = "await snex.send(test, 'printing')\nfor n in range(100_000): print('x' * 100, n)"

          Snex.pyeval(env, code, %{"test" => test},
            timeout: :infinity,
            on_timeout: :leave,
            output: :group_leader
          )
        end)

      assert_receive "printing", 60_000
      Process.exit(caller, :kill)
      assert Snex.pyeval(env, "return 1", timeout: :infinity) == {:ok, 1}
    end
  end

  test "input() is at its end at once: EOFError" do
    inp = start_interpreter!()
    assert {:error, %Error{exception: %{type: "EOFError"}}} = Snex.pyeval(inp, "input()")
    assert Snex.pyeval(inp, "import sys; return sys.stdin.read()") == {:ok, ""}
  end
end
