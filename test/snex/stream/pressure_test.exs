defmodule Snex.Stream.PressureTest do
  # How far Python runs ahead of the consumer, and what that costs others.
  use Snex.Case, async: true

  setup do
    script = """
    import asyncio
    produced = 0

    def count():
        global produced
        while True:
            produced += 1
            yield produced

    async def count_async():
        global produced
        while True:
            produced += 1
            yield produced
            await asyncio.sleep(0)
    """

    inp = start_interpreter!(init_script: script)
    {:ok, inp: inp, root: Snex.make_env!(inp)}
  end

  # In the root environment, where `produced` is.
  defp produced(inp), do: Snex.pyeval!(inp, "return count.__globals__['produced']", timeout: 60_000)

  # Takes items one by one: `fun` is called with each.
  defp take(stream, count, fun) do
    stream |> Stream.each(fun) |> Enum.take(count)
  end

  for {function, run} <- [
        {"count", :auto},
        {"count", :thread},
        {"count", :loop},
        {"count_async", :auto},
        {"count_async", :thread}
      ] do
    for demand <- [1, 2, 3, 10, 256] do
      test "a generator runs #{demand} items ahead and no further (#{function}, run: #{inspect(run)})", %{
        inp: inp
      } do
        demand = unquote(demand)
        stream = Snex.stream(inp, {unquote(function), []}, run: unquote(run), demand: demand)

        items =
          take(stream, 30, fn n ->
            # None of the items before the frame with this one is in flight any more.
            if n == 1, do: eventually(fn -> produced(inp) == demand end)
            assert produced(inp) <= n - 1 + demand
          end)

        assert items == Enum.to_list(1..30)
      end
    end
  end

  test "with a demand of 1, the generator waits for each item to be taken", %{inp: inp} do
    for run <- [:auto, :loop, :thread], function <- ["count", "count_async"] do
      Snex.pyeval!(inp, "count.__globals__['produced'] = 0")
      stream = Snex.stream(inp, {function, []}, demand: 1, run: run)
      take(stream, 100, fn n -> assert produced(inp) == n end)
    end
  end

  test "as many bytes as the high mark are on their way, and a larger item alone" do
    mib = 1024 * 1024
    script = "sizes = []"
    inp = start_interpreter!(init_script: script, port_opts: [busy_limits_port: {mib, 2 * mib}])

    code = """
    for n in range(20):
        sizes.append(size)
        yield b"x" * size
    """

    # Frames that are full go before the mark is reached: how many of them have been made, the consumer has not asked for.
    for {size, most} <- [{mib, 3}, {10 * mib, 2}] do
      env = Snex.make_env!(inp, %{"sizes" => [], "size" => size})

      items =
        env
        |> Snex.stream(code)
        |> Enum.map(fn item ->
          n = Snex.pyeval!(env, "seen = globals().get('seen', 0) + 1; return seen, len(sizes)")
          assert elem(n, 1) <= elem(n, 0) + most, "#{inspect(n)}"
          byte_size(item)
        end)

      assert items == List.duplicate(size, 20)
    end
  end

  test "others are served and print while a consumer reads nothing", %{inp: inp} do
    {:suspended, 1, go_on} =
      Enumerable.reduce(Snex.stream(inp, {"count", []}), {:cont, nil}, fn n, _ -> {:suspend, n} end)

    eventually(fn -> produced(inp) == 256 end)

    printed =
      ExUnit.CaptureIO.capture_io(fn ->
        for n <- 1..20 do
          assert Snex.pyeval(inp, "print(n); return n", %{"n" => n}, timeout: 60_000) == {:ok, n}
          assert inp |> Snex.stream("print('s'); yield 1") |> Enum.to_list() == [1]
        end
      end)

    assert printed == Enum.map_join(1..20, &"#{&1}\ns\n")
    assert produced(inp) == 256
    assert {:halted, nil} = go_on.({:halt, nil})
  end

  test "a blocking generator holds up nobody", %{inp: inp} do
    code = "import threading\ngate = threading.Event()\nwhile gate.wait():\n  gate.clear()\n  yield 1"
    env = Snex.make_env!(inp)
    test = self()

    consumer =
      Task.async(fn -> env |> Snex.stream(code) |> Stream.each(&send(test, {:item, &1})) |> Enum.take(3) end)

    eventually(fn -> Snex.pyeval!(env, "return 'gate' in globals()") end)

    for _ <- 1..3 do
      assert Snex.pyeval(env, "gate.set()", timeout: 60_000) == {:ok, nil}
      assert_receive {:item, 1}, 60_000
    end

    assert Task.await(consumer, :infinity) == [1, 1, 1]
  end

  test "an item is delivered as soon as it is produced while the consumer keeps up", %{inp: inp} do
    # The next one is only produced when this one has been seen.
    for code <- [
          "for n in range(50):\n  yield n\n  snex.call_sync('Elixir.Snex.Stream.PressureTest', 'seen', [test, n])",
          "for n in range(50):\n  yield n\n  await snex.call('Elixir.Snex.Stream.PressureTest', 'seen', [test, n])"
        ] do
      test = self()
      gate = spawn_link(fn -> gate(MapSet.new(), []) end)
      consume = fn n -> send(gate, {:seen, n}) end
      stream = Snex.stream(inp, code, %{"test" => gate})
      assert stream |> Stream.each(consume) |> Enum.to_list() == Enum.to_list(0..49)
      Process.unlink(gate)
      Process.exit(gate, :kill)
      assert test == self()
    end
  end

  # Called by Python: returns when the consumer has had item `n`.
  def seen(gate, n) do
    monitor = Process.monitor(gate)
    send(gate, {:await, n, self()})

    receive do
      {:seen, ^n} -> Process.demonitor(monitor, [:flush]) && nil
      {:DOWN, ^monitor, _, _, _} -> nil
    end
  end

  defp gate(seen, waiting) do
    {ready, waiting} = Enum.split_with(waiting, fn {n, _pid} -> n in seen end)
    for {n, pid} <- ready, do: send(pid, {:seen, n})

    receive do
      {:seen, n} -> gate(MapSet.put(seen, n), waiting)
      {:await, n, pid} -> gate(seen, [{n, pid} | waiting])
    end
  end
end
