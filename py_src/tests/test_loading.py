"""What pickles from the VM call, and what is said of values that cannot be made."""

# ruff: noqa: DTZ001 - these are the naive ones
from __future__ import annotations

import datetime as dt
import pickle
import zoneinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snex._etf import loading
from snex._wire.body import load

if TYPE_CHECKING:
    from collections.abc import Callable


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


@given(st.datetimes(timezones=st.timezones()))
def test_a_moment_in_a_zone_is_the_same_one(value: dt.datetime) -> None:
    offset: Any = value.utcoffset()
    parts = value.timetuple()[:6]
    assert isinstance(value.tzinfo, zoneinfo.ZoneInfo)
    if offset.microseconds:
        return
    seconds = offset.days * 86_400 + offset.seconds
    try:
        made = loading.zoned(*parts, value.microsecond, value.tzinfo.key, seconds)
    except OverflowError:
        return
    assert made.replace(tzinfo=None) - made.utcoffset() == value.replace(tzinfo=None) - offset  # type: ignore[operator]
    assert made.tzinfo is value.tzinfo


def test_utc_needs_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", missing)
    assert loading.zoned(2026, 1, 2, 3, 4, 5, 6, "Etc/UTC", 0) == dt.datetime(
        2026, 1, 2, 3, 4, 5, 6, dt.timezone.utc
    )
    with pytest.raises(
        ValueError, match="Python does not know the time zone 'Europe/Berlin': add the package"
    ):
        loading.zoned(2026, 1, 2, 3, 4, 5, 6, "Europe/Berlin", 3600)


@given(st.integers(min_value=0), st.integers(-100, 100))
def test_a_number_is_exact(coefficient: int, exponent: int) -> None:
    digits = tuple(map(int, str(coefficient)))
    assert (
        loading.number("-", coefficient, exponent).as_tuple()
        == Decimal((1, digits, exponent)).as_tuple()
    )


@given(st.integers(), st.integers(), st.integers().filter(bool))
def test_a_range_has_its_last_number(first: int, last: int, step: int) -> None:
    made = loading.inclusive(first, last, step)
    assert (last in made) == ((last - first) % step == 0 and (last - first) * step >= 0)


REQUEST: tuple[object, ...] = (None, "code", None, 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Call(loading.refuse, "no such thing"), ": no such thing"),
        (Call(dt.date, 10_000, 1, 1), "datetime cannot hold it; send it with structs_as: :dict"),
        (Call(dt.timedelta, 10**10), "datetime cannot hold it; send it with structs_as: :dict"),
        (Call(Decimal, "1.x"), "decimal cannot hold it; send it"),
        (
            Call(loading.zoned, 2026, 1, 1, 0, 0, 0, 0, "Mars", 0),
            "Python does not know the time zone 'Mars'",
        ),
        (Call(loading.distinct, {"a": 1}, 2), "are equal in Python"),
        (Call(loading.distinct, {1}, 2), "are equal in Python"),
    ],
)
def test_what_cannot_be_made_is_named(value: object, text: str) -> None:
    for wrap, place in (
        (lambda bad: (*REQUEST, {"x": [1, {"k": bad}]}), "the variable x[1]['k']: "),
        (lambda bad: (1, "module", "path", [1, (bad,)], {}), "the argument 2[0]: "),
        (lambda bad: (1, None, "path", [], {"k": bad}), "the argument k: "),
        (lambda bad: [1, bad], "[1]: "),
        (lambda bad: bad, "the value: "),
        (lambda bad: [Call(list, [1, bad])], "[0][1]: "),
    ):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is looked at below
            load(pickle.dumps(wrap(value)), ())
        assert str(caught.value).startswith(place)
        assert text in str(caught.value)


def test_two_keys_are_named() -> None:
    # As the VM writes them.
    pickled = pickle.dumps(({"keys": Call(loading.distinct, {"b": 1}, 2)},))
    with pytest.raises(ValueError, match=r"^the variable keys: .* are equal in Python, as 1, 1.0"):
        load(pickled, ())


def test_errors_of_the_users_own_constructors_stay_as_they_are() -> None:
    with pytest.raises(ValueError, match=r"^invalid literal for int\(\)"):
        load(pickle.dumps((*REQUEST, {"x": Call(int, "x")})), ())


made: list[str] = []


def _effect(text: str) -> str:
    made.append(text)
    return text


def test_nothing_of_the_users_runs_again_for_the_message() -> None:
    made.clear()
    with pytest.raises(ValueError, match="no such thing"):
        load(pickle.dumps([Call(_effect, "a"), Call(loading.refuse, "no such thing")]), ())
    assert made == ["a"]
