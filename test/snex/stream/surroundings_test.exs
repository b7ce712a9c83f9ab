defmodule Snex.Stream.SurroundingsTest do
  # What a stream prints and calls belongs to the process that enumerates it.
  use Snex.Case, async: true

  import ExUnit.CaptureIO
  import ExUnit.CaptureLog

  require Logger

  setup do
    {:ok, inp: start_interpreter!()}
  end

  # Called by Python.
  def surroundings, do: [Process.group_leader(), Process.get(:"$callers"), Logger.metadata()[:order]]

  @sources [
    "for n in range(3): yield snex.call_sync('Elixir.Snex.Stream.SurroundingsTest', 'surroundings', [])",
    "for n in range(3): yield await snex.call('Elixir.Snex.Stream.SurroundingsTest', 'surroundings', [])",
    "for n in range(3): yield f()",
    "for n in range(3): yield await g()"
  ]

  test "what it calls has the consumer's group leader, $callers and Logger metadata", %{inp: inp} do
    vars = %{"f" => Serde.callback(&surroundings/0), "g" => &surroundings/0}

    for source <- @sources, run <- [:auto, :thread, :loop] do
      {:ok, device} = StringIO.open("")
      test = self()

      consumer =
        Task.async(fn ->
          Process.group_leader(self(), device)
          Logger.metadata(order: 17)
          inp |> Snex.stream(source, vars, run: run) |> Enum.to_list()
        end)

      for [leader, callers, order] <- Task.await(consumer, :infinity) do
        assert {leader, order} == {device, 17}

        # Of the process that answers the call: the one that has made the request, and those that it works for.
        assert [_courier, consumer_pid, ^test | _] = callers
        assert consumer_pid == consumer.pid
      end
    end
  end

  test "a stream that it reads runs for the consumer as well", %{inp: inp} do
    {:ok, device} = StringIO.open("")
    source = Stream.map(1..2, fn _n -> surroundings() end)
    test = self()

    for code <- ["for item in s: yield item", "async for item in s: yield item"], run <- [:auto, :loop] do
      consumer =
        Task.async(fn ->
          Process.group_leader(self(), device)
          Logger.metadata(order: 17)
          inp |> Snex.stream(code, %{"s" => Serde.stream(source)}, run: run) |> Enum.to_list()
        end)

      items = Task.await(consumer, :infinity)
      assert length(items) == 2

      for [leader, callers, order] <- items do
        assert {leader, order} == {device, 17}
        # As for what it calls: the courier has made the request.
        assert [_courier, consumer_pid, ^test | _] = callers
        assert consumer_pid == consumer.pid
      end
    end
  end

  test "what it prints is in order with its items", %{inp: inp} do
    for code <- [
          "for n in range(100):\n  print(f'p{n}')\n  yield n",
          "import asyncio\nfor n in range(100):\n  print(f'p{n}')\n  yield n\n  await asyncio.sleep(0)",
          "for n in range(100):\n  if n % 7 == 3: print(f'p{n}')\n  yield n"
        ],
        demand <- [1, 256] do
      text =
        capture_io(fn ->
          inp |> Snex.stream(code, demand: demand) |> Enum.each(&IO.puts("i#{&1}"))
        end)

      lines = text |> String.split("\n", trim: true) |> Enum.with_index() |> Map.new()
      assert Enum.sort(for "i" <> n <- Map.keys(lines), do: String.to_integer(n)) == Enum.to_list(0..99)

      for n <- 0..99, place = lines["p#{n}"] do
        assert place < lines["i#{n}"]
        if n > 0, do: assert(lines["i#{n - 1}"] < lines["i#{n}"])
      end
    end
  end

  test "what it prints comes out while the consumer is busy, and the last of it before the end", %{inp: inp} do
    test = self()
    device = spawn_link(fn -> device(test) end)

    consumer =
      Task.async(fn ->
        Process.group_leader(self(), device)

        inp
        |> Snex.stream("yield 1\nfor n in range(20): print(n)\nyield 2\nprint('last')")
        |> Enum.each(fn item ->
          send(test, {:item, item, self()})
          receive do: (:go -> nil)
        end)

        send(test, :ended)
      end)

    assert_receive {:item, 1, pid}, 60_000

    for n <- 0..19 do
      line = "#{n}\n"
      assert_receive {:printed, ^line}, 60_000
    end

    # Item 2 has not been seen, and the generator has come to its end.
    assert_receive {:printed, "last\n"}, 60_000
    refute_received _
    send(pid, :go)
    assert_receive {:item, 2, ^pid}, 60_000
    send(pid, :go)
    assert_receive :ended, 60_000
    Task.await(consumer, :infinity)
  end

  # Says what is written, in the pieces that Python prints.
  defp device(test) do
    receive do
      {:io_request, from, ref, {:put_chars, :unicode, text}} ->
        for line <- String.split(text, ~r/(?<=\n)/, trim: true), do: send(test, {:printed, line})
        send(from, {:io_reply, ref, :ok})
        device(test)
    end
  end

  test "a device that takes nothing holds up this stream alone, and its end ends it", %{inp: inp} do
    silent = spawn_link(fn -> receive do: (:never -> nil) end)
    test = self()

    code = """
    try:
      snex.send_sync(test, 'begun')
      print('nobody reads this')
      while True: yield 1
    finally: snex.send_sync(test, 'closed')
    """

    consumer =
      spawn(fn ->
        Process.group_leader(self(), silent)
        inp |> Snex.stream(code, %{"test" => test}) |> Enum.each(&send(test, {:item, &1}))
      end)

    assert_receive "begun", 60_000
    for n <- 1..10, do: assert(Snex.pyeval(inp, "return n", %{"n" => n}, timeout: 60_000) == {:ok, n})
    Process.exit(consumer, :kill)
    assert_receive "closed", 60_000
    eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
  end

  test "the option :output says where it prints to, and a log gets the last line that has no end", %{inp: inp} do
    stream = fn output ->
      Snex.stream(inp, "import sys\nprint('one')\nyield 1\nsys.stdout.write('two')\nyield 2", output: output)
    end

    assert capture_io(fn -> assert Enum.to_list(stream.(:discard)) == [1, 2] end) == ""
    assert Enum.to_list(stream.(self())) == [1, 2]
    assert_receive {:snex_output, ^inp, :stdout, "one\n"}, 60_000
    assert_receive {:snex_output, ^inp, :stdout, "two"}, 60_000
    log = capture_log(fn -> assert Enum.to_list(stream.(:logger)) == [1, 2] end)
    assert log =~ "one"
    assert log =~ "two"
  end

  test "the one who goes on with it is whom it prints for from then on", %{inp: inp} do
    stream = Snex.stream(inp, "for n in range(3):\n  print(n)\n  yield n", demand: 1)
    one = fn item, _acc -> {:suspend, item} end
    test = self()

    first =
      capture_io(fn ->
        {:suspended, 0, go_on} = Enumerable.reduce(stream, {:cont, nil}, one)
        send(test, go_on)
      end)

    assert_receive go_on, 60_000
    {:ok, device} = StringIO.open("")

    taker =
      Task.async(fn ->
        Process.group_leader(self(), device)
        {:suspended, 1, go_on} = go_on.({:cont, nil})
        {:suspended, 2, go_on} = go_on.({:cont, nil})
        {:halted, nil} = go_on.({:cont, nil})
        elem(StringIO.contents(device), 1)
      end)

    second = Task.await(taker, :infinity)
    # With a demand of 1, the generator goes on when the next item is asked for.
    assert {first, second} == {"0\n", "1\n2\n"}
  end
end
