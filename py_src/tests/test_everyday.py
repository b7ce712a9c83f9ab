"""Types of Python's library in the forms that Elixir has for them. The same from both encoders."""

# ruff: noqa: DTZ001 - these are the naive ones
from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import math
import pathlib
import subprocess
import sys
import types
import uuid
import zoneinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.etf import A, decode, trip
from support.vm import PACKAGE

import snex
from snex._etf.encoder import Settings, encode, encode_pure
from snex._etf.handles import WithHandles
from snex._etf.structs import _layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UTC = dt.timezone.utc
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


@pytest.fixture(autouse=True)
def _encoders() -> Iterator[None]:
    """Leave no encoder behind."""
    yield
    Settings.encoders.clear()
    Settings.structs = None


def struct(name: str, **fields: object) -> dict[object, object]:
    if name in {"Date", "Time", "NaiveDateTime", "DateTime"}:
        fields["calendar"] = A("Elixir.Calendar.ISO")
    if name == "Duration":
        fields = dict.fromkeys(("year", "month", "week", "hour", "minute"), 0) | fields
    return {A("__struct__"): A(f"Elixir.{name}")} | {A(key): value for key, value in fields.items()}


def date(year: int, month: int, day: int) -> dict[str, object]:
    return {"year": year, "month": month, "day": day}


def time(hour: int, minute: int, second: int, micro: int = 0) -> dict[str, object]:
    return {
        "hour": hour,
        "minute": minute,
        "second": second,
        "microsecond": (micro, 6 if micro else 0),
    }


def zone(name: str, abbreviation: str, utc: int, std: int) -> dict[str, object]:
    return {
        "time_zone": name.encode(),
        "zone_abbr": abbreviation.encode(),
        "utc_offset": utc,
        "std_offset": std,
    }


def duration(day: int, second: int, micro: int = 0) -> dict[object, object]:
    return struct("Duration", day=day, second=second, microsecond=(micro, 6 if micro else 0))


def number(sign: int, coef: object, exp: int) -> dict[object, object]:
    return struct("Decimal", sign=sign, coef=coef, exp=exp)


class Day(dt.date):
    pass


class Stamp(dt.datetime):
    pass


class Amount(Decimal):
    def __new__(cls, value: str, _currency: str) -> Amount:  # noqa: PYI034 - as users have it
        return super().__new__(cls, value)


class Lines(collections.deque):  # type: ignore[type-arg]
    pass


class Colour(enum.Enum):
    RED = "red"
    MIXED = ("red", ["green"])
    NONE = None


class Level(enum.Flag):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Point:
    x: int
    y: object = None
    kind: dataclasses.InitVar[int] = 0
    count: int = dataclasses.field(init=False, repr=False, default=7)


@dataclasses.dataclass(frozen=True)
class Slotted:
    __slots__ = ("x",)
    x: int


class Further(Point):
    pass


class FakePath(pathlib.PurePosixPath):
    pass


# `int` refuses so many digits, but not those of a `Decimal`, except on PyPy, where these are text.
LONG = 10 ** (4000 if sys.implementation.name == "pypy" else 5000) + 1

