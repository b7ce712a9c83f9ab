defmodule Snex.OutputTest do
  use Snex.Case, async: true

  import ExUnit.CaptureIO
  import ExUnit.CaptureLog

  describe "by default, prints go to the group leader of the caller" do
    @describetag :interpreter

    test "and are there before the result is", %{inp: inp} do
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

    test "call by call, with calls interleaved on one loop", %{inp: inp} do
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

    test "also from threads that asyncio.to_thread starts, and from tasks", %{inp: inp} do
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

    test "in order, whole characters at a time, 100 MB of it", %{inp: inp} do
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

  describe "what C code and child processes print" do
    test "goes to the interpreter's group leader" do
      text =
        capture_io(fn ->
          {:ok, inp} = Interpreter.start_link()

          capture_io(fn ->
            {:ok, nil} =
              Snex.pyeval(
                inp,
                "import os, subprocess; os.write(1, b'raw\\n'); subprocess.run(['echo', 'child'])"
              )

            Interpreter.stop(inp)
          end)
        end)

      assert text == "raw\nchild\n"
    end
  end

  describe "the option :output" do
    test "of a call sends prints to a pid" do
      inp = start_interpreter!()
      {:ok, nil} = Snex.pyeval(inp, "import sys; print('out'); print('err', file=sys.stderr)", output: self())
      assert_received {:snex_output, ^inp, :stdout, "out\n"}
      assert_received {:snex_output, ^inp, :stderr, "err\n"}
    end

    test "of an interpreter holds for calls that do not say otherwise" do
      inp = start_interpreter!(output: [stdout: self(), stderr: :discard])
      code = "import sys; print('out'); print('err', file=sys.stderr)"
      assert capture_io(fn -> {:ok, nil} = Snex.pyeval(inp, code) end) == ""
      assert_received {:snex_output, ^inp, :stdout, "out\n"}
      assert capture_io(fn -> {:ok, nil} = Snex.pyeval(inp, code, output: :group_leader) end) =~ "out\n"
      refute_received _
    end

    test ":logger logs lines, errors as warnings" do
      inp = start_interpreter!(output: :logger)
      code = "import sys; print('first\\nsecond'); print('careful', file=sys.stderr)"
      log = capture_log(fn -> {:ok, nil} = Snex.pyeval(inp, code) end)
      assert log =~ ~r/\[info\].*first/
      assert log =~ ~r/\[info\].*second/
      assert log =~ ~r/\[warning\].*careful/
    end

    test ":discard loses it" do
      inp = start_interpreter!(output: :discard)
      assert capture_io(fn -> {:ok, 1} = Snex.pyeval(inp, "print('x' * 1_000_000); return 1") end) == ""
    end

    test "is named when it makes no sense" do
      inp = start_interpreter!()

      assert_raise ArgumentError, ~r/expected :output.*got: :nowhere/, fn ->
        Snex.pyeval(inp, "1", output: :nowhere)
      end

      assert_raise ArgumentError, ~r/expected :output/, fn ->
        Interpreter.start_link(output: [out: :discard])
      end
    end
  end

  describe "a reader that is gone" do
    @describetag :interpreter

    test "holds up nobody: what a killed caller's code prints is taken away", %{inp: inp} do
      test = self()
      {:ok, env} = Snex.make_env(inp)

      # A group leader that never answers, and a caller that waits for it.
      stuck = spawn_link(fn -> Process.sleep(:infinity) end)

      caller =
        spawn(fn ->
          Process.group_leader(self(), stuck)
          code = "await snex.send(test, 'printing')\nfor n in range(100_000): print('x' * 100, n)"
          Snex.pyeval(env, code, %{"test" => test}, timeout: :infinity, on_timeout: :leave)
        end)

      assert_receive "printing", 60_000
      Process.exit(caller, :kill)
      assert Snex.pyeval(env, "return 1", timeout: :infinity) == {:ok, 1}
    end
  end
end
