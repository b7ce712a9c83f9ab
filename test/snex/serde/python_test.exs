defmodule Snex.Serde.PythonTest do
  # What Python sends that Elixir has no type of its own for.
  use Snex.Case, async: true

  @moduletag :interpreter

  test "subclasses of str, int, float, bytes, ..., dict, set travel as their base", %{inp: inp} do
    code = """
    import collections, enum
    bases = {"n": str, 7: int, 1.5: float, b"b": bytes, (1, 2): tuple, frozenset([1]): frozenset, snex.Atom("a"): snex.Atom}
    seen = [type("Mine", (base,), {})(value) for value, base in bases.items()]
    for value in (bytearray(b"b"), [1], {"k": 1}, {1}):
        seen.append(type("Mine", (type(value),), {})(value))
    class Colour(enum.IntEnum):
        RED = 1
    Point = collections.namedtuple("Point", "x y")
    return seen + [Colour.RED, Point(1, 2), collections.OrderedDict(a=1), collections.Counter("aa"), True]
    """

    assert Snex.pyeval(inp, code) ===
             {:ok,
              ["n", 7, 1.5, "b", {1, 2}, MapSet.new([1]), :a, "b", [1], %{"k" => 1}, MapSet.new([1])] ++
                [1, {1, 2}, %{"a" => 1}, %{"a" => 2}, true]}
  end

  test "a memoryview of bytes travels as a binary, whatever its layout", %{inp: inp} do
    code = """
    return [memoryview(b"abc"), memoryview(bytearray(b"abc")), memoryview(b"abc")[::2], memoryview(b"abc").cast("c")]
    """

    assert Snex.pyeval(inp, code) == {:ok, ["abc", "abc", "ac", "abc"]}
  end

  test "views of collections.abc travel as lists", %{inp: inp} do
    code = """
    import collections.abc

    class Doubles(collections.abc.Mapping):
        def __getitem__(self, key): return key * 2
        def __iter__(self): return iter([1, 2])
        def __len__(self): return 2

    views = []
    for mapping in ({"k": 1}, Doubles()):
        views += [mapping.keys(), mapping.values(), mapping.items()]
    return views
    """

    assert Snex.pyeval(inp, code) == {:ok, [["k"], [1], [{"k", 1}], [1, 2], [2, 4], [{1, 2}, {2, 4}]]}
  end

  test "anything else: TypeError: Cannot serialize object of <class ...>, as an error of that call", %{
    inp: inp
  } do
    for {code, class} <- [
          {"return object()", "object"},
          {"return ...", "ellipsis"},
          {"import types; return types.SimpleNamespace()", "types.SimpleNamespace"}
        ] do
      assert {:error, %Error{code: :python_runtime_error} = error} = Snex.pyeval(inp, code)
      assert error.exception.type == "TypeError"

      assert error.reason ==
               "Cannot serialize object of <class '#{class}'>; convert it, see snex.register_encoder, " <>
                 "or let it stay in Python (returns: :auto, snex.keep)"
    end

    assert Snex.pyeval(inp, "return 1") == {:ok, 1}
  end

  test "an error says where the value is, in results, messages and arguments of calls", %{inp: inp} do
    for {code, place} <- [
          {"return {'rows': [1, {'price': object()}]}", "['rows'][1]['price']"},
          {"await snex.send(1, [object()])", "data[0]"},
          {"await snex.call('erlang', 'abs', [1, {'x': object()}])", "args[1]['x']"},
          {"await Elixir.Enum.map([object()])", "args[0][0]"}
        ] do
      assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, code)
      assert reason =~ place <> ": Cannot serialize object of <class 'object'>"
    end

    code = "async def fetch(): pass\nreturn {'page': fetch()}"

    assert {:error, %Error{reason: reason}} =
             Snex.pyeval(inp, %Snex.Code{src: code, file: "page.ex", line: 7})

    assert reason ==
             "['page']: Cannot serialize object of <class 'coroutine'>: was `await` forgotten? (fetch, page.ex, line 7)"

    assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, "return f(1)", %{"f" => &(&1 + 1)})
    assert reason =~ "was `await` forgotten?"
    assert Snex.pyeval(inp, "return await f(1)", %{"f" => &(&1 + 1)}) == {:ok, 2}
  end

  test "a variable that is not text is named, with what helps", %{inp: inp} do
    for {vars, place} <- [
          {%{"name" => <<255>>}, "the variable name"},
          {%{"a" => 1, "rows" => [%{"name" => {1, "x" <> <<255>>}}]}, "the variable rows[0]['name'][1]"},
          {%{"big" => String.duplicate("a", 100_000), "rows" => [<<255>>]}, "the variable rows[0]"}
        ],
        run <- [&Snex.pyeval(inp, &1), &Snex.make_env(inp, &1)] do
      assert {:error, %Error{reason: reason, exception: %{type: "UnicodeDecodeError"}}} = run.(vars)
      assert reason =~ "in #{place}; pass bytes as Snex.Serde.binary(value, :bytes)"
    end

    code = "return await Elixir.Function.identity(x)"
    assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, code, %{"x" => Serde.term([1, <<255>>])})
    assert reason =~ "in [1]; pass bytes"
  end

  test "anything else is what the function given to snex.set_custom_encoder makes of it", %{inp: inp} do
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

  test "a value that contains itself is a clear error", %{inp: inp} do
    for {code, kind} <- [
          {"x = []; x.append(x)", "list"},
          {"x = {}; x['x'] = [x]", ""},
          {"x = []; x.append((1, {'k': x}))", ""}
        ] do
      assert {:error, %Error{code: :python_runtime_error} = error} = Snex.pyeval(inp, code <> "\nreturn x")
      assert error.exception.type == "ValueError"
      assert error.reason =~ ~r/Cannot serialize a #{kind}.* that contains itself/
    end

    assert Snex.pyeval(inp, "return 1") == {:ok, 1}
  end
end