FORMS = [
    (dt.date(2026, 11, 21), struct("Date", **date(2026, 11, 21))),
    (dt.date.min, struct("Date", **date(1, 1, 1))),
    (Day(9999, 12, 31), struct("Date", **date(9999, 12, 31))),
    (dt.time(1, 2, 3), struct("Time", **time(1, 2, 3))),
    (dt.time(1, 2, 3, 4), struct("Time", **time(1, 2, 3, 4))),
    (
        dt.datetime(2026, 1, 2, 3, 4, 5, 999_999),
        struct("NaiveDateTime", **date(2026, 1, 2), **time(3, 4, 5, 999_999)),
    ),
    (Stamp(2026, 1, 2), struct("NaiveDateTime", **date(2026, 1, 2), **time(0, 0, 0))),
    (
        dt.datetime(2026, 7, 1, 12, tzinfo=BERLIN),
        struct(
            "DateTime",
            **date(2026, 7, 1),
            **time(12, 0, 0),
            **zone("Europe/Berlin", "CEST", 3600, 3600),
        ),
    ),
    *(
        (
            dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=fold),
            struct(
                "DateTime",
                **date(2026, 10, 25),
                **time(2, 30, 0),
                **zone("Europe/Berlin", name, 3600, saved),
            ),
        )
        for fold, name, saved in ((0, "CEST", 3600), (1, "CET", 0))
    ),
    *(
        (
            dt.datetime(2026, 1, 2, 3, tzinfo=utc),
            struct("DateTime", **date(2026, 1, 2), **time(3, 0, 0), **zone("Etc/UTC", "UTC", 0, 0)),
        )
        for utc in (UTC, zoneinfo.ZoneInfo("UTC"), zoneinfo.ZoneInfo("Etc/UTC"))
    ),
    # Elixir has no zones without a name: the same moment.
    (
        Stamp(2026, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2, microseconds=1))),
        struct(
            "DateTime",
            **date(2025, 12, 31),
            **time(22, 59, 59, 999_999),
            **zone("Etc/UTC", "UTC", 0, 0),
        ),
    ),
    (dt.timedelta(0), duration(0, 0)),
    (dt.timedelta(days=2, hours=1, microseconds=5), duration(2, 3600, 5)),
    (dt.timedelta(seconds=-1), duration(0, -1)),
    (dt.timedelta(days=-1, seconds=-1, microseconds=-1), duration(-1, -1, -1)),
    (dt.timedelta.max, duration(999_999_999, 86_399, 999_999)),
    (dt.timedelta.min, duration(-999_999_999, 0)),
    (Decimal("1.50"), number(1, 150, -2)),
    (Decimal("-1E+3"), number(-1, 1, 3)),
    (Decimal("-0"), number(-1, 0, 0)),
    (Decimal("Infinity"), number(1, A("inf"), 0)),
    (Decimal("-Infinity"), number(-1, A("inf"), 0)),
    (Decimal("NaN"), number(1, A("NaN"), 0)),
    (Decimal("sNaN123"), number(1, A("NaN"), 0)),
    (Amount("2.5", "EUR"), number(1, 25, -1)),
    (Decimal(LONG), number(1, LONG, 0)),
    (uuid.UUID(int=1), b"00000000-0000-0000-0000-000000000001"),
    (pathlib.PurePosixPath("a/ż"), "a/ż".encode()),
    (pathlib.PureWindowsPath("a/b"), b"a\\b"),
    (pathlib.Path("/tmp"), b"/tmp"),
    (FakePath("x"), b"x"),
    (pathlib.PurePosixPath("a\udcff"), b"a\xff"),
    (Colour.RED, b"red"),
    (Colour.MIXED, (b"red", [b"green"])),
    (Colour.NONE, None),
    (Level.LOW | Level.HIGH, 3),
    (Point(1, [Point(2)]), {b"x": 1, b"y": [{b"x": 2, b"y": None, b"count": 7}], b"count": 7}),
    (Further(1), {b"x": 1, b"y": None, b"count": 7}),
    (Slotted(1), {b"x": 1}),
    (collections.deque([1, "a"]), [1, b"a"]),
    (Lines(), []),
    (array.array("d", [1.5, math.inf]), [1.5, A("inf")]),
    (array.array("B", [1, 2]), [1, 2]),
    (range(1, 10, 3), struct("Range", first=1, last=9, step=3)),
    (range(10, 0, -1), struct("Range", first=10, last=1, step=-1)),
    (range(0), struct("Range", first=0, last=-1, step=1)),
    (range(2**70), struct("Range", first=0, last=2**70 - 1, step=1)),
    (types.MappingProxyType({"a": {1: 2}}), {b"a": {1: 2}}),
    (fractions.Fraction(1, 3), (1, 3)),
    (1 - 2j, (1.0, -2.0)),
    (complex("inf"), (A("inf"), 0.0)),
]


