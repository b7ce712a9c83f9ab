defmodule Snex.StreamTest do
  # Streams of what Python produces: where items come from, and what the enumeration is like. How it ends early, how far Python runs ahead, what
  # it prints and calls meanwhile: see test/snex/stream/.
  use Snex.Case, async: true

  alias Snex.Object

  setup do
    script = """
    import asyncio, itertools

    def squares(n, *, start=0):
        for x in range(start, n):
            yield x * x

    async def later(n):
        for x in range(n):
            await asyncio.sleep(0)
            yield x

    async def awaited(n):
        await asyncio.sleep(0)
        return iter(range(n))

    class Both:
        def __iter__(self): return iter("sync")
        def __aiter__(self): return later(2)

    class Old:
        def __getitem__(self, index): return "abc"[index]
    """

    {:ok, inp: start_interpreter!(init_script: script)}
  end

  defp list(where, source, vars_or_opts \\ []),
    do: where |> Snex.stream(source, vars_or_opts) |> Enum.to_list()

  describe "items come from" do
    test "yield and yield from at the top level", %{inp: inp} do
      assert list(inp, "yield 1") == [1]
      assert list(inp, "for x in range(3):\n  yield x\nyield from 'ab'") == [0, 1, 2, "a", "b"]
      assert list(inp, "yield a\nreturn\nyield 2", %{"a" => 1}) == [1]
      assert list(inp, "if False: yield 1") == []
      assert list(inp, %Snex.Code{src: ["yield", " 1"]}) == [1]
      assert list(inp, "yield from ()") == []
    end

    test "await together with yield", %{inp: inp} do
      assert list(inp, "import asyncio\nfor x in range(3):\n  await asyncio.sleep(0)\n  yield x") == [0, 1, 2]
      assert list(inp, "async for x in later(3): yield x + 1") == [1, 2, 3]
      assert list(inp, "yield await Elixir.Enum.sum([1, 2])") == [3]
    end

    test "what the code returns", %{inp: inp} do
      for {code, items} <- [
            {"return [1, 2]", [1, 2]},
            {"return (x for x in 'ab')", ["a", "b"]},
            {"return {'a': 1}", ["a"]},
            {"return range(3)", [0, 1, 2]},
            {"return b'ab'", [97, 98]},
            {"return squares(3)", [0, 1, 4]},
            {"return later(3)", [0, 1, 2]},
            {"return awaited(2)", [0, 1]},
            {"return Both()", [0, 1]},
            {"return Old()", ["a", "b", "c"]},
            {"return map(str, [1, 2])", ["1", "2"]},
            {"return itertools.islice(itertools.count(), 3)", [0, 1, 2]},
            {"x = await awaited(2)\nreturn x", [0, 1]},
            {"return []", []}
          ],
          do: assert({code, list(inp, code)} == {code, items})
    end

    test "functions, with their arguments, in modules and in the environment", %{inp: inp} do
      assert list(inp, {"squares", [4]}) == [0, 1, 4, 9]
      assert list(inp, {"squares", [4], start: 2}) == [4, 9]
      assert list(inp, {"squares", [4], %{"start" => 3}}) == [9]
      assert list(inp, {{"itertools", "repeat"}, ["x", 2]}) == ["x", "x"]
      assert list(inp, {"later", [2]}) == [0, 1]
      assert list(inp, {"awaited", [2]}) == [0, 1]
      assert list(inp, {"enumerate", ["ab"], start: 1}) == [{1, "a"}, {2, "b"}]
      env = Snex.make_env!(inp)
      Snex.pyeval!(env, "def mine(): yield from 'xy'")
      assert list(env, {"mine", []}) == ["x", "y"]
      # It returns nothing from an interpreter's root environment.
      assert_raise Error, ~r/'mine' is neither a name/, fn -> list(inp, {"mine", []}) end
    end

    test "objects", %{inp: inp} do
      for {path, args} <- [{"squares", [3]}, {"later", [3]}, {"list", [[0, 1, 4]]}] do
        object = Snex.call!(inp, path, args, returns: :object)
        assert Enum.sum(Object.stream(object)) in [3, 5]
      end
    end

    test "each thread that it may run in", %{inp: inp} do
      for run <- [:auto, :loop, :thread],
          code <- ["yield from range(300)", "async for x in later(300): yield x"] do
        assert list(inp, code, run: run) == Enum.to_list(0..299)
      end

      here = "import threading\nwhile True: yield threading.current_thread() is threading.main_thread()"
      assert inp |> Snex.stream(here) |> Enum.take(300) |> Enum.uniq() == [false]
      assert inp |> Snex.stream(here, run: :thread) |> Enum.take(300) |> Enum.uniq() == [false]
      assert inp |> Snex.stream(here, run: :loop) |> Enum.take(300) |> Enum.uniq() == [true]
    end
  end

  describe "items" do
    test "are as they were when they were produced", %{inp: inp} do
      code = "row = []\nfor x in range(600):\n  row.append(x)\n  del row[:-1]\n  yield row"
      assert list(inp, code) == for(x <- 0..599, do: [x])
    end

    test "may be anything, of any size", %{inp: inp} do
      code =
        "yield None; yield {'a': (1, 2.5)}; yield b'x' * size; yield [1] * 1000; yield 'ü' * 1000; yield [[]]; yield 2 ** 100"

      assert list(inp, code, %{"size" => 20_000_000}) == [
               nil,
               %{"a" => {1, 2.5}},
               :binary.copy("x", 20_000_000),
               List.duplicate(1, 1000),
               String.duplicate("ü", 1000),
               [[]],
               2 ** 100
             ]
    end

    test "without a form in Elixir stay in Python, as values that are asked for as objects do", %{inp: inp} do
      assert [%Object{type: "object"}, 1] = list(inp, "yield object(); yield 1", returns: :auto)
      assert [%Object{type: "int"}, %Object{type: "list"}] = list(inp, "yield 1; yield []", returns: :object)

      assert [[%Object{} = one, %Object{}], %Object{}] =
               list(inp, "yield [object(), object()]; yield object()", returns: :auto)

      assert "<object object" <> _ = Object.repr!(one)
      # The default for functions and objects.
      assert [%Object{}] = list(inp, {"iter", [[]]}) ++ list(inp, {"itertools.repeat", [one, 1]})
      items = Snex.pyeval!(inp, "return [object(), 1]", %{}, returns: :object)
      assert [%Object{type: "object"}, 1] = Enum.to_list(items)

      objects = list(inp, "for x in range(1000): yield {x: snex.keep(object())}", returns: :value)
      assert length(objects) == 1000
      assert objects |> Enum.flat_map(&Map.values/1) |> Enum.uniq_by(& &1.id) |> length() == 1000
    end

    test "that cannot be decoded are an error behind those before them" do
      inp = start_interpreter!(atoms: :existing)
      name = "never_made_before_#{System.unique_integer([:positive])}"
      code = "yield from range(n)\nyield snex.Atom(name)\nyield 'never seen'"

      for n <- [0, 1, 100, 1_000], returns <- [:value, :auto] do
        vars = %{"name" => name, "n" => n}
        {items, error} = until_error(Snex.stream(inp, code, vars, returns: returns))
        assert items == Enum.to_list(0..(n - 1)//1)
        assert %Error{code: :internal_error, reason: reason} = error
        assert reason =~ "names an atom that does not exist"
      end

      code = "yield snex.keep(object()), 1\nyield snex.keep(object()), snex.Atom(name)"
      assert {[{%Object{}, 1}], %Error{}} = until_error(Snex.stream(inp, code, %{"name" => name}, demand: 1))
      eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
    end

    test "that are objects are let go of as soon as nobody refers to them, also while the stream goes on", %{
      inp: inp
    } do
      code = """
      import asyncio
      for n in range(5): yield object()
      await asyncio.Event().wait()
      """

      test = self()

      consumer =
        spawn_link(fn ->
          inp
          |> Snex.stream(code, returns: :auto)
          |> Stream.with_index()
          |> Enum.each(fn {%Object{}, n} ->
            :erlang.garbage_collect()
            send(test, {:seen, n})
          end)
        end)

      assert_receive {:seen, 4}, 60_000

      eventually(fn ->
        # That of a process which waits.
        :erlang.garbage_collect(consumer)
        Interpreter.info(inp).objects == 0
      end)

      assert Interpreter.info(inp).requests_in_flight == 1
      Process.unlink(consumer)
      Process.exit(consumer, :kill)
    end

    test "go through Python and come back: a stream of a stream", %{inp: inp} do
      vars = %{"numbers" => Serde.stream(1..1_000)}
      assert inp |> Snex.stream("for n in numbers: yield n * 2", vars) |> Enum.sum() == 1_001_000
      assert inp |> Snex.stream("async for n in numbers: yield n * 2", vars) |> Enum.sum() == 1_001_000
      endless = Stream.iterate(1, &(&1 + 1))

      assert inp |> Snex.stream({"map", [Serde.callback(&(&1 * 2)), Serde.stream(endless)]}) |> Enum.take(3) ==
               [2, 4, 6]

      assert inp |> Snex.stream({"zip", [Serde.stream(endless), "ab"]}) |> Enum.to_list() == [
               {1, "a"},
               {2, "b"}
             ]

      eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
    end

    test "by the thousand come complete and in order, with any demand", %{inp: inp} do
      for demand <- [1, 2, 3, 7, 256, 1_000_000],
          code <- ["yield from range(n)", "return range(n)", "return later(n)", "return list(range(n))"] do
        stream = Snex.stream(inp, code, %{"n" => 2_000}, demand: demand)
        assert Enum.to_list(stream) == Enum.to_list(0..1_999)
      end
    end
  end

  describe "an enumeration" do
    test "starts anew each time, and nothing runs before it does", %{inp: inp} do
      env = Snex.make_env!(inp, %{"runs" => []})
      stream = Snex.stream(env, "runs.append(1)\nyield from 'ab'")
      assert Snex.get!(env, "runs") == []
      assert {Enum.to_list(stream), Enum.to_list(stream)} == {["a", "b"], ["a", "b"]}
      assert Snex.get!(env, "runs") == [1, 1]
    end

    test "zips, flattens and transforms like any other", %{inp: inp} do
      letters = Snex.stream(inp, "yield from 'abcdefgh'", demand: 2)
      numbers = Snex.stream(inp, {"itertools.count", [1]}, demand: 3)
      assert Enum.zip(letters, numbers) |> Enum.take(2) == [{"a", 1}, {"b", 2}]
      assert Stream.zip(letters, numbers) |> Enum.to_list() |> List.last() == {"h", 8}
      assert Stream.zip([numbers, letters, numbers]) |> Enum.at(2) == {3, "c", 3}
      assert for({x, y} <- Stream.zip(letters, letters), x == y, do: x) |> Enum.join() == "abcdefgh"

      assert Enum.flat_map(Enum.take(letters, 2), fn x -> numbers |> Stream.map(&{x, &1}) |> Enum.take(1) end) ==
               [{"a", 1}, {"b", 1}]

      sums =
        Stream.transform(numbers, 0, fn x, sum ->
          if sum > 10, do: {:halt, sum}, else: {[sum + x], sum + x}
        end)

      assert Enum.to_list(sums) == [1, 3, 6, 10, 15]
      assert Stream.concat(letters, letters) |> Enum.count() == 16
      assert Stream.chunk_every(letters, 3) |> Enum.map(&Enum.join/1) == ["abc", "def", "gh"]
      assert numbers |> Stream.cycle() |> Enum.at(5) == 6
      assert letters |> Task.async_stream(& &1, timeout: :infinity) |> Enum.count() == 8
    end

    test "is suspended and goes on, also in another process", %{inp: inp} do
      one = fn item, _acc -> {:suspend, item} end
      stream = Snex.stream(inp, "yield from range(5)", demand: 2)
      {:suspended, 0, go_on} = Enumerable.reduce(stream, {:cont, nil}, one)
      {:suspended, 1, go_on} = go_on.({:cont, nil})

      {:suspended, 2, go_on} = Task.await(Task.async(fn -> go_on.({:cont, nil}) end), :infinity)
      # That process is gone, and with it the stream, if it has not been taken back before.
      assert {:halted, :enough} = go_on.({:halt, :enough})

      {:suspended, 0, go_on} = Enumerable.reduce(stream, {:cont, nil}, one)
      test = self()

      taker =
        spawn(fn ->
          for n <- 1..4 do
            receive do
              {:take, go_on} ->
                {:suspended, ^n, go_on} = go_on.({:cont, nil})
                send(test, {:taken, go_on})
            end
          end

          receive do: (:leave -> nil)
        end)

      go_on =
        Enum.reduce(1..4, go_on, fn _n, go_on ->
          send(taker, {:take, go_on})
          assert_receive {:taken, go_on}, 60_000
          go_on
        end)

      # As `Stream.resource/3` ends.
      assert {:halted, nil} = go_on.({:cont, nil})
      send(taker, :leave)
    end

    test "belongs to the process that goes on with it, whatever becomes of the one that has begun it", %{
      inp: inp
    } do
      one = fn item, _acc -> {:suspend, item} end
      # Frames that have come together, and frames that are asked for.
      for demand <- [1, 4, 256] do
        stream = Snex.stream(inp, "yield from range(1000)", demand: demand)
        test = self()

        go_on_to = fn range, go_on ->
          Enum.reduce(range, go_on, fn n, go_on ->
            {:suspended, ^n, go_on} = go_on.({:cont, nil})
            go_on
          end)
        end

        {beginner, monitor} =
          spawn_monitor(fn ->
            {:suspended, 0, go_on} = Enumerable.reduce(stream, {:cont, nil}, one)
            {:suspended, 1, go_on} = go_on.({:cont, nil})
            send(test, {:go_on, go_on})
            receive do: (:leave -> nil)
          end)

        assert_receive {:go_on, go_on}, 60_000
        # So far that it has asked for items itself: those of one frame are all in hand.
        go_on = go_on_to.(2..400, go_on)
        send(beginner, :leave)
        assert_receive {:DOWN, ^monitor, :process, ^beginner, :normal}, 60_000
        assert {:halted, nil} = go_on_to.(401..999, go_on).({:cont, nil})
      end
    end

    test "that goes on when the process is gone that has begun it is an error that says so", %{inp: inp} do
      stream = Snex.stream(inp, "yield from range(5)", demand: 1)

      begin = fn ->
        {:suspended, 0, go_on} =
          Enumerable.reduce(stream, {:cont, nil}, fn item, _acc -> {:suspend, item} end)

        go_on
      end

      go_on = Task.await(Task.async(begin), :infinity)
      eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
      assert %Error{code: :call_failed, reason: reason} = catch_error(go_on.({:cont, nil}))
      assert reason =~ "the process that enumerated it"
    end

    test "of 32 at once, in one interpreter", %{inp: inp} do
      sums =
        1..32
        |> Task.async_stream(
          fn n ->
            code =
              Enum.at(
                ["yield from range(n)", "async for x in later(n): yield x", "return range(n)"],
                rem(n, 3)
              )

            inp |> Snex.stream(code, %{"n" => 10 * n}, demand: n) |> Enum.sum()
          end,
          max_concurrency: 32,
          timeout: :infinity
        )
        |> Enum.map(&elem(&1, 1))

      assert sums == for(n <- 1..32, do: div(10 * n * (10 * n - 1), 2))
    end
  end

  describe "an object as an Enumerable" do
    test "is what Python says", %{inp: inp} do
      numbers = Snex.call!(inp, "range", [10, 20], returns: :object)
      assert Enum.to_list(numbers) == Enum.to_list(10..19)
      assert {Enum.count(numbers), Enum.member?(numbers, 12), 20 in numbers} == {10, true, false}
      assert Enum.at(numbers, 3) == 13
      assert Enum.slice(numbers, 2, 2) == [12, 13]
      assert Enum.take(numbers, 2) == [10, 11]
      assert for(n <- numbers, n > 17, do: n) == [18, 19]
      words = Snex.call!(inp, "dict", [%{"a" => 1}], returns: :object)
      assert {Enum.to_list(words), "a" in words, Enum.count(words)} == {["a"], true, 1}
    end

    test "without a length is counted", %{inp: inp} do
      generator = Snex.call!(inp, "squares", [3], returns: :object)
      assert Enum.count(generator) == 3
      assert Enum.empty?(generator)
    end

    test "that is none, or is gone, is an error", %{inp: inp} do
      number = Snex.call!(inp, "int", [1], returns: :object)
      assert_raise Error, ~r/'int' object is not iterable/, fn -> Enum.to_list(number) end
      assert_raise Error, ~r/'int' is not iterable|'int' object|argument of type 'int'/, fn -> 1 in number end
      Object.release(number)
      assert %Error{code: :object_not_found} = catch_error(Enum.to_list(number))
      assert %Error{code: :object_not_found} = catch_error(Enum.count(number))
      here = start_interpreter!()
      gone = Snex.call!(here, "list", [[1]], returns: :object)
      Interpreter.stop(here)
      assert %Error{code: :object_not_found, reason: reason} = catch_error(Enum.to_list(gone))
      assert reason =~ "its interpreter"
    end
  end

  describe "an error" do
    test "is raised behind the items before it", %{inp: inp} do
      for {code, type} <- [
            {"yield from range(n)\nraise ValueError('x')", "ValueError"},
            {"for x in range(n): yield x\nyield object()", "TypeError"},
            {"async for x in later(n): yield x\n1 / 0", "ZeroDivisionError"},
            {"import sys\nyield from range(n)\nsys.exit(3)", "SystemExit"},
            {"return itertools.chain(range(n), [object()])", "TypeError"}
          ],
          n <- [0, 1, 3, 500] do
        {items, error} = until_error(Snex.stream(inp, code, %{"n" => n}))
        assert {code, items} == {code, Enum.to_list(0..(n - 1)//1)}
        assert %Error{code: :python_runtime_error, exception: %{type: ^type}, traceback: [_ | _]} = error
      end
    end

    test "of what is no iterable, of code that does not parse, of a name that leads nowhere", %{inp: inp} do
      for {source, message} <- [
            {"return 1", ~r/'int' object is not iterable; the code of a stream must yield its items/},
            {"x = 1", ~r/'NoneType' object is not iterable; the code of a stream must yield its items/},
            {"yield = 1", ~r/SyntaxError/},
            {"raise KeyError('k')", ~r/KeyError/},
            {{"len", ["ab"]}, ~r/'int' object is not iterable; the code of a stream must yield its items/},
            {{"nothing_there", []}, ~r/'nothing_there' is neither a name/},
            {{"squares", []}, ~r/missing 1 required positional argument/}
          ] do
        assert_raise Error, message, fn -> list(inp, source) end
      end
    end

    test "of an environment, an object or an interpreter that is gone", %{inp: inp} do
      env = Snex.make_env!(inp)
      Snex.destroy_env(env)
      assert %Error{code: :env_not_found} = catch_error(list(env, "yield 1"))
      gone = start_interpreter!()
      Interpreter.stop(gone)
      assert %Error{code: :call_failed, reason: :noproc} = catch_error(list(gone, "yield 1"))
      assert_raise Error, ~r/no interpreter is named :nobody/, fn -> list(:nobody, "yield 1") end
    end

    test "of yield where no items are wanted names Snex.stream", %{inp: inp} do
      assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, "yield 1")
      assert reason =~ "Snex.stream"
    end

    test "comes when an item does not in time, and the generator is closed", %{inp: inp} do
      code = """
      import time
      try:
          yield 1
          while True: time.sleep(0.01)
      finally: snex.send_sync(test, "closed")
      """

      {items, error} = until_error(Snex.stream(inp, code, %{"test" => self()}, timeout: 300))
      assert items == [1]
      assert %Error{code: :response_timeout, details: %{timeout: 300, option: :timeout}} = error
      assert_receive "closed", 60_000
    end

    test "does not come while each item is in time", %{inp: inp} do
      code = "import asyncio\nfor x in range(5):\n  await asyncio.sleep(0.1)\n  yield x"
      # In all, they take longer than that.
      assert list(inp, code, timeout: 400) == [0, 1, 2, 3, 4]
    end
  end

  describe "arguments are refused" do
    test "when they have the wrong form, before anything runs", %{inp: inp} do
      for {message, fun} <- [
            {~r/unknown option :demnd, did you mean :demand\?/,
             fn -> Snex.stream(inp, "yield 1", demnd: 1) end},
            {~r/unknown option :returning/, fn -> Snex.stream(inp, "yield 1", returning: "x") end},
            {~r/option :demand cannot be 0: expected an integer from 1 to/,
             fn -> Snex.stream(inp, "yield 1", demand: 0) end},
            {~r/option :demand cannot be 1.5/, fn -> Snex.stream(inp, {"f", []}, demand: 1.5) end},
            {~r/option :run cannot be :process: expected :auto, :loop or :thread/,
             fn -> Snex.stream(inp, "yield 1", run: :process) end},
            {~r/option :returns cannot be :list/, fn -> Snex.stream(inp, "yield 1", returns: :list) end},
            {~r/option :timeout cannot be -1/, fn -> Snex.stream(inp, "yield 1", timeout: -1) end},
            {~r/expected code, or {function, args}, got: nil/, fn -> Snex.stream(inp, nil) end},
            {~r/expected code as a string or a Snex.Code, got: 1/, fn -> Snex.stream(inp, 1) end},
            {~r/expected variables as a map with string keys/, fn -> Snex.stream(inp, "yield 1", :vars) end},
            {~r/expected a list of arguments, got: 1/, fn -> Snex.stream(inp, {"f", 1}) end},
            {~r/expected a name, names joined by dots/, fn -> Snex.stream(inp, {".f", []}) end},
            {~r/arguments by their names cannot be \[1\]: expected a keyword list/,
             fn -> Snex.stream(inp, {"f", [], [1]}) end},
            {~r/variables are only for code/, fn -> Snex.stream(inp, {"f", []}, %{"x" => 1}) end},
            {~r/expected an environment or an interpreter/, fn -> Snex.stream(1, "yield 1") end},
            {~r/expected an environment or an interpreter/, fn -> Snex.stream({1, 2}, {"f", []}) end}
          ],
          do: assert_raise(ArgumentError, message, fun)
    end

    test "when they cannot be encoded, as soon as it is enumerated", %{inp: inp} do
      stream = Snex.stream(inp, "yield x", %{x: 1})

      assert_raise ArgumentError, ~r/names of variables have to be strings in UTF-8, got: :x/, fn ->
        Enum.to_list(stream)
      end

      other = Snex.call!(start_interpreter!(), "list", [], returns: :object)
      assert_raise ArgumentError, ~r/belongs to the interpreter/, fn -> list(inp, {"iter", [other]}) end
      assert Interpreter.info(inp).requests_in_flight == 0
    end
  end

  # The items, and the error that is raised then.
  defp until_error(stream) do
    test = make_ref()

    error =
      catch_error(Enum.each(stream, &send(self(), {test, &1})))

    {received(test, []), error}
  end

  defp received(test, items) do
    receive do
      {^test, item} -> received(test, [item | items])
    after
      0 -> Enum.reverse(items)
    end
  end
end
