defmodule Snex.Serde.EverydayTest do
  use Snex.Case, async: true

  alias Snex.Object

  @forms [
    {"datetime.date(2026, 11, 21)", ~D[2026-11-21]},
    {"datetime.time(1, 2, 3)", ~T[01:02:03]},
    {"datetime.time(1, 2, 3, 4)", ~T[01:02:03.000004]},
    {"datetime.datetime(2026, 1, 2, 3, 4, 5)", ~N[2026-01-02 03:04:05]},
    {"datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.timezone.utc)", ~U[2026-01-02 03:00:00Z]},
    {"datetime.datetime.fromisoformat('2026-01-02T03:04:05.000006+02:00')", ~U[2026-01-02 01:04:05.000006Z]},
    {"datetime.timedelta(days=1, hours=1)", Duration.new!(day: 1, second: 3600)},
    {"datetime.timedelta(microseconds=-1)", Duration.new!(microsecond: {-1, 6})},
    {"decimal.Decimal('-1.50')", %Decimal{sign: -1, coef: 150, exp: -2}},
    {"decimal.Decimal('NaN')", %Decimal{coef: :NaN}},
    {"decimal.Decimal('-Infinity')", %Decimal{sign: -1, coef: :inf}},
    {"range(1, 10, 3)", 1..9//3},
    {"range(10, 0, -1)", 10..1//-1},
    {"range(0)", 0..-1//1},
    {"uuid.UUID(int=1)", "00000000-0000-0000-0000-000000000001"},
    {"pathlib.Path('/tmp') / 'żółw'", "/tmp/żółw"},
    {"Colour.RED", "red"},
    {"Point(1, [Point(2)])", %{"x" => 1, "y" => [%{"x" => 2, "y" => nil}]}},
    {"collections.deque([1, 2])", [1, 2]},
    {"array.array('d', [1.5])", [1.5]},
    {"types.MappingProxyType({'a': 1})", %{"a" => 1}},
    {"fractions.Fraction(1, 3)", {1, 3}},
    {"1 - 2j", {1.0, -2.0}}
  ]

  @init """
  import array, collections, dataclasses, datetime, decimal, enum, fractions, pathlib, types, uuid

  class Colour(enum.Enum):
      RED = "red"

  @dataclasses.dataclass
  class Point:
      x: int
      y: object = None

  class Odd:
      pass
  """

  for encoder <- ["native", "pure"] do
    describe "with the #{encoder} encoder," do
      setup do
        environment = if unquote(encoder) == "pure", do: %{"SNEX_ENCODER" => "pure"}, else: %{}
        %{py: start_interpreter!(init_script: @init, environment: environment)}
      end

      test "everyday types of Python come as what Elixir has for them", %{py: py} do
        for {code, value} <- @forms, returns <- [:value, :auto] do
          assert {code, Snex.pyeval(py, "return #{code}", returns: returns)} == {code, {:ok, value}}
          nested = "return [#{code}, {'k': (#{code},)}]"
          assert Snex.pyeval(py, nested, returns: returns) == {:ok, [value, %{"k" => {value}}]}
        end
      end

      test "a moment keeps its zone", %{py: py} do
        code =
          "import zoneinfo; return datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin'))"

        assert {:ok, %DateTime{} = at} = Snex.pyeval(py, code)

        assert {at.time_zone, at.zone_abbr, at.utc_offset, at.std_offset} ==
                 {"Europe/Berlin", "CEST", 3600, 3600}

        assert to_string(at) == "2026-07-01 00:00:00+02:00 CEST Europe/Berlin"
      end

      test "an encoder that is registered for a type comes first", %{py: py} do
        {:ok, env} = Snex.make_env(py)
        Snex.pyeval!(env, "snex.register_encoder(Odd, lambda odd: {'odd': [datetime.date(2026, 1, 2)]})")
        Snex.pyeval!(env, "snex.register_encoder(datetime.time, datetime.time.isoformat)")
        code = "return [Odd(), datetime.time(1), datetime.date(2026, 1, 3)]"

        assert Snex.pyeval(env, code, returns: :auto) ==
                 {:ok, [%{"odd" => [~D[2026-01-02]]}, "01:00:00", ~D[2026-01-03]]}
      end

      test "a value without a form is an error with its place, or stays in Python", %{py: py} do
        code = "return {'rows': [{'price': Odd()}, datetime.time(1, tzinfo=datetime.timezone.utc)]}"
        assert {:error, %Error{reason: reason}} = Snex.pyeval(py, code)
        assert reason =~ "['rows'][0]['price']: Cannot serialize object of <class '__main__.Odd'>; convert it"
        assert reason =~ "snex.register_encoder" and reason =~ "returns: :auto"

        assert {:ok, %{"rows" => [%{"price" => %Object{}}, %Object{type: "datetime.time"}]}} =
                 Snex.pyeval(py, code, returns: :auto)
      end
    end
  end

  test "structs come from every frame that carries values" do
    py = start_interpreter!(init_script: @init, atoms: :existing)
    code = "return await Elixir.Date.add(datetime.date(2026, 1, 31), 1)"
    assert Snex.pyeval(py, code, encoding_opts: [binary_as: :bytes]) == {:ok, ~D[2026-02-01]}
    Snex.pyeval!(py, "await snex.send(to, decimal.Decimal('1.5'))", %{"to" => self()})
    assert_receive %Decimal{coef: 15, exp: -1}
  end
end
