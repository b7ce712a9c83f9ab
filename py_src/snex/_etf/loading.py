"""Functions that pickles from the VM call: they make values that need more than a constructor, and refuse impossible ones.

A `ValueError` or `ArithmeticError` in one of them, or in a constructor in `CONSTRUCTORS`, is an error of the call to which the
pickle belongs; `where.py` finds the value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    import datetime
    import decimal
    from collections.abc import Sized

    _T = TypeVar("_T", bound=Sized)

# What else a pickle may name. None of these has effects.
CONSTRUCTORS = frozenset(
    {
        ("datetime", "date"),
        ("datetime", "time"),
        ("datetime", "datetime"),
        ("datetime", "timedelta"),
        ("decimal", "Decimal"),
        (__name__, "zoned"),
        (__name__, "number"),
        (__name__, "inclusive"),
        (__name__, "array"),
        (__name__, "frame"),
        (__name__, "refuse"),
    }
)


def zoned(  # noqa: PLR0913 - a moment has so many parts
    year: int,
    month: int,
    day: int,
    hour: int,
    minute: int,
    second: int,
    microsecond: int,
    zone: str,
    offset: int,
) -> datetime.datetime:
    """Return a moment in a zone whose clocks are `offset` seconds ahead of UTC at that moment.

    If Python has other rules for the zone than the VM, its clocks differ, but it is the same moment.

    Raises:
        ValueError: for a zone that Python does not know.

    >>> str(zoned(2026, 10, 25, 2, 30, 0, 0, "Europe/Berlin", 3600))
    '2026-10-25 02:30:00+01:00'
    """
    from datetime import datetime, timedelta

    info = _zone(zone)
    value = datetime(year, month, day, hour, minute, second, microsecond, info)
    ahead = timedelta(seconds=offset)
    if value.utcoffset() != ahead:
        # When clocks are set back, the same time comes twice.
        value = value.replace(fold=1)
        if value.utcoffset() != ahead:
            value = info.fromutc(value.replace(fold=0) - ahead)
    return value


def _zone(name: str) -> datetime.tzinfo:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        if name == "Etc/UTC":
            from datetime import timezone

            return timezone.utc
        msg = (
            f"Python does not know the time zone {name!r}: add the package tzdata to Python's dependencies, "
            "or convert it with DateTime.shift_zone/2"
        )
        raise ValueError(msg) from None


def number(sign: str, coefficient: int, exponent: int) -> decimal.Decimal:
    """Return a number of any length.

    >>> number("-", 12, -1)
    Decimal('-1.2')
    """
    from decimal import Decimal

    return Decimal(f"{sign}{Decimal(coefficient)}E{exponent}")


def inclusive(first: int, last: int, step: int) -> range:
    """Return a range that includes its last number.

    >>> inclusive(1, 9, 2), inclusive(3, 1, -1)
    (range(1, 10, 2), range(3, 0, -1))
    """
    return range(first, last + (1 if step > 0 else -1), step)


def array(kind: str, shape: tuple[int, ...], data: bytearray | memoryview) -> object:
    """Return an array; see `arrays.py`.

    >>> array("u16", (2,), bytearray(b"abcd")).tolist()
    [25185, 25699]
    """
    from .arrays import received

    return received(kind, shape, data)


def frame(is_series: bool, data: Any, library: str | None) -> object:  # noqa: ANN401, FBT001 - from a pickle
    """Return the frame or series of an Arrow stream, see `frames.load`."""
    from .frames import load

    return load(is_series, data, library)


def refuse(why: str) -> NoReturn:
    """Raise `ValueError`: Python cannot hold the value."""
    raise ValueError(why)


def distinct(value: _T, count: int) -> _T:
    """Return a dict or set that was made of `count` keys, if no two of them are equal.

    Raises:
        ValueError: if some are.
    """
    if len(value) == count:
        return value
    raise ValueError(EQUAL)


EQUAL = "two keys of a map, or members of a set, are equal in Python"


def remedy(error: Exception, module: str) -> str:
    """Return the text of an error from one of these functions, with a remedy."""
    reason: Any = (
        error.args[0] if error.args and type(error.args[0]) is str else type(error).__name__
    )
    if module == __name__:
        return str(reason)
    return f"{reason}: {module} cannot hold it; send it with structs_as: :dict, or as a string"
