defmodule Snex.Serde.NativeStructsTest do
  use Snex.Case, async: true

  @moduletag :interpreter

  @native [encoding_opts: [structs_as: :native]]

  defp seen(inp, value, opts \\ @native) do
    {:ok, seen} = Snex.pyeval(inp, "return repr(x)", %{"x" => value}, opts)
    seen
  end

  defp round_trip(inp, value) do
    {:ok, back} = Snex.pyeval(inp, "return x", %{"x" => value}, @native)
    back
  end

  defp moment(at, zone, abbreviation, utc, std) do
    at
    |> DateTime.from_naive!("Etc/UTC")
    |> Map.merge(%{time_zone: zone, zone_abbr: abbreviation, utc_offset: utc, std_offset: std})
  end

  @forms [
    {~D[2026-11-21], "datetime.date(2026, 11, 21)"},
    {~D[0001-01-01], "datetime.date(1, 1, 1)"},
    {~D[9999-12-31], "datetime.date(9999, 12, 31)"},
    {~N[2026-01-02 03:04:05], "datetime.datetime(2026, 1, 2, 3, 4, 5)"},
    {~N[2026-01-02 03:04:05.000006], "datetime.datetime(2026, 1, 2, 3, 4, 5, 6)"},
    {~U[2026-01-02 03:04:05.600000Z],
     "datetime.datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=zoneinfo.ZoneInfo(key='Etc/UTC'))"},
    {%Duration{}, "datetime.timedelta(0)"},
    {Duration.new!(day: 2, second: 5, microsecond: {7, 6}),
     "datetime.timedelta(days=2, seconds=5, microseconds=7)"},
    {Duration.new!(second: -1), "datetime.timedelta(days=-1, seconds=86399)"},
    {1..10, "range(1, 11)"},
    {1..10//3, "range(1, 11, 3)"},
    {10..1//-2, "range(10, 0, -2)"},
    {1..0//1, "range(1, 1)"},
    {(2 ** 70)..(2 ** 70 + 1), "range(1180591620717411303424, 1180591620717411303426)"},
    {%Decimal{coef: 150, exp: -2}, "Decimal('1.50')"},
    {%Decimal{sign: -1, coef: 0}, "Decimal('-0')"},
    {%Decimal{coef: 2 ** 64 - 1, exp: 3}, "Decimal('1.8446744073709551615E+22')"},
    {%Decimal{sign: -1, coef: 10 ** 30, exp: -1}, "Decimal('-100000000000000000000000000000.0')"},
    {%Decimal{coef: :NaN}, "Decimal('NaN')"},
    {%Decimal{sign: -1, coef: :inf}, "Decimal('-Infinity')"}
  ]

  test "a struct becomes what Python has for it, and comes back the same", %{inp: inp} do
    for {value, shown} <- @forms do
      assert seen(inp, value) == shown
      assert seen(inp, {value}) == "(#{shown},)"
      assert round_trip(inp, value) === value

      nested = %{"list" => [value, %{value => value}], :tuple => {value, MapSet.new([value])}}
      assert round_trip(inp, nested) === nested
    end
  end

  test "a Duration of other units is as long", %{inp: inp} do
    duration = Duration.new!(week: 1, day: -1, hour: 25, minute: 61, second: 61, microsecond: {1_500_000, 6})
    assert seen(inp, duration) == "datetime.timedelta(days=7, seconds=7322, microseconds=500000)"
  end

  test "a DateTime keeps its zone, also when an hour comes twice", %{inp: inp} do
    for {at, abbreviation, std, fold} <- [
          {~N[2026-07-01 12:00:00], "CEST", 3600, 0},
          {~N[2026-10-25 02:30:00], "CEST", 3600, 0},
          {~N[2026-10-25 02:30:00], "CET", 0, 1}
        ] do
      value = moment(at, "Europe/Berlin", abbreviation, 3600, std)
      assert round_trip(inp, [value]) == [value]

      assert Snex.pyeval(inp, "return x.fold, x.tzinfo.key", %{"x" => value}, @native) ==
               {:ok, {fold, "Europe/Berlin"}}
    end

    # Other rules than Python's: the moment counts.
    odd = moment(~N[2026-07-01 12:00:00], "Europe/Berlin", "ODD", 7200, 3600)

    assert seen(inp, odd) =~
             "datetime.datetime(2026, 7, 1, 11, 0, tzinfo=zoneinfo.ZoneInfo(key='Europe/Berlin'))"

    assert DateTime.compare(round_trip(inp, odd), odd) == :eq
  end

  test "a URI becomes the string that URI.to_string/1 returns", %{inp: inp} do
    for text <- [
          "https://user:pw@example.org/a/b?c=d&e#f",
          "http://example.org:8080",
          "https://[::1]:443/",
          "https://[::1]:444/ż",
          "mailto:a@b.c",
          "//host/path",
          "?q#",
          "",
          "urn:isbn:1",
          "ftp://x:21/",
          "odd://x:21/",
          "file:///etc"
        ] do
      uri = URI.parse(text)
      assert {text, round_trip(inp, uri)} == {text, URI.to_string(uri)}
    end

    # As older versions of Elixir have made them.
    without_host = %URI{scheme: "http", authority: "example.org:81", path: "/a"}
    assert round_trip(inp, without_host) == "http://example.org:81/a"

    code = "return type(x).__name__"
    opts = [encoding_opts: [structs_as: :native, binary_as: :bytes]]
    assert Snex.pyeval(inp, code, %{"x" => URI.parse("a:b")}, opts) == {:ok, "str"}
  end

  test "without the option they are dicts with __struct__, as before", %{inp: inp} do
    for {value, _shown} <- @forms do
      assert Snex.pyeval(inp, "return type(x).__name__, x", %{"x" => value}) == {:ok, {"dict", value}}
    end

    assert Snex.pyeval(inp, "return x['__struct__']", %{"x" => %URI{}}) == {:ok, URI}
  end

  test "other structs are dicts with it, too", %{inp: inp} do
    assert Snex.pyeval(
             inp,
             "return x['pid'], x['ref']",
             %{"x" => %Task{mfa: nil, owner: nil, pid: ~D[2026-01-01], ref: 1}},
             @native
           ) ==
             {:ok, {~D[2026-01-01], 1}}
  end

  test "an encoder of the user's comes first", %{inp: inp} do
    # test/support/encoders.ex
    assert seen(inp, ~T[01:02:03.000004]) == "datetime.time(1, 2, 3)"
  end

  test "the option is the interpreter's, and that of a call counts more" do
    inp = start_interpreter!(encoding_opts: [structs_as: :native])
    day = ~D[2026-01-02]
    assert seen(inp, day, []) == "datetime.date(2026, 1, 2)"
    assert seen(inp, day, encoding_opts: [binary_as: :bytes]) == "datetime.date(2026, 1, 2)"
    assert seen(inp, day, encoding_opts: [structs_as: :dict]) =~ "__struct__"

    # What Elixir returns to Python.
    code = "return repr(await Elixir.Date.add(x, 1))"
    assert Snex.pyeval(inp, code, %{"x" => day}) == {:ok, "datetime.date(2026, 1, 3)"}

    code = "return type(await Elixir.Date.add(x, 1, result_encoding_opts={'structs_as': 'dict'})).__name__"
    assert Snex.pyeval(inp, code, %{"x" => day}) == {:ok, "dict"}
    code = "return repr([day async for day in days])"
    days = Date.range(day, ~D[2026-01-03])
    assert {:ok, seen} = Snex.pyeval(inp, code, %{"days" => Serde.stream(days)})
    assert seen == "[datetime.date(2026, 1, 2), datetime.date(2026, 1, 3)]"

    {:ok, env} = Snex.make_env(inp, %{"day" => day})
    assert Snex.call(env, "day.isoformat") == {:ok, "2026-01-02"}
    assert Snex.call(env, "datetime.date.isoformat", [day]) == {:ok, "2026-01-02"}
  end

  describe "what Python cannot hold" do
    defp refused(inp, value) do
      assert {:error, %Error{code: :python_runtime_error} = error} =
               Snex.pyeval(inp, "return x", %{"x" => %{"rows" => [1, %{"at" => {value}}]}}, @native)

      assert error.exception.type == "ValueError"
      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
      assert "the variable x['rows'][1]['at'][0]: " <> reason = error.reason
      reason
    end

    test "is an error of the call that says where it is, and what to do", %{inp: inp} do
      assert refused(inp, ~D[-0001-01-01]) =~ ~r/year.*-1.*structs_as: :dict/
      assert refused(inp, ~N[0000-01-01 00:00:00]) =~ ~r/year.*0.*structs_as: :dict/
      assert refused(inp, %{~D[2026-01-01] | day: 32}) =~ ~r/day.*structs_as: :dict/
      assert refused(inp, %{~D[2026-01-01] | calendar: Other}) =~ "Date.convert/2"
      assert refused(inp, %{~N[2026-01-01 00:00:00] | calendar: Other}) =~ "NaiveDateTime.convert/2"
      assert refused(inp, %{~U[2026-01-01 00:00:00Z] | calendar: Other}) =~ "DateTime.convert/2"

      for zone <- ["Mars/Olympus", "../etc/passwd", "/etc/passwd", "Europe", "", "a\0b"] do
        reason = refused(inp, moment(~N[2026-07-01 12:00:00], zone, "X", 0, 0))
        assert reason =~ "Python does not know the time zone"
        assert reason =~ "tzdata" and reason =~ "DateTime.shift_zone/2"
      end

      assert refused(inp, %{~U[2026-01-01 00:00:00Z] | year: 10_000}) =~ "year"
      assert refused(inp, Duration.new!(month: 1)) =~ "a datetime.timedelta has no years and months"
      assert refused(inp, Duration.new!(year: -1)) =~ "a datetime.timedelta has no years and months"
      assert refused(inp, Duration.new!(day: 1_000_000_000)) =~ "structs_as: :dict"
      assert refused(inp, Duration.new!(week: 2 ** 62, day: 2 ** 62)) =~ "longer than a datetime.timedelta"
      assert refused(inp, %Decimal{coef: 1, exp: 2 ** 62}) =~ "structs_as: :dict"
      assert refused(inp, %Decimal{coef: 10 ** 30, exp: 2 ** 62}) != ""
      assert refused(inp, %URI{host: "x", path: "y"}) =~ "has to begin with a slash"
    end

    test "is named in arguments of calls, in results of Elixir functions and in streams", %{inp: inp} do
      bad = ~D[-0001-01-01]
      assert {:error, %Error{reason: reason}} = Snex.call(inp, "repr", [[1, bad]], @native)
      assert reason =~ "the argument 1[1]: "
      assert {:error, %Error{reason: reason}} = Snex.call(inp, "dict", [], [kwargs: [x: [bad]]] ++ @native)
      assert reason =~ "the argument x[0]: "
      code = "return await Elixir.Function.identity(x, result_encoding_opts={'structs_as': 'native'})"
      assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, code, %{"x" => Serde.term([bad])})
      assert reason =~ "[0]: " and reason =~ "structs_as: :dict"
      assert {:error, %Error{}} = Snex.make_env(inp, %{"x" => bad}, @native)
      stream = Serde.stream([1, bad], encoding_opts: [structs_as: :native])
      assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, "return list(x)", %{"x" => stream})
      assert reason =~ "structs_as: :dict"
    end

    test "as a struct that was made by hand raises", %{inp: inp} do
      for bad <- [
            %{~D[2026-01-01] | year: "2026"},
            %{~D[2026-01-01] | year: 2 ** 70},
            %{~N[2026-01-01 00:00:00] | microsecond: 1},
            %{~U[2026-01-01 00:00:00Z] | time_zone: :utc},
            %{(1..2) | last: :x},
            %Decimal{coef: "1"},
            %Decimal{coef: :x},
            %URI{host: 1},
            %URI{host: "x", port: "y"},
            Map.delete(~D[2026-01-01], :day),
            %{__struct__: URI}
          ] do
        assert_raise ArgumentError, ~r/cannot be encoded for Python/, fn -> round_trip(inp, [bad]) end
      end

      assert round_trip(inp, 1) == 1
    end
  end

  describe "keys that are equal in Python" do
    test "are an error of the call that names them and their place", %{inp: inp} do
      for {keys, named} <- [
            {["a", :a], ["'a'", "snex.Atom('a')", "atom_as: :distinct_atom"]},
            {[{"a", 1}, {:a, 1}], ["('a', 1)", "atom_as: :distinct_atom"]},
            {[1, 1.0], ["1", "1.0"]},
            {[1, true], ["True"]},
            {[0, false], []},
            {[+0.0, -0.0], []},
            {[2 ** 70, 2.0 ** 70], []},
            {["a", Serde.binary("a", :str)], []},
            {[{1}, {1.0}], []}
          ],
          make <- [&Map.new(&1, fn key -> {key, key} end), &MapSet.new/1] do
        opts = [encoding_opts: [set_as: :frozenset]]

        assert {:error, %Error{code: :python_runtime_error} = error} =
                 Snex.pyeval(inp, "return 1", %{"x" => [0, make.(keys)]}, opts)

        assert error.exception.type == "ValueError"

        assert error.reason =~
                 "the variable x[1]: two keys of a map, or members of a set, are equal in Python"

        for text <- named, do: assert(error.reason =~ text)
      end

      assert {:error, %Error{reason: reason}} = Snex.call(inp, "len", [[%{"a" => 1, a: 2}]])
      assert reason =~ "the argument 1[0]: two keys"
      code = "return await Elixir.Function.identity(x)"

      assert {:error, %Error{reason: reason}} =
               Snex.pyeval(inp, code, %{"x" => Serde.term(%{"a" => 1, a: 2})})

      assert reason =~ "the value: two keys"
    end

    test "are no error where atoms are distinct, and others may be in one map", %{inp: inp} do
      distinct = [encoding_opts: [atom_as: :distinct_atom]]
      map = %{"a" => 1, a: 2}
      assert Snex.pyeval(inp, "return x", %{"x" => map}, distinct) == {:ok, map}
      assert {:error, _} = Snex.pyeval(inp, "return x", %{"x" => %{1 => 1, true => 2}})

      for map <- [
            %{"a" => 1, b: 2},
            %{1 => 1, 2.0 => 2, "1" => 3, nil => 4, {1} => 5, {1, 2} => 6, self() => 7},
            Map.new(1..3000, &{if(rem(&1, 2) == 0, do: &1, else: "#{&1}"), &1}),
            Map.new(1..3000, &{if(rem(&1, 2) == 0, do: :"key #{rem(&1, 500)} #{&1}", else: "#{&1}"), &1})
          ] do
        assert Snex.pyeval(inp, "return x", %{"x" => map}) == {:ok, map}
      end

      bytes = [encoding_opts: [binary_as: :bytes]]
      assert Snex.pyeval(inp, "return len(x)", %{"x" => map}, bytes) == {:ok, 2}
      # In what is opaque nothing is compared.
      assert Snex.pyeval(inp, "return x", %{"x" => Serde.term(map)}) == {:ok, map}
      assert Snex.pyeval(inp, "return x", %{"x" => [map | :improper]}) == {:ok, [map | :improper]}
    end
  end
end