@pytest.mark.parametrize(("value", "term"), FORMS, ids=lambda value: type(value).__name__)
def test_each_has_its_form_wherever_it_is(encoder: Any, value: object, term: object) -> None:
    assert trip(encoder, value) == term
    assert trip(encoder, [value, (value, {"k": value})]) == [term, (term, {b"k": term})]
    # What has one never becomes a handle.
    parts = encoder([value], auto=True)
    assert not isinstance(parts, WithHandles)
    assert decode(b"".join(parts)) == [term]


@pytest.mark.parametrize(
    ("value", "term"),
    [(v, t) for v, t in FORMS if not isinstance(t, (dict, list)) and v is not Colour.MIXED],
    ids=lambda value: type(value).__name__,
)
def test_they_may_be_keys(encoder: Any, value: object, term: object) -> None:
    assert trip(encoder, {value: 1, "other": 2}) == {term: 1, b"other": 2}


def test_a_date_may_be_a_key(encoder: Any) -> None:
    days = [dt.date(2026, 1, day) for day in range(1, 4)]
    assert b"".join(encoder({day: day.day for day in days})).count(b"Elixir.Date") == 3


def test_keys_that_become_the_same_term_are_an_error(encoder: Any) -> None:
    with pytest.raises(ValueError, match="two keys of a dict become the same term"):
        encoder({Colour.RED: 1, "red": 2})


class Zone(dt.tzinfo):
    """A zone of the user's, without a name."""

    def utcoffset(self, _when: dt.datetime | None) -> dt.timedelta | None:
        return None

    def dst(self, _when: dt.datetime | None) -> None:
        return None

    def tzname(self, _when: dt.datetime | None) -> None:
        return None


def test_a_zone_that_says_nothing_is_none(encoder: Any) -> None:
    assert trip(encoder, dt.datetime(2026, 1, 1, tzinfo=Zone()))[A("__struct__")] == A(
        "Elixir.NaiveDateTime"
    )


