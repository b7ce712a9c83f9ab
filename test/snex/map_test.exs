defmodule Snex.MapTest do
  # One call for each element: what is called with what, and what comes of it. How a map ends, and what it has to do with others who
  # use the interpreter: see test/snex/map/.
  use Snex.Case, async: true

  alias Snex.Object

  setup do
    script = """
    import asyncio, functools

    calls = []
    seen = []
    most = now = 0

    class Odd(Exception):
        pass

    def note(x):
        calls.append(x)
        return x

    def even(x):
        calls.append(x)
        if x % 2:
            raise Odd(f"{x} is odd")
        return x

    def collect(x):
        seen.append(x)
        return seen

    async def later(x):
        global most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001 * (x % 3))
        now -= 1
        return x

    def sometimes(x):
        return later(x) if x % 2 else x

    def deferred(x):
        return asyncio.get_running_loop().create_task(later(x))

    class Adder:
        def __init__(self, n): self.n = n
        def __call__(self, x): return self.n + x
        def add(self, x, *, times=1): return self.n + x * times
    """

    {:ok, inp: start_interpreter!(init_script: script)}
  end

  defp values(results), do: for({:ok, value} <- results, do: value)

  defp errors(results) do
    for {{:error, error}, index} <- Enum.with_index(results),
        do: {index, error.exception[:type] || error.code}
  end

  describe "a function" do
    test "is called with each element, in order, however many there are", %{inp: inp} do
      for count <- [0, 1, 2, 3, 63, 64, 65, 1_000, 20_000] do
        elements = Enum.to_list(1..count//1)
        assert {count, Snex.map(inp, "note", elements)} == {count, Enum.map(elements, &{:ok, &1})}
        assert Snex.call(inp, "calls.copy") == {:ok, elements}
        {:ok, nil} = Snex.call(inp, "calls.clear")
      end
    end

    test "is a path, one in a module, a name of the environment, or an object", %{inp: inp} do
      env = Snex.make_env!(inp)

      {:ok, nil} =
        Snex.pyeval(env, "def double(x): return 2 * x\nfactor = 3\ndef times(x): return factor * x")

      assert Snex.map(env, "double", [1, 2]) == [ok: 2, ok: 4]
      assert Snex.map(env, "times", [1, 2]) == [ok: 3, ok: 6]
      assert Snex.map(inp, {"os.path", "basename"}, ["a/b", "c"]) == [ok: "b", ok: "c"]
      assert Snex.map(inp, "str.upper", ["a"]) == [ok: "A"]
      adder = Snex.call!(inp, "Adder", [10])
      assert Snex.map(inp, adder, 1..3) == [ok: 11, ok: 12, ok: 13]
      {:ok, method} = Object.get(adder, "add", returns: :object)
      assert Snex.map(env, method, 1..3, kwargs: %{times: 2}) == [ok: 12, ok: 14, ok: 16]
    end

    test "of Python's own that is about variables has those of the environment", %{inp: inp} do
      env = Snex.make_env!(inp, %{"x" => 20})
      assert Snex.map(env, "eval", ["x + 1", "x + 2"]) == [ok: 21, ok: 22]
      assert Snex.map(env, "exec", ["y = x", "y += 1"]) == [ok: nil, ok: nil]
      assert Snex.get(env, "y") == {:ok, 21}
      assert [{:ok, names}] = Snex.map(env, "dir", [[]], unpack: true)
      assert "y" in names
      # Of the interpreter, each call has a copy.
      assert [{:ok, nil}, {:error, %{exception: %{type: "NameError"}}}] =
               Snex.map(inp, "exec", ["z = 1", "z"])
    end

    test "that is not there is the error of each element", %{inp: inp} do
      results = Snex.map(inp, "math.sqr", 1..200)
      assert length(results) == 200
      {:error, error} = Snex.call(inp, "math.sqr", [1])
      assert Enum.uniq(results) == [{:error, error}]
    end

    test "has several arguments from each element, and others that are the same for all", %{inp: inp} do
      assert Snex.map(inp, "operator.sub", [{5, 3}, [1, 2]], unpack: true) == [ok: 2, ok: -1]

      assert Snex.map(inp, "dict", [[], {}], unpack: true, kwargs: [a: 1]) == [
               ok: %{"a" => 1},
               ok: %{"a" => 1}
             ]

      assert Snex.map(inp, "dict", [[{1, 2}]], kwargs: [timeout: 3]) == [ok: %{1 => 2, "timeout" => 3}]

      assert [{0, "TypeError"}, {2, "TypeError"}] =
               inp |> Snex.map("abs", [1, {-1}, {1, 2}], unpack: true) |> errors()
    end
  end

  describe "each result" do
    test "is what Snex.call returns", %{inp: inp} do
      elements = [
        nil,
        true,
        1,
        -2.5,
        1.0e300,
        "text",
        "",
        :atom,
        [1, [2]],
        {1, {2}},
        %{"a" => [1]},
        MapSet.new([1]),
        self()
      ]

      elements =
        elements ++
          [make_ref(), <<1::3>>, 2 ** 200, String.duplicate("x", 100_000), ~D[2024-02-29], &Enum.sum/1]

      for function <- ["note", "type", "str", "len", "iter", "even", "later"],
          returns <- [:auto, :value, :object] do
        results = Snex.map(inp, function, elements, returns: returns)
        expected = Enum.map(elements, &Snex.call(inp, function, [&1], returns: returns))
        assert {function, Enum.map(results, &form/1)} == {function, Enum.map(expected, &form/1)}
      end
    end

    # Objects, errors without what differs: numbers of objects, the addresses of objects.
    defp form({:ok, %Object{} = object}), do: {Object, object.type, Object.str!(object) |> anonymous()}
    defp form({:ok, value}), do: if(is_binary(value), do: anonymous(value), else: value)
    defp form({:error, error}), do: {error.code, anonymous(error.reason), error.exception}

    defp anonymous(text), do: String.replace(text, ~r/ at 0x\w+/, "")

    test "is encoded before the next call can change it", %{inp: inp} do
      assert Snex.map(inp, "collect", 1..4) == for(n <- 1..4, do: {:ok, Enum.to_list(1..n)})
      {:ok, nil} = Snex.pyeval(inp, "import builtins\nbuiltins.buffer = bytearray(100_000)")

      {:ok, nil} =
        Snex.pyeval(
          inp,
          "import builtins\ndef fill(x):\n  buffer[:] = bytes([x]) * 100_000\n  return buffer\nbuiltins.fill = fill"
        )

      results = Snex.map(inp, "fill", 1..5)
      assert for({:ok, <<byte, _::binary>>} <- results, do: byte) == [1, 2, 3, 4, 5]
    end

    test "stays in Python, whole or in part", %{inp: inp} do
      results = Snex.map(inp, "collect", 1..100, returns: :object)
      assert length(results) == 100
      assert [%Object{type: "list", id: id}] = results |> values() |> Enum.uniq_by(& &1.id)
      assert is_integer(id)

      pairs = inp |> Snex.map("enumerate", List.duplicate("a", 100)) |> values()
      assert Enum.all?(pairs, &match?(%Object{type: "enumerate"}, &1))
      assert pairs |> Enum.uniq_by(& &1.id) |> length() == 100
      assert pairs |> Enum.map(&Object.call!(&1, "__next__", [])) |> Enum.uniq() == [{0, "a"}]
    end

    test "has room in a heap that is given back", %{inp: inp} do
      heap = fn -> Process.info(self(), :min_heap_size) end
      before = heap.()

      for elements <- [1..20_000, Enum.to_list(1..20_000), Stream.map(1..20_000, & &1)] do
        assert Snex.map!(inp, "abs", elements) == Enum.to_list(1..20_000)
        assert heap.() == before
        assert_raise Snex.Error, fn -> Snex.map!(inp, "math.log", Stream.map(elements, &(1 - &1))) end
        assert_raise Snex.Error, fn -> Snex.map!(inp, "math.log", Enum.map(elements, &(1 - &1))) end
        assert heap.() == before
      end
    end

    test "has no more room than the process allows itself", %{inp: inp} do
      Process.flag(:max_heap_size, 1_000_000)
      assert_raise Snex.Error, fn -> Snex.map!(inp, "math.log", -1..-1_000_000//-1) end
    end

    test "may be large", %{inp: inp} do
      text = String.duplicate("x", 300_000)

      assert inp |> Snex.map("operator.mul", List.duplicate({"x", 300_000}, 20), unpack: true) |> Enum.uniq() ==
               [ok: text]

      assert Snex.map(inp, "len", List.duplicate(text, 20)) == List.duplicate({:ok, 300_000}, 20)
    end
  end

  describe "an error" do
    test "is that of one element, with its traceback; the others go on", %{inp: inp} do
      results = Snex.map(inp, "even", 0..999)
      assert values(results) == Enum.to_list(0..999//2)
      assert errors(results) == for(n <- 1..999//2, do: {n, "Odd"})
      assert Snex.call(inp, "calls.copy") == {:ok, Enum.to_list(0..999)}
      {:error, error} = Enum.at(results, 1)
      assert error == inp |> Snex.call("even", [1]) |> elem(1)
      assert Enum.join(error.traceback) =~ ~r/in even\n.*raise Odd/
      refute Enum.join(error.traceback) =~ "_eval"
    end

    test "may be any exception", %{inp: inp} do
      code =
        "def fail(name):\n  raise getattr(__import__('builtins'), name, __import__('asyncio').CancelledError)('x')"

      env = Snex.make_env!(inp)
      {:ok, nil} = Snex.pyeval(env, code)

      names =
        ~w[SystemExit KeyboardInterrupt GeneratorExit StopIteration MemoryError CancelledError BaseException]

      for opts <- [[], [run: :thread], [demand: 1]] do
        assert env |> Snex.map("fail", names, opts) |> errors() == Enum.with_index(names, &{&2, &1})
      end

      {:ok, nil} = Snex.pyeval(env, "async def fail_later(name): await asyncio.sleep(0); fail(name)")
      # Python makes this of one that leaves a coroutine.
      names_later = List.replace_at(names, 3, "RuntimeError")
      # As for a call, these two end a task's event loop, and not the interpreter.
      names_later = names_later -- ["SystemExit", "KeyboardInterrupt"]
      given = names -- ["SystemExit", "KeyboardInterrupt"]
      assert env |> Snex.map("fail_later", given) |> errors() == Enum.with_index(names_later, &{&2, &1})
    end

    test "is a result that has no form in Elixir", %{inp: inp} do
      results = Snex.map(inp, "copy.copy", Enum.to_list(1..99) ++ [&Enum.sum/1], returns: :value)
      assert length(values(results)) == 100
      results = Snex.map(inp, "range", 1..200, returns: :value)
      assert length(values(results)) == 200
      # Every other one.
      {:ok, nil} =
        Snex.pyeval(inp, "import builtins\nbuiltins.halves = lambda x: [x, object() if x % 2 else x]")

      results = Snex.map(inp, "halves", 0..199, returns: :value)
      assert values(results) == for(n <- 0..199//2, do: [n, n])
      assert errors(results) == for(n <- 1..199//2, do: {n, "TypeError"})
      {:error, error} = Enum.at(results, 1)
      assert error.reason =~ "[1]: Cannot serialize object of <class 'object'>"
    end

    test "is an element that cannot be encoded, or loaded", %{inp: inp} do
      {:ok, other} = Interpreter.start_link()
      released = Snex.call!(inp, "object")
      :ok = Object.release(released)

      bad = [
        {"\xff", "UnicodeDecodeError"},
        {%{[1] => 2}, "TypeError"},
        {%{"a" => 1, a: 2}, "ValueError"},
        {Serde.object("builtins", "int", ["x"]), "ValueError"},
        {%Snex.Broken{how: :raise}, :call_failed},
        {%Snex.Broken{how: :throw}, :call_failed},
        {released, :object_not_found},
        {Snex.call!(other, "object"), :call_failed},
        {Serde.stream([Serde.stream([1])]), nil}
      ]

      for {element, type} <- bad, type != nil, count <- [1, 2, 150] do
        {:ok, nil} = Snex.call(inp, "calls.clear")
        elements = List.insert_at(Enum.to_list(1..(count - 1)//1), div(count, 2), element)
        results = Snex.map(inp, "note", elements)
        assert {element, errors(results)} == {element, [{div(count, 2), type}]}
        assert values(results) == Enum.to_list(1..(count - 1)//1)
        # None of them twice.
        assert Snex.call(inp, "calls.copy") == {:ok, Enum.to_list(1..(count - 1)//1)}
      end

      mixed = Enum.flat_map(bad, fn {element, _type} -> [element, 1, 2] end)
      assert inp |> Snex.map("id", Enum.take(mixed, 24)) |> values() |> length() == 16
    end

    test "says where in the element it is", %{inp: inp} do
      results = Snex.map(inp, "note", [1, %{"rows" => [1, "\xff"]}, 2])
      assert [ok: 1, error: error, ok: 2] = results
      assert error.reason =~ "in the argument 1['rows'][1]"
      assert [error: error] = Snex.map(inp, "note", [{1, ["\xff"]}], unpack: true)
      assert error.reason =~ "in the argument 2[0]"
      assert [error: error] = Snex.map(inp, "note", [&Enum.sum/1], kwargs: [x: "\xff"])
      assert error.reason =~ "in the argument x"
    end
  end

  describe "what can be awaited" do
    test "is, before the next call", %{inp: inp} do
      for function <- ["later", "sometimes", "deferred"] do
        assert Snex.map(inp, function, 1..20) == Enum.map(1..20, &{:ok, &1})
        assert {function, Snex.get(inp, "most")} == {function, {:ok, 1}}
      end
    end

    test "is awaited in a thread as well", %{inp: inp} do
      assert Snex.map(inp, "later", 1..20, run: :thread) == Enum.map(1..20, &{:ok, &1})
      assert Snex.get(inp, "most") == {:ok, 1}
      assert Snex.map(inp, "threading.current_thread", 1..3, run: :thread) |> length() == 3
      assert [ok: false] = Snex.map(inp, "operator.eq", [{1, 2}], run: :thread, unpack: true)
    end

    test "can be under way several times, and the order is kept", %{inp: inp} do
      assert Snex.map(inp, "later", 1..60, concurrency: 4) == Enum.map(1..60, &{:ok, &1})
      {:ok, most} = Snex.get(inp, "most")
      assert most in 2..4
    end
  end

  describe "an enumerable" do
    test "is anything that is enumerable", %{inp: inp} do
      assert Snex.map(inp, "len", %{"a" => 1}) == [ok: 2]
      assert Snex.map(inp, "abs", MapSet.new([-1])) == [ok: 1]
      assert Snex.map(inp, "abs", Stream.map(1..3, &(-&1))) == [ok: 1, ok: 2, ok: 3]
      assert Snex.map(inp, "abs", Snex.stream(inp, "yield from (-1, -2)")) == [ok: 1, ok: 2]
      assert Snex.map(inp, "abs", []) == []

      assert inp
             |> Snex.map("str", 1..3, stream: true)
             |> then(&Snex.map(inp, "len", for({:ok, x} <- &1, do: x))) == [ok: 1, ok: 1, ok: 1]
    end

    test "runs in the calling process, and what it raises is raised", %{inp: inp} do
      test = self()

      assert Snex.map(inp, "abs", Stream.map(1..3, fn n -> send(test, self()) && n end), concurrency: 2)
             |> length() == 3

      for _ <- 1..3, do: assert_received(^test)

      enumerable = Stream.map(1..300, &if(&1 == 250, do: raise(ArgumentError, "no more"), else: &1))

      for opts <- [[], [stream: true], [concurrency: 2], [demand: 1], [demand: 100]] do
        {:ok, nil} = Snex.call(inp, "calls.clear")

        assert_raise ArgumentError, "no more", fn ->
          inp |> Snex.map("note", enumerable, opts) |> Enum.to_list()
        end

        {:ok, calls} = Snex.call(inp, "calls.copy")
        assert Enum.sort(calls) == Enum.to_list(1..length(calls)//1)
        assert length(calls) < 250
      end
    end

    test "is closed once, however the map ends", %{inp: inp} do
      test = self()
      enumerable = Stream.resource(fn -> 1 end, &{[&1], &1 + 1}, fn _n -> send(test, :closed) end)

      ends = [
        fn -> inp |> Snex.map("note", enumerable, stream: true) |> Enum.take(3) end,
        fn -> inp |> Snex.map("note", enumerable, stream: true, concurrency: 3) |> Enum.take(3) end,
        fn -> inp |> Snex.map("note", Stream.take(enumerable, 500)) |> length() end,
        fn -> catch_error(Snex.map!(inp, "even", enumerable)) end,
        fn -> catch_throw(inp |> Snex.map("note", enumerable, stream: true) |> Enum.each(&throw/1)) end,
        fn -> inp |> Snex.map("note", enumerable, stream: true) |> Stream.zip(1..2) |> Enum.to_list() end,
        fn -> catch_error(Snex.map(inp, "note", Stream.each(enumerable, &if(&1 == 99, do: raise("x"))))) end
      ]

      for stop <- ends do
        assert stop.()
        assert_received :closed
        refute_received :closed
      end
    end
  end

  describe "stream: true" do
    test "runs nothing before it is enumerated, and anew each time", %{inp: inp} do
      stream = Snex.map(inp, "note", 1..3, stream: true)
      assert Snex.call(inp, "calls.copy") == {:ok, []}
      for _ <- 1..2, do: assert(Enum.to_list(stream) == [ok: 1, ok: 2, ok: 3])
      assert Snex.call(inp, "calls.copy") == {:ok, [1, 2, 3, 1, 2, 3]}
    end

    test "has no end if the elements have none, and is not far ahead", %{inp: inp} do
      test = self()
      elements = Stream.iterate(1, &(&1 + 1)) |> Stream.each(&send(test, {:asked, &1}))

      for demand <- [1, 7, 100] do
        stream = Snex.map(inp, "note", elements, stream: true, demand: demand)
        assert stream |> Stream.take(1_000) |> Enum.to_list() == Enum.map(1..1_000, &{:ok, &1})
        assert_received {:asked, 1_000}
        # Frames end where they end.
        ahead = 1_000 + demand
        refute_received {:asked, ^ahead}
        flush()
      end
    end

    defp flush do
      receive do
        {:asked, _n} -> flush()
      after
        0 -> :ok
      end
    end

    test "asks for large elements only when those before them are done", %{inp: inp} do
      test = self()
      text = String.duplicate("x", 200_000)
      elements = Stream.repeatedly(fn -> send(test, {:asked, 1}) && text end)
      assert inp |> Snex.map("len", elements, stream: true) |> Enum.take(50) |> Enum.uniq() == [ok: 200_000]
      assert count(0) in 50..53
    end

    defp count(n) do
      receive do
        {:asked, 1} -> count(n + 1)
      after
        0 -> n
      end
    end

    test "with demand: 1, gives each result before it asks for the next element", %{inp: inp} do
      elements = Stream.resource(fn -> 1 end, &wait_for/1, & &1)
      send(self(), {:next, 1})

      assert inp
             |> Snex.map("note", elements, stream: true, demand: 1)
             |> Stream.each(fn {:ok, n} -> send(self(), {:next, n + 1}) end)
             |> Enum.take(50)
             |> length() == 50
    end

    defp wait_for(n) do
      receive do
        {:next, ^n} -> {[n], n + 1}
      end
    end

    test "can be suspended, and gone on with", %{inp: inp} do
      for opts <- [[], [concurrency: 2]] do
        stream = Snex.map(inp, "note", 1..1_000, [stream: true] ++ opts)
        assert stream |> Stream.zip(1..1_000) |> Enum.all?(fn {{:ok, a}, b} -> a == b end)
      end
    end
  end

  describe "map!" do
    test "returns values, and raises the first error", %{inp: inp} do
      assert Snex.map!(inp, "abs", [-1, 2]) == [1, 2]
      assert inp |> Snex.map!("abs", [-1, 2], stream: true) |> Enum.to_list() == [1, 2]
      assert_raise Error, ~r/3 is odd/, fn -> Snex.map!(inp, "even", [2, 3, 4]) end
      stream = Snex.map!(inp, "even", [2, 3, 4], stream: true)
      assert Enum.take(stream, 1) == [2]
      assert_raise Error, ~r/3 is odd/, fn -> Enum.to_list(stream) end
    end
  end

  test "arguments of the wrong form are refused at once", %{inp: inp} do
    for {args, message} <- [
          {[inp, "a..b", [1]], ~r/expected a name/},
          {[inp, nil, [1]], ~r/expected a name/},
          {[inp, "abs", [1], [demand: 0]], ~r/option :demand cannot be 0/},
          {[inp, "abs", [1], [concurrency: 0]], ~r/option :concurrency cannot be 0/},
          {[inp, "abs", [1], [stream: 1]], ~r/option :stream cannot be 1/},
          {[inp, "abs", [1], [base: 2]], ~r/kwargs: \[base: ...\]/},
          {[inp, "abs", [1], [on_timeout: :leave]], ~r/unknown option :on_timeout/},
          {[%{}, "abs", [1]], ~r/expected an environment or an interpreter/},
          {[%{}, "abs", [1], [stream: true]], ~r/expected an environment or an interpreter/}
        ],
        do: assert_raise(ArgumentError, message, fn -> apply(Snex, :map, args) end)

    assert_raise Protocol.UndefinedError, fn -> Snex.map(inp, "abs", 1) end
  end
end
