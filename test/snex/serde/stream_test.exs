defmodule Snex.Serde.StreamTest do
  use Snex.Case, async: true

  @moduletag :interpreter

  # How code takes all items of `rows`: on the event loop, with and without waiting there, and on other threads.
  @ways %{
    "async for" => "return [row async for row in rows]",
    "for on the event loop's thread" => "return list(rows)",
    "async for after for" => "return [next(rows), *[row async for row in rows]]",
    "for after async for" => "return [await anext(rows), *rows]",
    "for in asyncio.to_thread" => "import asyncio\nreturn await asyncio.to_thread(list, rows)",
    "for in a thread of the user's" => """
    import asyncio, threading
    taken, loop, done = [], asyncio.get_running_loop(), asyncio.Event()
    def run():
        taken.extend(rows)
        loop.call_soon_threadsafe(done.set)
    threading.Thread(target=run).start()
    await done.wait()
    return taken
    """,
    "async for in a second event loop" => """
    import asyncio
    async def run():
        return [row async for row in rows]
    return await asyncio.to_thread(asyncio.run, run())
    """,
    "for in a second event loop" => """
    import asyncio
    async def run():
        return list(rows)
    return await asyncio.to_thread(asyncio.run, run())
    """
  }

  describe "a stream" do
    test "is iterated in every way that Python has", %{inp: inp} do
      for {way, code} <- @ways, count <- [1, 2, 255, 256, 257, 3_000] do
        rows = Serde.stream(Stream.map(1..count, &{&1, "row"}))

        assert {way, Snex.pyeval(inp, code, %{"rows" => rows})} ==
                 {way, {:ok, Enum.map(1..count, &{&1, "row"})}}
      end
    end

    test "is iterated in a worker thread, by for and by async for", %{inp: inp} do
      for code <- ["return list(rows)", "return [row async for row in rows]"], count <- [1, 3_000] do
        rows = Serde.stream(1..count)
        assert Snex.pyeval(inp, code, %{"rows" => rows}, run: :thread) == {:ok, Enum.to_list(1..count)}
      end
    end

    test "of nothing has no items", %{inp: inp} do
      code = "return list(rows), [row async for row in rows], list(rows)"
      assert Snex.pyeval(inp, code, %{"rows" => Serde.stream([])}) == {:ok, {[], [], []}}
    end

    test "without an end is taken from as long as Python likes", %{inp: inp} do
      for code <- [
            "for n in rows:\n  if n == 1000: break\nreturn n, next(rows)",
            "async for n in rows:\n  if n == 1000: break\nreturn n, await anext(rows)"
          ] do
        rows = Serde.stream(Stream.iterate(0, &(&1 + 1)))
        assert Snex.pyeval(inp, code, %{"rows" => rows}) == {:ok, {1000, 1001}}
      end
    end
  end

  describe "tasks and threads that share a stream" do
    test "get each item once", %{inp: inp} do
      tasks = """
      import asyncio
      async def take():
          return [row async for row in rows]
      return await asyncio.gather(*[take() for _ in range(5)])
      """

      threads = """
      import asyncio
      return await asyncio.gather(*[asyncio.to_thread(list, rows) for _ in range(5)])
      """

      both = """
      import asyncio
      async def take():
          return [row async for row in rows]
      def run():
          return asyncio.run(take())
      return await asyncio.gather(take(), asyncio.to_thread(list, rows), asyncio.to_thread(run), take())
      """

      for code <- [tasks, threads, both], demand <- [1, 3, 256] do
        rows = Serde.stream(1..2_000, demand: demand)
        {:ok, taken} = Snex.pyeval(inp, code, %{"rows" => rows}, timeout: 60_000)
        # Whoever takes items gets them in order.
        for part <- taken, do: assert(part == Enum.sort(part))
        assert taken |> List.flatten() |> Enum.sort() == Enum.to_list(1..2_000)
      end
    end

    test "and the event loop's thread, which waits for items while others take them", %{inp: inp} do
      code = """
      import threading
      taken = []
      thread = threading.Thread(target=lambda: taken.extend(rows))
      thread.start()
      mine = list(rows)
      thread.join()
      return sorted(taken + mine)
      """

      for demand <- [1, 3, 256] do
        rows = Serde.stream(1..2_000, demand: demand)

        assert Snex.pyeval(inp, code, %{"rows" => rows}, timeout: 60_000) ==
                 {:ok, Enum.to_list(1..2_000)}
      end
    end

    test "and a task that is cancelled while it waits leaves the next item to others", %{inp: inp} do
      code = """
      import asyncio
      one = asyncio.create_task(anext(rows))
      other = asyncio.create_task(anext(rows))
      await asyncio.sleep(0)
      one.cancel()
      await snex.send(pid, "go")
      return one.cancelled() or one.cancelling() > 0, await other, [row async for row in rows]
      """

      test = self()

      rows =
        Stream.map(1..2, fn n ->
          if n == 1, do: send(test, {:waits, self()})
          if n == 1, do: receive(do: (:go -> :ok))
          n
        end)

      courier =
        spawn_link(fn ->
          receive do
            "go" ->
              send(test, :go)
          end
        end)

      task =
        Task.async(fn ->
          Snex.pyeval(inp, String.replace(code, "one.cancelling() > 0", "True"), %{
            "rows" => Serde.stream(rows),
            "pid" => courier
          })
        end)

      assert_receive {:waits, producer}, 60_000
      assert_receive :go, 60_000
      send(producer, :go)
      assert Task.await(task, 60_000) == {:ok, {true, 1, [2]}}
    end
  end

  test "several streams are independent, and can be interleaved", %{inp: inp} do
    vars = %{"a" => Serde.stream(1..1_000), "b" => Serde.stream(Stream.map(1..1_000, &(&1 * 2)))}

    for code <- [
          "return [y - 2 * x for x, y in zip(a, b)]",
          "return [(await anext(b)) - 2 * x async for x in a]"
        ] do
      assert Snex.pyeval(inp, code, vars) == {:ok, List.duplicate(0, 1_000)}
    end
  end

  test "the same stream starts anew in each call, and is one iterator in the places of one value", %{inp: inp} do
    rows = Serde.stream(1..3)

    for _ <- 1..2 do
      assert Snex.pyeval(inp, "return a is b[0], [next(a), next(b[0])]", %{"a" => rows, "b" => [rows]}) ==
               {:ok, {true, [1, 2]}}
    end

    two = %{"a" => Serde.stream(1..3), "b" => Serde.stream(1..3)}
    assert Snex.pyeval(inp, "return a is b, [next(a), next(b)]", two) == {:ok, {false, [1, 1]}}
  end

  test "a stream that is dropped at one place of a value is there at the next", %{inp: inp} do
    {:ok, nil} =
      Snex.pyeval(inp, """
      import builtins
      class Drops:
          def __init__(self, rows, *_): pass
      class Closes:
          def __init__(self, rows): rows.close()
      builtins.Drops, builtins.Closes = Drops, Closes
      """)

    for stream <- [Serde.stream(1..3), Serde.stream(1..3, demand: 1)],
        # The list that it is first met in is written anew as a whole.
        improper <- [[], [[stream | :no_list]]] do
      drops = Serde.object("builtins", "Drops", [stream, improper])
      vars = %{"a" => drops, "b" => [stream, :atom], "f" => fn -> [drops, stream, :atom, stream] end}
      assert Snex.pyeval(inp, "return list(b[0])", vars) == {:ok, [1, 2, 3]}
      code = "_, a, _, b = await f()\nreturn a is b, [row async for row in a]"
      assert Snex.pyeval(inp, code, vars) == {:ok, {true, [1, 2, 3]}}
      closes = %{"a" => Serde.object("builtins", "Closes", [stream]), "b" => stream}
      assert Snex.pyeval(inp, "return list(b)", closes) == {:ok, []}
    end
  end

  describe "the enumerable" do
    test "is not begun before Python asks for an item", %{inp: inp} do
      test = self()
      rows = Stream.resource(fn -> send(test, :begun) end, &{[1], &1}, fn _ -> send(test, :ended) end)
      assert Snex.pyeval(inp, "x = rows", %{"rows" => Serde.stream(rows)}) == {:ok, nil}
      refute_received :begun
      refute_received :ended
      assert Snex.pyeval(inp, "return next(rows)", %{"rows" => Serde.stream(rows)}) == {:ok, 1}
      assert_received :begun
      assert_receive :ended, 60_000
    end

    test "is never further ahead than the demand", %{inp: inp} do
      code = """
      seen = []
      for row in rows:
          seen.append(made() - row)
      return max(seen), len(seen)
      """

      for demand <- [1, 2, 3, 10, 256], run <- [:loop, :thread] do
        made = :counters.new(1, [])
        rows = Stream.map(1..600, fn n -> n |> tap(fn _ -> :counters.add(made, 1, 1) end) end)

        vars = %{
          "rows" => Serde.stream(rows, demand: demand),
          "made" => Serde.callback(fn -> :counters.get(made, 1) end)
        }

        assert {:ok, {ahead, 600}} = Snex.pyeval(inp, code, vars, run: run, timeout: 60_000)
        # What is taken of a frame counts when all of it is: the first item of one is not given back yet.
        assert ahead <= demand
      end
    end

    test "stops at the demand if Python takes nothing more", %{inp: inp} do
      test = self()
      code = "first = next(rows)\nawait snex.send(pid, 'taken')\nawait ask()\nreturn list(rows)"

      rows = Stream.map(1..20, fn n -> n |> tap(&send(test, {:made, &1})) end)

      ask = fn ->
        send(test, {:asked, self()})
        receive(do: (:go -> nil))
      end

      vars = %{"rows" => Serde.stream(rows, demand: 5), "pid" => test, "ask" => ask}
      task = Task.async(fn -> Snex.pyeval(inp, code, vars) end)
      assert_receive {:asked, asked}, 60_000
      for n <- 1..5, do: assert_receive({:made, ^n}, 60_000)
      assert_receive "taken", 60_000
      # If all of a frame is taken, as many more are made.
      send(asked, :go)
      assert Task.await(task, 60_000) == {:ok, Enum.to_list(2..20)}
    end

    test "has each item in Python before it makes the next", %{inp: inp} do
      code = "async for row in rows:\n  await snex.send(pid, ('got', row))"
      sync = "for row in rows:\n  snex.send_sync(pid, ('got', row))"
      test = self()

      for {code, run} <- [{code, :loop}, {sync, :loop}, {sync, :thread}] do
        # It waits for what Python says of an item before it makes the next one.
        rows =
          Stream.map(1..20, fn n ->
            if n == 1,
              do: send(test, {:producer, self()}),
              else: receive(do: ({:got, before} when before == n - 1 -> :ok))

            n
          end)

        task =
          Task.async(fn ->
            Snex.pyeval(inp, code, %{"rows" => Serde.stream(rows), "pid" => test}, run: run)
          end)

        assert_receive {:producer, producer}, 60_000

        for n <- 1..20 do
          assert_receive {"got", ^n}, 60_000
          send(producer, {:got, n})
        end

        assert Task.await(task, 60_000) == {:ok, nil}
      end
    end

    test "may be a file, which is closed", %{inp: inp} do
      path = Path.join(System.tmp_dir!(), "snex-stream-#{System.unique_integer([:positive])}")
      File.write!(path, Enum.map(1..5_000, &"line #{&1}\n"))
      on_exit(fn -> File.rm(path) end)
      code = "total = 0\nasync for line in lines:\n  total += int(line.split()[1])\nreturn total"

      assert Snex.pyeval(inp, code, %{"lines" => Serde.stream(File.stream!(path))}) ==
               {:ok, Enum.sum(1..5_000)}
    end

    test "may ask the interpreter that waits for its items", %{inp: inp} do
      rows = Stream.map(1..10, &Snex.pyeval!(inp, "return n * 2", %{"n" => &1}))

      tasks =
        Task.async_stream(1..10, &Snex.pyeval!(inp, "return n * 2", %{"n" => &1})) |> Stream.map(&elem(&1, 1))

      for rows <- [rows, tasks],
          code <- ["return list(rows)", "return [row async for row in rows]"],
          run <- [:loop, :thread] do
        assert Snex.pyeval(inp, code, %{"rows" => Serde.stream(rows)}, run: run, timeout: 30_000) ==
                 {:ok, Enum.map(1..10, &(&1 * 2))}
      end
    end
  end

  describe "where a stream may be" do
    test "deep in a value, as an argument of a function, and as the result of an Elixir function", %{inp: inp} do
      rows = Serde.stream(1..3)

      assert Snex.pyeval(inp, "return list(x['a'][1][0])", %{"x" => %{"a" => {1, [rows]}}}) ==
               {:ok, [1, 2, 3]}

      assert Snex.call(inp, "list", [rows]) == {:ok, [1, 2, 3]}
      assert Snex.call(inp, "sum", [rows], kwargs: [start: 4]) == {:ok, 10}

      assert Snex.call(inp, "dict", [], kwargs: %{"x" => 1, "y" => Serde.object("builtins", "list", [rows])}) ==
               {:ok, %{"x" => 1, "y" => [1, 2, 3]}}

      {:ok, made} = Snex.call(inp, "collections.deque", [rows], returns: :object)
      assert Snex.Object.length(made) == {:ok, 3}

      code = "rows = await f()\nreturn [row async for row in rows], list(await f()), list(callback())"
      vars = %{"f" => fn -> rows end, "callback" => Serde.callback(fn -> rows end)}
      assert Snex.pyeval(inp, code, vars) == {:ok, {[1, 2, 3], [1, 2, 3], [1, 2, 3]}}
    end

    test "not among the variables of an environment", %{inp: inp} do
      assert_raise ArgumentError, ~r/a stream cannot be a variable of an environment/, fn ->
        Snex.make_env(inp, %{"x" => [Serde.stream(1..3)]})
      end
    end

    test "not among the items of a stream, whose items before it arrive", %{inp: inp} do
      code = """
      taken = []
      try:
          for row in rows: taken.append(row)
      except snex.ElixirError as error:
          return taken, str(error), list(rows)
      """

      rows = Stream.map(1..100, fn n -> if n == 50, do: [Serde.stream(1..2)], else: n end)
      assert {:ok, {taken, message, []}} = Snex.pyeval(inp, code, %{"rows" => Serde.stream(rows)})
      assert taken == Enum.to_list(1..49)
      assert message =~ "a stream cannot be an item of another stream"
    end

    test "not on its way back to Elixir", %{inp: inp} do
      for opts <- [[], [returns: :auto]] do
        assert {:error, error} = Snex.pyeval(inp, "return [rows]", %{"rows" => Serde.stream(1..3)}, opts)
        assert error.reason =~ "cannot be sent to Elixir"
        assert error.exception.type == "TypeError"
      end
    end

    test "enumerables alone can be one" do
      for value <- [1, nil, "abc", fn -> 1 end, {1, 2}] do
        assert_raise ArgumentError, ~r/expected an enumerable/, fn -> Serde.stream(value) end
      end

      assert_raise ArgumentError, ~r/demand/, fn -> Serde.stream([], demand: 0) end
      assert inspect(Serde.stream([1, 2])) == "Snex.Serde.stream([1, 2])"
    end
  end

  describe "items" do
    test "look as the options say: those of the stream, of the call, of the interpreter", %{inp: inp} do
      code = "return [type(row).__name__ for row in rows]"

      types = fn stream, call ->
        Snex.pyeval!(inp, code, %{"rows" => Serde.stream(["a", :b, MapSet.new()], stream)}, call)
      end

      assert types.([], []) == ["str", "Atom", "set"]
      assert types.([encoding_opts: [binary_as: :bytes]], []) == ["bytes", "Atom", "set"]

      assert types.([encoding_opts: [binary_as: :bytes]],
               encoding_opts: [binary_as: :bytearray, set_as: :frozenset]
             ) == ["bytes", "Atom", "frozenset"]
    end

    test "may be structs, functions, objects, and terms of any kind", %{inp: inp} do
      {:ok, object} = Snex.call(inp, "object", [], returns: :object)
      items = [~D[2026-11-27], &String.upcase/1, self(), object, %{a: [1.5, {}]}, [1 | 2], 2 ** 100]
      code = "return [row async for row in rows]"
      {:ok, back} = Snex.pyeval(inp, code, %{"rows" => Serde.stream(items)}, returns: :auto)
      assert List.delete_at(back, 3) == List.delete_at(items, 3)
      assert Enum.at(back, 3).id == object.id
    end

    test "may be large binaries", %{inp: inp} do
      big = :binary.copy(<<1, 2, 3, 4>>, 500_000)
      code = "n = 0\nfor row in rows:\n  n += len(row)\nreturn n"
      rows = Serde.stream(Stream.map(1..40, fn _ -> big end), encoding_opts: [binary_as: :bytes])
      assert Snex.pyeval(inp, code, %{"rows" => rows}, timeout: 60_000) == {:ok, 80_000_000}
    end

    test "that cannot be encoded or loaded are an error at their place", %{inp: inp} do
      code = """
      taken = []
      try:
          async for row in rows: taken.append(row)
      except Exception as error:
          return len(taken), taken[-1], type(error).__name__, [row async for row in rows]
      """

      for {bad, type} <- [
            {<<0xFF>>, "UnicodeDecodeError"},
            {%{[1] => 2}, "TypeError"},
            {Serde.object("builtins", "int", ["x"]), "ValueError"},
            {%Serde.Float{value: "none"}, "ElixirError"}
          ],
          place <- [1, 2, 50, 300] do
        rows = Stream.concat([Stream.map(1..place, &{:n, &1}), [bad], Stream.cycle([:more])])

        assert {type, Snex.pyeval(inp, code, %{"rows" => Serde.stream(rows)})} ==
                 {type, {:ok, {place, {:n, place}, type, []}}}
      end
    end
  end

  describe "an enumerable that fails" do
    test "raises an ElixirError once, behind its items", %{inp: inp} do
      code = """
      taken = []
      try:
          %s row in rows: taken.append(row)
      except snex.ElixirError as error:
          return len(taken), error.kind, error.reason, str(error).splitlines()[0], list(rows)
      """

      for {fail, kind, reason, message} <- [
            {fn -> raise "no good" end, "error", %RuntimeError{message: "no good"},
             "** (RuntimeError) no good"},
            {fn -> exit(:no_good) end, "exit", :no_good, "** (exit) :no_good"},
            {fn -> exit(:normal) end, "exit", :normal, "** (exit) normal"},
            {fn -> throw(:no_good) end, "throw", :no_good, "** (throw) :no_good"},
            {fn -> Process.exit(self(), :kill) end, "exit", :killed, "** (exit) killed"}
          ],
          count <- [0, 1, 500],
          how <- ["for", "async for"] do
        rows =
          Stream.concat(
            Stream.take(Stream.iterate(1, &(&1 + 1)), count),
            Stream.map([1], fn _ -> fail.() end)
          )

        assert Snex.pyeval(inp, String.replace(code, "%s", how), %{"rows" => Serde.stream(rows)}) ==
                 {:ok, {count, kind, reason, message, []}}
      end
    end
  end

  describe "the process of the enumerable" do
    test "has the caller's group leader, $callers and metadata", %{inp: inp} do
      test = self()
      require Logger
      Logger.metadata(of: :the_caller)

      rows =
        Stream.map([1], fn n ->
          send(test, {Process.group_leader(), Process.get(:"$callers"), Logger.metadata()[:of]})
          IO.puts("printed")
          n
        end)

      printed =
        ExUnit.CaptureIO.capture_io(fn ->
          leader = Process.group_leader()
          assert Snex.pyeval(inp, "return list(rows)", %{"rows" => Serde.stream(rows)}) == {:ok, [1]}
          assert_received {^leader, [^test | _], :the_caller}
          code = "return list(await f())"
          assert Snex.pyeval(inp, code, %{"f" => fn -> Serde.stream(rows) end}) == {:ok, [1]}
          assert_received {^leader, [_answering, ^test | _], :the_caller}
        end)

      assert printed == "printed\nprinted\n"
    end
  end
end