class Node:
    """Something that has no form."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            dt.time(1, tzinfo=UTC),
            "Cannot serialize object of <class 'datetime.time'>: "
            "Elixir's Time has no zone; use .replace(tzinfo=None)",
        ),
        (
            dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
            "Cannot serialize object of <class 'datetime.datetime'>: in UTC, its year is outside the range of Python's datetime",
        ),
    ],
    ids=str,
)
def test_what_has_no_form_says_why_and_where(encoder: Any, value: object, text: str) -> None:
    with pytest.raises(TypeError) as caught:
        encoder({"rows": [{"at": value}]})
    assert str(caught.value) == f"['rows'][0]['at']: {text}"
    parts = encoder([value, dt.date(2026, 1, 1), value], auto=True)
    assert len(parts.objects) == 2


def test_others_of_its_type_have_their_form_all_the_same(encoder: Any) -> None:
    parts = encoder([dt.time(1, tzinfo=UTC), dt.time(1), dt.time(2, tzinfo=UTC)], auto=True)
    assert len(parts.objects) == 2
    assert decode(b"".join(parts))[1] == struct("Time", **time(1, 0, 0))


def test_a_field_without_a_value_is_named(encoder: Any) -> None:
    point = Point(1)
    del point.x
    with pytest.raises(TypeError, match=r"^\[0\]: Cannot .*Point'>: its field 'x' has no value$"):
        encoder([point])


def test_without_decimal_in_the_vm_a_number_is_refused(encoder: Any) -> None:
    Settings.structs = {"date": _layout("Date", "year", "month", "day")}
    with pytest.raises(TypeError) as caught:
        encoder([Decimal(1)])
    assert str(caught.value).startswith("[0]: Cannot serialize object of <class 'decimal.Decimal'>")
    assert "has no Decimal; add {:decimal" in str(caught.value)
    assert len(encoder([Decimal(1)], auto=True).objects) == 1


def test_the_vm_says_how_structs_are_laid_out(encoder: Any) -> None:
    Settings.structs = {"date": (b"h\x03", b"", b"")}
    assert trip(encoder, dt.date(2026, 1, 2)) == (2026, 1, 2)


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda bad: Point(1, [bad]), "y[0]"),
        (lambda bad: [Point(1, Point(2, bad))], "[0].y.y"),
        (lambda bad: collections.deque([1, bad]), "[1]"),
        (lambda bad: types.MappingProxyType({"a": bad}), "['a']"),
        (lambda bad: [enum.Enum("Bad", {"A": [bad]}).A], "[0].value[0]"),  # type: ignore[attr-defined]
    ],
)
def test_places_lead_through_them(
    encoder: Any, wrap: Callable[[object], object], place: str
) -> None:
    with pytest.raises(TypeError) as caught:
        encoder(wrap(Node()))
    text = str(caught.value)
    assert text.startswith(
        f"{place}: Cannot serialize object of <class '{__name__}.Node'>; convert it, "
    )
    assert "snex.register_encoder" in text
    assert "returns: :auto" in text


def test_one_that_contains_itself_is_an_error(encoder: Any) -> None:
    point = Point(1)
    point.y = collections.deque([point])
    with pytest.raises(ValueError, match="a Point that contains itself"):
        encoder(point)


def test_a_deep_one_needs_no_stack(encoder: Any) -> None:
    value: object = None
    for _ in range(20_000):
        value = Point(1, collections.deque([value]))
    assert len(b"".join(encoder(value))) > 20_000


class Money(NamedTuple):
    amount: int


class Word(str):
    __slots__ = ()


class Loud(Word):
    __slots__ = ()


class TestRegisteredEncoders:
    def test_the_most_specific_class_wins(self, encoder: Any) -> None:
        snex.register_encoder(Point, lambda point: ("point", point.x))
        snex.register_encoder(Further, lambda point: ["further", Point(point.x)])
        assert trip(encoder, [Point(1), Further(2)]) == [
            (b"point", 1),
            [b"further", (b"point", 2)],
        ]

    def test_they_come_before_what_snex_does(self, encoder: Any) -> None:
        snex.register_encoder(dt.date, lambda day: day.isoformat())
        assert trip(encoder, dt.date(2026, 1, 2)) == b"2026-01-02"
        assert trip(encoder, dt.datetime(2026, 1, 2)) == b"2026-01-02T00:00:00"
        snex.register_encoder(dt.datetime, lambda at: at.year)
        assert trip(encoder, [dt.date(2026, 1, 2), dt.datetime(2026, 1, 2)]) == [
            b"2026-01-02",
            2026,
        ]

    def test_the_custom_encoder_comes_before_them(self, encoder: Any) -> None:
        def custom(value: object) -> object:
            if isinstance(value, Node):
                return "custom"
            raise TypeError

        snex.set_custom_encoder(custom)
        snex.register_encoder(Node, lambda _: "registered")
        snex.register_encoder(Point, lambda _: "registered")
        value = [Node(), Point(1), dt.timedelta(0)]
        assert trip(encoder, value) == [b"custom", b"registered", duration(0, 0)]

    def test_what_a_custom_encoder_does_not_know_has_its_form(self, encoder: Any) -> None:
        def custom(_value: object) -> object:
            msg = "mine only"
            raise TypeError(msg)

        snex.set_custom_encoder(custom)
        assert trip(encoder, [dt.time(1), Colour.RED]) == [struct("Time", **time(1, 0, 0)), b"red"]
        with pytest.raises(TypeError, match="^mine only$"):
            encoder(Node())

    def test_subclasses_of_what_snex_encodes_itself_may_have_one(self, encoder: Any) -> None:
        value = [Money(5), Word("a"), Loud("b"), "c", {Word("d"): 1}]
        plain = [(5,), b"a", b"b", b"c", {b"d": 1}]
        assert trip(encoder, value) == plain
        snex.register_encoder(Money, lambda money: {"amount": money.amount})
        snex.register_encoder(Word, lambda word: word.upper())
        assert trip(encoder, value) == [{b"amount": 5}, b"A", b"B", b"c", {b"D": 1}]
        assert trip(encoder, collections.OrderedDict(a={1, 2}))
        Settings.encoders.clear()
        assert trip(encoder, value) == plain
        assert trip(encoder, collections.OrderedDict(a=Colour.RED)) == {b"a": b"red"}

    def test_what_one_raises_is_the_error_of_the_call(self, encoder: Any) -> None:
        def refuse(_value: object) -> object:
            msg = "not today"
            raise TypeError(msg)

        snex.register_encoder(Node, refuse)
        with pytest.raises(TypeError, match=r"^\['a'\]: not today$"):
            encoder({"a": Node()})

    def test_one_that_never_ends_is_ended(self, encoder: Any) -> None:
        snex.register_encoder(Node, lambda node: [node])
        with pytest.raises(ValueError, match="contains itself"):
            encoder(Node())

    @pytest.mark.parametrize("kind", [str, int, dict, type(None), snex.Atom, snex.Term])
    def test_what_snex_encodes_itself_cannot_have_one(self, kind: type) -> None:
        with pytest.raises(ValueError, match="Snex encodes .* itself"):
            snex.register_encoder(kind, str)

    def test_arguments_that_make_no_sense_are_type_errors(self) -> None:
        with pytest.raises(TypeError, match="expected a class, got: 1"):
            snex.register_encoder(1, str)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="expected a function, got: None"):
            snex.register_encoder(Node, None)  # type: ignore[arg-type]

    def test_with_auto_a_type_with_an_encoder_is_a_value(self, encoder: Any) -> None:
        snex.register_encoder(Node, lambda _: 1)
        assert decode(b"".join(encoder([Node()], auto=True))) == [1]


def test_nothing_is_imported_for_it() -> None:
    """Types are looked for when an unknown object is met; a program without them stays without."""
    code = (
        "import sys\n"
        "from snex._etf.encoder import encode\n"
        "class Odd: pass\n"
        "before = set(sys.modules)\n"
        "for value in (1j, range(3), Odd()):\n"
        "    encode([value], auto=True)\n"
        "new = {n for n in set(sys.modules) - before if not n.startswith('snex')}\n"
        "assert not new & {'datetime', 'decimal', 'uuid', 'pathlib', 'dataclasses', 'numpy', 'array', 'zoneinfo'}, new\n"
    )
    subprocess.run([sys.executable, "-S", "-c", code], check=True, cwd=PACKAGE)


times = st.datetimes(timezones=st.none() | st.timezones() | st.just(UTC))
everyday = st.recursive(
    times
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
    | st.complex_numbers()
    | st.fractions()
    | st.sampled_from(Colour)
    | st.builds(range, st.integers(), st.integers(), st.integers().filter(bool)),
    lambda inner: (
        st.lists(inner).map(collections.deque)
        | st.builds(Point, st.integers(), inner)
        | st.dictionaries(st.text(), inner).map(types.MappingProxyType)
        | st.dictionaries(times, inner, max_size=3)
    ),
    max_leaves=10,
)


def outcome(encoder: Any, value: object) -> object:
    try:
        return b"".join(encoder(value))
    except (TypeError, ValueError) as error:
        return type(error), str(error)


@given(everyday)
def test_both_encoders_agree(value: object) -> None:
    assert outcome(encode, value) == outcome(encode_pure, value)


@given(st.datetimes(timezones=st.timezones()))
def test_moments_stay_the_same(value: dt.datetime) -> None:
    try:
        term = trip(encode, value)
    except TypeError:
        return
    fields = {key.name: field for key, field in term.items()}
    naive = dt.datetime(
        fields["year"],
        fields["month"],
        fields["day"],
        fields["hour"],
        fields["minute"],
        fields["second"],
        fields["microsecond"][0],
    )
    offset = dt.timedelta(seconds=fields["utc_offset"] + fields["std_offset"])
    assert value.utcoffset() is not None
    assert naive - value.replace(tzinfo=None) == offset - value.utcoffset()  # type: ignore[operator]


@given(st.decimals())
def test_decimals_stay_the_same(value: decimal.Decimal) -> None:
    fields = {key.name: field for key, field in trip(encode, value).items()}
    if value.is_finite():
        digits = tuple(map(int, str(fields["coef"])))
        back = Decimal((0 if fields["sign"] == 1 else 1, digits, fields["exp"]))
        assert back.as_tuple() == value.as_tuple()
