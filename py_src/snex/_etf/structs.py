"""Elixir structs for Python's types, in the layout that `HELLO` describes.

A layout has the bytes that precede the value of each field; the first of them include all other parts of the struct.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .encoder import Settings
from .scalars import LEAVES, NoFormError, Raw, atom

if TYPE_CHECKING:
    import datetime
    import decimal
    from collections.abc import Callable

    Layout = tuple[bytes, ...]


def _layout(module: str, *fields: str, **constants: bytes) -> Layout:
    count = 1 + len(fields) + len(constants)
    head = b"t" + count.to_bytes(4, "big") + atom("__struct__") + atom(f"Elixir.{module}")
    head += b"".join(atom(name) + value for name, value in constants.items())
    first, *others = map(atom, fields)
    return (head + first, *others)


_DATE = ("year", "month", "day")
_TIME = ("hour", "minute", "second", "microsecond")
_ZONE = ("time_zone", "zone_abbr", "utc_offset", "std_offset")
_ISO = {"calendar": atom("Elixir.Calendar.ISO")}
_UNITS = dict.fromkeys(("year", "month", "week", "hour", "minute"), b"a\x00")


# Used without a VM, whose own layouts may differ.
_LAYOUTS: dict[str, Layout] = {
    "date": _layout("Date", *_DATE, **_ISO),
    "time": _layout("Time", *_TIME, **_ISO),
    "naive_datetime": _layout("NaiveDateTime", *_DATE, *_TIME, **_ISO),
    "datetime": _layout("DateTime", *_DATE, *_TIME, *_ZONE, **_ISO),
    "duration": _layout("Duration", "day", "second", "microsecond", **_UNITS),
    "range": _layout("Range", "first", "last", "step"),
    "array": _layout("Snex.Array", "type", "shape", "data"),
    "decimal": _layout("Decimal", "sign", "coef", "exp"),
}


def layout_of(name: str) -> Layout | None:
    """Return the layout of a struct; None if the VM has no struct of this name."""
    return (_LAYOUTS if Settings.structs is None else Settings.structs).get(name)


def _struct(name: str, *values: bytes) -> Raw:
    layout = layout_of(name)
    assert layout is not None  # noqa: S101 - the VM has all of these
    return Raw(b"".join([part for pair in zip(layout, values, strict=True) for part in pair]))


_int: Callable[[int], Any] = LEAVES[int]
_str: Callable[[str], Any] = LEAVES[str]
# The years of Elixir's structs. Python's own types have no others, but numpy's have.
_MIN_YEAR, _MAX_YEAR = -9999, 9999


def _microsecond(number: int) -> bytes:
    # With Python's precision: six digits, or none.
    return b"".join((b"h\x02", _int(number), b"a\x06" if number else b"a\x00"))


def _date_values(value: datetime.date) -> tuple[bytes, ...]:
    if not _MIN_YEAR <= value.year <= _MAX_YEAR:
        msg = f"Elixir's years end at {_MAX_YEAR}, but this one is {value.year}"
        raise NoFormError(msg)
    return _int(value.year), _int(value.month), _int(value.day)


def _time_values(value: datetime.time | datetime.datetime) -> tuple[bytes, ...]:
    return (
        _int(value.hour),
        _int(value.minute),
        _int(value.second),
        _microsecond(value.microsecond),
    )


def date(value: datetime.date) -> Raw:
    """Return a `Date`."""
    return _struct("date", *_date_values(value))


def time(value: datetime.time) -> Raw:
    """Return a `Time`, which has no zone."""
    if value.tzinfo is not None:
        msg = "Elixir's Time has no zone; use .replace(tzinfo=None)"
        raise NoFormError(msg)
    return _struct("time", *_time_values(value))


# Names of the only zone that Elixir knows without a database. Elixir uses the first.
_UTC = "Etc/UTC"
_UTC_NAMES = frozenset({_UTC, "UTC", "Etc/UCT", "UCT", "Etc/Zulu", "Zulu", "Etc/Universal"})


def date_time(value: datetime.datetime) -> Raw:
    """Return a `NaiveDateTime`, or a `DateTime`: in its own zone if that has a name, otherwise in UTC."""
    if value.tzinfo is None:
        return _struct("naive_datetime", *_date_values(value), *_time_values(value))
    offset: Any = value.utcoffset()
    if offset is None:
        return _struct("naive_datetime", *_date_values(value), *_time_values(value))
    # The attributes of `zoneinfo` and of `pytz`.
    name = getattr(value.tzinfo, "key", None) or getattr(value.tzinfo, "zone", None)
    if type(name) is not str or name in _UTC_NAMES or offset.microseconds:
        if offset:
            try:
                # Dates of the class itself, because a subclass may override the arithmetic.
                value = value.replace(tzinfo=None) - offset
            except OverflowError:
                msg = "in UTC, its year is outside the range of Python's datetime"
                raise NoFormError(msg) from None
        zone = (_str(_UTC), _str("UTC"), b"a\x00", b"a\x00")
    else:
        saved: Any = value.dst()
        dst = saved.days * 86_400 + saved.seconds if saved is not None else 0
        total = offset.days * 86_400 + offset.seconds
        zone = (_str(name), _str(value.tzname() or name), _int(total - dst), _int(dst))
    return _struct("datetime", *_date_values(value), *_time_values(value), *zone)


def duration(value: datetime.timedelta) -> Raw:
    """Return a `Duration` of days, seconds and microseconds, all of the same sign."""
    micro = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
    sign = -1 if micro < 0 else 1
    seconds, micro = divmod(abs(micro), 1_000_000)
    days, seconds = divmod(seconds, 86_400)
    return _struct("duration", _int(sign * days), _int(sign * seconds), _microsecond(sign * micro))


def decimal_number(value: decimal.Decimal) -> Raw:
    """Return a `Decimal`, if the application has that library."""
    if layout_of("decimal") is None:
        msg = (
            'the Elixir application has no Decimal; add {:decimal, "~> 2.0"} to its dependencies, '
            "convert the number, or see snex.register_encoder"
        )
        raise NoFormError(msg)
    sign, digits, exponent = value.as_tuple()
    if type(exponent) is int:
        # Through `Decimal`, because `int` does not read text of any length.
        number = _int(int(sys.modules["decimal"].Decimal((0, digits, 0))))
        power = _int(exponent)
    else:
        number = atom("inf" if exponent == "F" else "NaN")
        power = b"a\x00"
    return _struct("decimal", _int(-1 if sign else 1), number, power)


def number_range(value: range) -> Raw:
    """Return a `Range`, whose end is inclusive."""
    last = value.stop - 1 if value.step > 0 else value.stop + 1
    return _struct("range", _int(value.start), _int(last), _int(value.step))
