defmodule Snex.SerdeTest do
  use Snex.Case, async: true

  import Snex.Terms

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

  describe "the table, as Python sees it" do
    test "scalars", %{inp: inp} do
      assert seen(inp, nil) == {"NoneType", "None"}
      assert seen(inp, true) == {"bool", "True"}
      assert seen(inp, 255) == {"int", "255"}
      assert seen(inp, -(2 ** 64)) == {"int", "-18446744073709551616"}
      assert seen(inp, 0.1) == {"float", "0.1"}
      assert seen(inp, -0.0) == {"float", "-0.0"}
      assert seen(inp, Serde.float(:"-inf")) == {"float", "-inf"}
      assert seen(inp, Serde.float(1.5)) == {"float", "1.5"}
      assert {"Atom", _} = seen(inp, :name)
      assert seen(inp, "ä€𝄞") == {"str", "'ä€𝄞'"}
    end

    test "an atom equals its name, a distinct atom does not", %{inp: inp} do
      assert Snex.pyeval(inp, "return x == 'foo', {'foo': 1}[x]", %{"x" => :foo}) == {:ok, {true, 1}}

      assert Snex.pyeval(inp, "return x == 'foo', x == snex.DistinctAtom('foo')", %{"x" => :foo},
               encoding_opts: [atom_as: :distinct_atom]
             ) == {:ok, {false, true}}
    end

    test "binaries, by wrapper and by option, small and large", %{inp: inp} do
      for size <- [0, 1, 300, 70_000], as <- [:str, :bytes, :bytearray, :memoryview] do
        data = String.duplicate("x", size)
        assert {name, _} = seen(inp, Serde.binary(data, as))
        assert name == to_string(as)
        assert {^name, _} = seen(inp, data, encoding_opts: [binary_as: as])
        assert round_trip(inp, Serde.binary(data, as)) == data
      end
    end

    test "the names of variables are str whatever the options say", %{inp: inp} do
      assert {:ok, 1} = Snex.pyeval(inp, "return name", %{"name" => 1}, encoding_opts: [binary_as: :bytes])
    end

    test "containers", %{inp: inp} do
      assert seen(inp, [1, [2]]) == {"list", "[1, [2]]"}
      assert seen(inp, {}) == {"tuple", "()"}
      assert seen(inp, {1, {2, 3}, 4, 5}) == {"tuple", "(1, (2, 3), 4, 5)"}
      assert seen(inp, %{"a" => 1}) == {"dict", "{'a': 1}"}
      assert seen(inp, MapSet.new([1])) == {"set", "{1}"}

      assert seen(inp, MapSet.new([1]), encoding_opts: [set_as: :frozenset]) ==
               {"frozenset", "frozenset({1})"}
    end

    test "a struct is a dict with its name", %{inp: inp} do
      code = "return x['__struct__'], x['year'], isinstance(x, dict)"
      assert Snex.pyeval(inp, code, %{"x" => ~D[2026-11-21]}) == {:ok, {Date, 2026, true}}
    end

    test "an object is what its class makes of the arguments", %{inp: inp} do
      value = Serde.object("fractions", "Fraction", [Serde.object("fractions", "Fraction", [1, 3]), 2])
      assert Snex.pyeval(inp, "return str(x)", %{"x" => value}) == {:ok, "1/6"}
    end

    test "an opaque term is hashable and equal to itself", %{inp: inp} do
      code = "return type(x).__name__, x == y, len({x, y})"
      assert Snex.pyeval(inp, code, %{"x" => self(), "y" => self()}) == {:ok, {"Term", true, 1}}
    end

    test "options of the interpreter are merged with those of the call" do
      inp = start_interpreter!(encoding_opts: [binary_as: :bytes, set_as: :frozenset])
      assert {"bytes", _} = seen(inp, "x")
      assert {"frozenset", _} = seen(inp, MapSet.new())
      assert {"str", _} = seen(inp, "x", encoding_opts: [binary_as: :str])
      assert {"frozenset", _} = seen(inp, MapSet.new(), encoding_opts: [binary_as: :str])
    end
  end

  describe "what Python sends" do
    test "subclasses, views and buffers travel as their base", %{inp: inp} do
      code = """
      import array, collections, enum
      class Name(str): pass
      class Colour(enum.IntEnum):
          RED = 1
      Point = collections.namedtuple("Point", "x y")
      return [Name("n"), Colour.RED, Point(1, 2), collections.OrderedDict(a=1), collections.Counter("aa"),
              {"k": 1}.keys(), {"k": 1}.values(), {"k": 1}.items(), memoryview(b"abc")[::2],
              memoryview(array.array("H", [1, 2])), frozenset([1])]
      """

      assert Snex.pyeval(inp, code) ==
               {:ok,
                [
                  "n",
                  1,
                  {1, 2},
                  %{"a" => 1},
                  %{"a" => 2},
                  ["k"],
                  [1],
                  [{"k", 1}],
                  "ac",
                  <<1::16-little, 2::16-little>>,
                  MapSet.new([1])
                ]}
    end

    test "atoms have 1 to 255 characters", %{inp: inp} do
      assert Snex.pyeval(inp, "return snex.Atom('ä' * 255)") ==
               {:ok, String.to_atom(String.duplicate("ä", 255))}

      assert {:error, %Error{reason: "atom too long"}} = Snex.pyeval(inp, "return snex.Atom('a' * 256)")
    end

    test "a custom encoder sees what Snex does not know", %{inp: inp} do
      code = """
      import datetime
      def encode(value):
          if isinstance(value, datetime.date):
              return {snex.Atom("__struct__"): snex.Atom("Elixir.Date"), snex.Atom("year"): value.year,
                      snex.Atom("month"): value.month, snex.Atom("day"): value.day,
                      snex.Atom("calendar"): snex.Atom("Elixir.Calendar.ISO")}
          raise TypeError(f"no {value}")
      snex.set_custom_encoder(encode)
      return [datetime.date(2026, 12, 27)]
      """

      assert Snex.pyeval(inp, code) == {:ok, [~D[2026-12-27]]}
    end

    test "a lone surrogate is an error that names its place", %{inp: inp} do
      assert {:error, error} = Snex.pyeval(inp, "return 'ab\\ud800'")
      assert error.reason =~ "2"
    end
  end

  describe "the extremes" do
    test "one empty of everything", %{inp: inp} do
      values = [nil, "", [], {}, %{}, MapSet.new(), Serde.binary(""), <<0::0>>, Serde.binary("", :bytearray)]
      assert round_trip(inp, values) == [nil, "", [], {}, %{}, MapSet.new(), "", "", ""]
    end

    test "a list nested 100,000 deep", %{inp: inp} do
      deep = Enum.reduce(1..100_000, [], fn _, inner -> [inner] end)
      assert round_trip(inp, deep) == deep
    end

    test "a map nested 100,000 deep", %{inp: inp} do
      deep = Enum.reduce(1..100_000, %{}, fn _, inner -> %{"k" => inner} end)
      assert round_trip(inp, deep) == deep
    end

    test "an integer of 100,000 digits", %{inp: inp} do
      number = String.to_integer(String.duplicate("7", 100_000))
      assert round_trip(inp, [number, -number, number * number]) == [number, -number, number * number]
    end

    test "every power of two and its neighbours up to 2^300", %{inp: inp} do
      numbers = for exponent <- 0..300, offset <- -1..1, sign <- [1, -1], do: sign * (2 ** exponent + offset)
      assert round_trip(inp, numbers) == numbers
    end

    test "long containers", %{inp: inp} do
      range = Enum.to_list(1..100_000)
      assert round_trip(inp, range) == range
      assert round_trip(inp, Map.new(range, &{&1, to_string(&1)})) == Map.new(range, &{&1, to_string(&1)})
      assert round_trip(inp, MapSet.new(range)) == MapSet.new(range)
      assert round_trip(inp, List.to_tuple(range)) == List.to_tuple(range)
    end

    test "many atoms, and atoms outside of Latin-1", %{inp: inp} do
      atoms = for n <- 1..2000, do: :"atom #{n} ж"
      assert round_trip(inp, atoms ++ atoms) == atoms ++ atoms
    end

    test "improper lists with anything in them, and what was written before them", %{inp: inp} do
      big = String.duplicate("b", 100_000)
      value = [:seen, [:new, big, [:newer | :tail] | :end], :new, :newer, big, [1, 2 | 3]]
      assert round_trip(inp, value) === value
    end

    test "sub-binaries and bitstrings at any offset", %{inp: inp} do
      data = :crypto.strong_rand_bytes(200_000)

      for offset <- [1, 3, 8, 13], size <- [10, 100_000] do
        <<_::size(offset), part::binary-size(size), _::bitstring>> = data
        assert round_trip(inp, Serde.binary(part)) == part
      end

      <<bits::size(1001)-bitstring, _::bitstring>> = data
      assert round_trip(inp, bits) == bits
    end

    test "a binary that is appended to while it travels keeps its content", %{inp: inp} do
      before = String.duplicate("a", 200_000)
      grown = before <> "b"
      task = Task.async(fn -> round_trip(inp, Serde.binary(grown)) end)
      for n <- 1..100, do: grown <> <<n>>
      assert Task.await(task, :infinity) == before <> "b"
    end

    # Two tests, each with one copy or two of it in memory at a time.
    @five_gib 5 * 1024 * 1024 * 1024

    defp five_gib, do: :binary.copy(:binary.copy(<<1, 2, 3, 4, 5, 6, 7, 8>>, 128 * 1024), 5 * 1024)

    @tag :slow
    @tag timeout: :infinity
    test "a binary of 5 GiB to Python", %{inp: inp} do
      code = "import hashlib\nreturn len(x), hashlib.blake2b(x).digest()"
      data = five_gib()
      {:ok, {size, digest}} = Snex.pyeval(inp, code, %{"x" => Serde.binary(data)}, timeout: :infinity)
      assert size == @five_gib
      assert digest == :crypto.hash(:blake2b, data)
    end

    @tag :slow
    @tag timeout: :infinity
    test "a binary of 5 GiB from Python is refused or passed, never wrong", %{inp: inp} do
      code = "return bytes(range(1, 9)) * (n // 8)"

      case Snex.pyeval(inp, code, %{"n" => @five_gib}, timeout: :infinity) do
        {:ok, data} -> assert :crypto.hash(:blake2b, data) == :crypto.hash(:blake2b, five_gib())
        {:error, error} -> assert error.reason =~ "5368709120"
      end

      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end
  end

  describe "round trips" do
    for {{name, path}, index} <- Enum.with_index(Snex.Case.pythons()) do
      # The full count on one Python, fewer on the others.
      @tag path: path, runs: if(index == 0, do: 10_000, else: 1_000)
      @tag timeout: 600_000
      test "random terms come back unchanged on #{name}", %{path: path, runs: runs} do
        inp = start_interpreter!(python: path)
        {:ok, env} = Snex.make_env(inp)

        property =
          :proper.forall(any_term(), fn {sent, expected} ->
            {:ok, result} = Snex.pyeval(env, "return x", %{"x" => sent})
            result === expected
          end)

        report = :proper.quickcheck(property, [:quiet, :long_result, numtests: runs, max_size: 30])
        assert report == true, "came back changed: #{inspect(report, limit: 200)}"
      end
    end
  end
end
