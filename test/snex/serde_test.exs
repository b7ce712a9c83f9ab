defmodule Snex.SerdeTest do
  use Snex.Case, async: true

  doctest Snex.Serde

  @moduletag :interpreter

  # What Python sees: the value's type, and its repr.
  defp seen(inp, value, opts \\ []) do
    {:ok, seen} = Snex.pyeval(inp, "return (type(x).__name__, repr(x))", %{"x" => value}, opts)
    seen
  end

  defp round_trip(inp, value, opts \\ []) do
    {:ok, result} = Snex.pyeval(inp, "return x", %{"x" => value}, [timeout: 60_000] ++ opts)
    result
  end

  describe "the table, to Python and back:" do
    test "nil, true and false are None, True and False", %{inp: inp} do
      assert seen(inp, nil) == {"NoneType", "None"}
      assert seen(inp, true) == {"bool", "True"}
      assert seen(inp, false) == {"bool", "False"}
      assert round_trip(inp, [nil, true, false]) === [nil, true, false]
    end

    test "an atom is a snex.Atom, a str; or a snex.DistinctAtom, which no str equals", %{inp: inp} do
      assert seen(inp, :name) == {"Atom", "snex.Atom('name')"}
      code = "return isinstance(x, str), x == 'foo', {'foo': 1}[x]"
      assert Snex.pyeval(inp, code, %{"x" => :foo}) == {:ok, {true, true, 1}}

      distinct = [encoding_opts: [atom_as: :distinct_atom]]
      assert seen(inp, :name, distinct) == {"DistinctAtom", "snex.DistinctAtom('name')"}
      code = "return x == 'foo', x == snex.DistinctAtom('foo')"
      assert Snex.pyeval(inp, code, %{"x" => :foo}, distinct) == {:ok, {false, true}}
      atoms = [:name, Snex.Serde, :"with space", :żółw, :ok]
      assert round_trip(inp, atoms) === atoms
      assert round_trip(inp, atoms, distinct) === atoms
      assert Snex.pyeval(inp, "return snex.Atom('a'), snex.DistinctAtom('b')") == {:ok, {:a, :b}}
    end

    test "an atom has 1 to 255 characters, counted in characters; a longer one: ValueError: atom too long", %{
      inp: inp
    } do
      for character <- ["a", "ä", "€", "𝄞"] do
        for length <- [1, 63, 64, 255] do
          name = String.duplicate(character, length)
          code = "return snex.Atom(x), snex.DistinctAtom(x)"
          assert Snex.pyeval(inp, code, %{"x" => name}) == {:ok, {String.to_atom(name), String.to_atom(name)}}
          assert round_trip(inp, String.to_atom(name)) === String.to_atom(name)
        end

        for kind <- ["Atom", "DistinctAtom"] do
          assert {:error, %Error{code: :python_runtime_error, reason: "atom too long"} = error} =
                   Snex.pyeval(inp, "return snex.#{kind}(x)", %{"x" => String.duplicate(character, 256)})

          assert error.exception.type == "ValueError"
        end
      end
    end

    test "an integer of any size is an int", %{inp: inp} do
      assert seen(inp, 255) == {"int", "255"}
      assert seen(inp, -(2 ** 64)) == {"int", "-18446744073709551616"}
      assert round_trip(inp, [0, -1, 2 ** 63, -(2 ** 1000)]) === [0, -1, 2 ** 63, -(2 ** 1000)]
    end

    test "a float is a float, and so is what Serde.float/1 makes of :inf, :\"-inf\" and :nan", %{inp: inp} do
      assert seen(inp, 0.1) == {"float", "0.1"}
      assert seen(inp, -0.0) == {"float", "-0.0"}
      assert seen(inp, Serde.float(1.5)) == {"float", "1.5"}
      assert seen(inp, Serde.float(:inf)) == {"float", "inf"}
      assert seen(inp, Serde.float(:"-inf")) == {"float", "-inf"}
      assert seen(inp, Serde.float(:nan)) == {"float", "nan"}
      assert round_trip(inp, [0.1, -0.0, 1.0e308, 5.0e-324]) === [0.1, -0.0, 1.0e308, 5.0e-324]
      assert round_trip(inp, Enum.map([:inf, :"-inf", :nan], &Serde.float/1)) == [:inf, :"-inf", :nan]
    end

    test "a binary is a str, bytes, bytearray or memoryview: by wrapper or by option, small or large", %{
      inp: inp
    } do
      assert seen(inp, "ä€𝄞") == {"str", "'ä€𝄞'"}

      for size <- [0, 1, 300, 70_000], as <- [:str, :bytes, :bytearray, :memoryview] do
        data = String.duplicate("x", size)
        assert {name, _} = seen(inp, Serde.binary(data, as))
        assert name == to_string(as)
        assert {^name, _} = seen(inp, data, encoding_opts: [binary_as: as])
        assert round_trip(inp, Serde.binary(data, as)) == data
      end
    end

    test "a binary that is not UTF-8 is no str: an error of that call alone, which says where", %{inp: inp} do
      assert {:error, error} = Snex.pyeval(inp, "return x", %{"x" => "abc" <> <<0xFF>>})
      assert error.exception.type == "UnicodeDecodeError"
      assert error.reason =~ "position 3"

      assert {:error, error} =
               Snex.pyeval(inp, "return x", %{"x" => String.duplicate("a", 100_000) <> <<0xFF>>})

      assert error.reason =~ "position 100000"
      assert error.reason =~ "in the variable x; pass bytes as Snex.Serde.binary(value, :bytes)"
      assert Snex.pyeval(inp, "return x", %{"x" => Serde.binary(<<0xFF>>)}) == {:ok, <<0xFF>>}
    end

    test "the names of variables are str whatever the options say", %{inp: inp} do
      assert {:ok, 1} = Snex.pyeval(inp, "return name", %{"name" => 1}, encoding_opts: [binary_as: :bytes])
    end

    test "list, tuple and map are list, tuple and dict", %{inp: inp} do
      assert seen(inp, [1, [2]]) == {"list", "[1, [2]]"}
      assert seen(inp, {}) == {"tuple", "()"}
      assert seen(inp, {1, {2, 3}, 4, 5}) == {"tuple", "(1, (2, 3), 4, 5)"}
      assert seen(inp, %{"a" => 1}) == {"dict", "{'a': 1}"}
      value = [1, {2, [3]}, %{"a" => %{1 => {}}, {1, "b"} => []}]
      assert round_trip(inp, value) === value
    end

    test "a map whose key is not hashable in Python fails alone", %{inp: inp} do
      assert {:error, error} = Snex.pyeval(inp, "return x", %{"x" => %{[1] => 2}})
      assert error.exception.type == "TypeError"
      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    test "a MapSet is a set or frozenset; back, it is a MapSet as this Elixir lays it out", %{inp: inp} do
      assert seen(inp, MapSet.new([1])) == {"set", "{1}"}

      assert seen(inp, MapSet.new([1]), encoding_opts: [set_as: :frozenset]) ==
               {"frozenset", "frozenset({1})"}

      set = MapSet.new([1, "two", :three, {4}])
      assert round_trip(inp, set) === set

      assert Snex.pyeval(inp, "return {1, 2}, frozenset([3])") ===
               {:ok, {MapSet.new([1, 2]), MapSet.new([3])}}

      assert Snex.pyeval(inp, "return set()") === {:ok, MapSet.new()}
    end

    test "a struct is a dict with __struct__", %{inp: inp} do
      code = "return x['__struct__'], x['year'], isinstance(x, dict)"
      assert Snex.pyeval(inp, code, %{"x" => ~D[2026-11-21]}) == {:ok, {Date, 2026, true}}
      assert round_trip(inp, [~D[2026-11-21], 1..3]) === [~D[2026-11-21], 1..3]
    end

    test "Serde.term/1, pid, reference, port, bitstring, improper list: a snex.Term, opaque and hashable",
         %{
           inp: inp
         } do
      port = hd(Port.list())
      reference = make_ref()
      fun = fn x -> {port, x} end

      for {sent, expected} <- [
            {Serde.term(%{a: [1]}), %{a: [1]}},
            {Serde.term("text"), "text"},
            {self(), self()},
            {reference, reference},
            {port, port},
            {Serde.term(fun), fun},
            {<<5::3>>, <<5::3>>},
            {[1, 2 | 3], [1, 2 | 3]}
          ] do
        code = "return type(x) is snex.Term, x == y, len({x, y}), x"
        assert Snex.pyeval(inp, code, %{"x" => sent, "y" => sent}) === {:ok, {true, true, 1, expected}}
      end
    end

    test "a function is a snex.Function, which is a snex.Term; Serde.callback/1 a snex.Callback", %{inp: inp} do
      for fun <- [&String.upcase/1, fn x -> {self(), x} end] do
        code = "return type(x) is snex.Function, isinstance(x, snex.Term), x == y, len({x, y}), [x]"
        assert Snex.pyeval(inp, code, %{"x" => fun, "y" => fun}) === {:ok, {true, true, true, 1, [fun]}}
        code = "return type(x) is snex.Callback, x == y, len({x, y}), [x]"
        callback = Serde.callback(fun)
        assert Snex.pyeval(inp, code, %{"x" => callback, "y" => callback}) === {:ok, {true, true, 1, [fun]}}
      end

      assert_raise ArgumentError, "expected a function, got: :fun", fn -> Serde.callback(:fun) end
    end

    test "Serde.object/3 is module.class(*args), its arguments encoded like any value", %{inp: inp} do
      value = Serde.object("fractions", "Fraction", [Serde.object("fractions", "Fraction", [1, 3]), 2])
      assert Snex.pyeval(inp, "return str(x)", %{"x" => value}) == {:ok, "1/6"}
      value = Serde.object("builtins", "list", [["text", :atom, Serde.binary("b")]])
      assert Snex.pyeval(inp, "return repr(x)", %{"x" => value}) == {:ok, "['text', snex.Atom('atom'), b'b']"}
    end
  end

  describe "Serde" do
    test "binary/1,2 take iodata: bytes by default, str, bytearray or memoryview", %{inp: inp} do
      iodata = ["a", [?b | "c"]]
      assert seen(inp, Serde.binary(iodata)) == {"bytes", "b'abc'"}
      assert seen(inp, Serde.binary(iodata, :bytes)) == {"bytes", "b'abc'"}
      assert seen(inp, Serde.binary(iodata, :str)) == {"str", "'abc'"}
      assert seen(inp, Serde.binary(iodata, :bytearray)) == {"bytearray", "bytearray(b'abc')"}
      assert {"memoryview", _} = seen(inp, Serde.binary(iodata, :memoryview))
      assert Snex.pyeval(inp, "return bytes(x)", %{"x" => Serde.binary(iodata, :memoryview)}) == {:ok, "abc"}
    end

    test "binary, float and object raise ArgumentError for what they cannot be" do
      assert_raise ArgumentError, ~r/expected one of \[:str,.*got: :text/, fn -> Serde.binary("x", :text) end
      assert_raise ArgumentError, fn -> Serde.binary(:x) end
      assert_raise ArgumentError, ~r/expected a float.*got: :infinity/, fn -> Serde.float(:infinity) end
      assert_raise ArgumentError, ~r/expected a module and a class/, fn -> Serde.object(:m, "c", []) end
      assert_raise ArgumentError, ~r/expected a module and a class/, fn -> Serde.object("m", "c", %{}) end
    end
  end

  describe "encoding_opts" do
    test "of the interpreter are merged with those of the call" do
      inp = start_interpreter!(encoding_opts: [binary_as: :bytes, set_as: :frozenset])
      assert {"bytes", _} = seen(inp, "x")
      assert {"frozenset", _} = seen(inp, MapSet.new())
      assert {"str", _} = seen(inp, "x", encoding_opts: [binary_as: :str])
      assert {"frozenset", _} = seen(inp, MapSet.new(), encoding_opts: [binary_as: :str])
    end

    test "binary_as, set_as and atom_as take each of their values", %{inp: inp} do
      for {name, value, types} <- [
            {:binary_as, "x", [str: "str", bytes: "bytes", bytearray: "bytearray", memoryview: "memoryview"]},
            {:set_as, MapSet.new(), [set: "set", frozenset: "frozenset"]},
            {:atom_as, :x, [atom: "Atom", distinct_atom: "DistinctAtom"]}
          ],
          {as, type} <- types do
        assert {^type, _} = seen(inp, value, encoding_opts: [{name, as}])
      end
    end

    test "that make no sense raise ArgumentError, which names them", %{inp: inp} do
      for {opts, message} <- [
            {[binary_as: :text],
             ~r/option :binary_as of :encoding_opts cannot be :text: expected :str, :bytes, :bytearray or :memoryview/},
            {[sets_as: :set], ~r/unknown option :sets_as in :encoding_opts, did you mean :set_as\?/},
            {:bytes, ~r/:encoding_opts to be a keyword list, got: :bytes/}
          ] do
        assert_raise ArgumentError, message, fn -> Snex.pyeval(inp, "1", encoding_opts: opts) end
        assert_raise ArgumentError, message, fn -> Snex.make_env(inp, encoding_opts: opts) end
        assert_raise ArgumentError, message, fn -> Interpreter.start_link(encoding_opts: opts) end
      end
    end
  end
end
