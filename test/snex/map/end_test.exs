defmodule Snex.Map.EndTest do
  # Maps that come to an end before their elements do, and what others see of a map meanwhile.
  use Snex.Case, async: true

  @moduletag :capture_log

  @script """
  import asyncio, os, signal, time

  # How calls have ended that were interrupted.
  ended = []

  def block(x):
      try:
          if x == 3: time.sleep(600)
          return x
      except BaseException as error:
          ended.append(type(error).__name__)
          raise

  async def wait(x):
      try:
          if x == 3:
              await snex.send(test, "waits")
              await asyncio.Event().wait()
          return x
      except BaseException as error:
          ended.append(type(error).__name__)
          raise

  def spin(x):
      if x == 3:
          try:
              while True: time.monotonic()
          except BaseException as error:
              ended.append(type(error).__name__)
              raise
      return x

  def die(x):
      if x == 3: os.kill(os.getpid(), signal.SIGKILL)
      return x
  """

  setup do
    {:ok, inp: start_interpreter!(init_script: {"import snex\n" <> @script, %{"test" => self()}})}
  end

  defp assert_rest(inp) do
    eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
    assert Snex.map(inp, "abs", [-1]) == [ok: 1]
    refute_received _
  end

  defp assert_ended(inp) do
    eventually(fn -> match?({:ok, [_]}, Snex.call(inp, "ended.copy")) end)
    assert {:ok, [how]} = Snex.call(inp, "ended.copy")
    assert how in ["Cancelled", "CancelledError"]
    assert_rest(inp)
  end

  defp codes(results) do
    Enum.map(results, fn
      {:ok, value} -> value
      {:error, error} -> error.code
    end)
  end

  describe "a timeout" do
    for {function, run} <- [
          {"block", :loop},
          {"wait", :loop},
          {"wait", :thread},
          {"spin", :loop}
        ] do
      test "of a list holds for all that is left, and ends the call (#{function}, run: #{inspect(run)})", %{
        inp: inp
      } do
        opts = [timeout: 2_000, run: unquote(run), demand: 1]
        results = Snex.map(inp, unquote(function), 1..1_000, opts)
        assert codes(results) == [1, 2 | List.duplicate(:response_timeout, 998)]
        {:error, error} = List.last(results)
        assert Exception.message(error) =~ "within 2000 ms (the option :timeout)"
        # The call that was interrupted; others have not begun.
        if unquote(function) == "wait", do: assert_receive("waits", 60_000)
        assert_ended(inp)
      end
    end

    test "of a stream is that of the elements that are on their way, and others go on", %{inp: inp} do
      stream = Snex.map(inp, "wait", 1..6, stream: true, timeout: 2_000, demand: 1)
      assert stream |> Enum.to_list() |> codes() == [1, 2, :response_timeout, 4, 5, 6]
      assert_receive "waits", 60_000
      assert_ended(inp)
    end

    test "of 0 calls nothing", %{inp: inp} do
      assert inp |> Snex.map("block", 1..10, timeout: 0) |> codes() == List.duplicate(:response_timeout, 10)
      assert_rest(inp)
    end
  end

  describe "the end of the interpreter" do
    test "is the error of each element that has no result", %{inp: inp} do
      results = Snex.map(inp, "die", 1..1_000, demand: 1)
      assert [1, 2, :interpreter_exited | rest] = codes(results)
      assert length(rest) == 997
      assert rest |> Enum.uniq() |> Kernel.--([:interpreter_exited, :call_failed]) == []

      assert [one, one, one] = inp |> Snex.map("abs", 1..3) |> codes()
      assert one in [:interpreter_exited, :call_failed]
    end

    test "concerns no elements that an interpreter started anew is there for" do
      name = :"map_#{System.unique_integer([:positive])}"
      start_supervised!({Interpreter, name: name, init_script: {@script, %{"test" => self()}}})

      results =
        1..20
        |> Stream.each(fn n ->
          if n == 4, do: eventually(fn -> Snex.pyeval(name, "return 1") == {:ok, 1} end)
        end)
        |> then(&Snex.map(name, "die", &1, demand: 1))

      assert [1, 2, :interpreter_exited | rest] = codes(results)
      assert rest == Enum.to_list(4..20)
    end

    test "that is stopped in the middle, whatever the map does, gives one result for each element", %{
      inp: _inp
    } do
      for opts <- [[], [concurrency: 3], [run: :thread], [demand: 7]], count <- [1, 100, 3_000] do
        {:ok, inp} = Interpreter.start_link()
        test = self()

        elements =
          Stream.each(1..5_000, fn n ->
            if n == count, do: spawn(fn -> Interpreter.stop(inp) && send(test, :stopped) end)
          end)

        results = Snex.map(inp, "abs", elements, opts)
        assert length(results) == 5_000
        assert_receive :stopped, 60_000
        for {{:ok, value}, n} <- Enum.with_index(results, 1), do: assert(value == n)

        assert results |> codes() |> Enum.reject(&is_integer/1) |> Enum.uniq() |> Kernel.--([:call_failed]) ==
                 []
      end
    end
  end

  describe "a process that maps and is gone" do
    for opts <- [[], [stream: true], [concurrency: 2], [run: :thread]] do
      test "ends the call that is under way (#{inspect(opts)})", %{inp: inp} do
        mapper = spawn(fn -> inp |> Snex.map("wait", 1..10, unquote(opts)) |> Enum.to_list() end)
        assert_receive "waits", 60_000
        Process.exit(mapper, :kill)
        assert_ended(inp)
      end
    end

    test "leaves no processes, and nothing in the mailbox of one that traps exits", %{inp: inp} do
      Process.flag(:trap_exit, true)

      for opts <- [[], [concurrency: 4], [stream: true, concurrency: 4], [stream: true]] do
        assert inp |> Snex.map("abs", 1..10_000, opts) |> Enum.take(5_000) |> length() == 5_000
        assert_rest(inp)
      end

      assert {:links, []} =
               self()
               |> Process.info(:links)
               |> then(fn {:links, links} -> {:links, links -- [inp | supervisors()]} end)
    end
  end

  defp supervisors, do: Enum.filter(elem(Process.info(self(), :links), 1), &(is_port(&1) or supervisor?(&1)))
  defp supervisor?(pid), do: match?({:supervisor, _, _}, :proc_lib.translate_initial_call(pid))

  describe "others" do
    test "have their turn while a map goes on", %{inp: inp} do
      test = self()

      mapper =
        spawn_link(fn ->
          inp
          |> Snex.map("math.sqrt", Stream.iterate(1, &(&1 + 1)), stream: true)
          |> Stream.each(fn {:ok, _root} ->
            receive(do: (:stop -> send(test, :stopped) && exit(:normal)), after: (0 -> nil))
          end)
          |> Stream.run()
        end)

      for n <- 1..200, do: assert(Snex.pyeval(inp, "return n", %{"n" => n}, timeout: :infinity) == {:ok, n})
      send(mapper, :stop)
      assert_receive :stopped, 60_000
      assert_rest(inp)
    end

    test "map at the same time, and nothing is mixed up", %{inp: inp} do
      maps =
        for who <- 1..8 do
          Task.async(fn ->
            opts = Enum.at([[], [concurrency: 3], [run: :thread], [demand: 3], [stream: true]], rem(who, 5))

            results =
              inp
              |> Snex.map("operator.add", Stream.map(1..2_000, &{&1, who * 10_000}), [unpack: true] ++ opts)

            assert Enum.to_list(results) == Enum.map(1..2_000, &{:ok, &1 + who * 10_000})
          end)
        end

      Task.await_many(maps, :infinity)
      assert_rest(inp)
    end

    test "are refused no more than by other calls" do
      inp =
        start_interpreter!(max_in_flight: 1, init_script: {"import snex\n" <> @script, %{"test" => self()}})

      mapper = Task.async(fn -> Snex.map(inp, "wait", 1..3, timeout: 60_000) end)
      assert_receive "waits", 60_000
      assert inp |> Snex.map("abs", 1..3) |> codes() == [:overloaded, :overloaded, :overloaded]
      Task.shutdown(mapper, :brutal_kill)
      eventually(fn -> Snex.map(inp, "abs", [1]) == [ok: 1] end)
    end
  end
end
