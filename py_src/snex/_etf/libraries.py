"""Scalars of numpy and pandas that have a form in Elixir: functions that add their types to those of `everyday`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import arrays, structs
from .scalars import LEAVES, NoFormError, Raw

if TYPE_CHECKING:
    from collections.abc import Callable

# Kinds of numpy's dtypes: booleans, integers with and without sign, floats.
_NUMBERS = frozenset("biuf")
_COMPLEX = "c"
_DATETIME = "M"
_TIMEDELTA = "m"
# Units without a fixed length.
_UNEVEN = {
    "Y": "years vary in length; convert it to days",
    "M": "months vary in length; convert it to days",
    "generic": "it has no unit; convert it with int()",
}
# Units from a day up: a date.
_DATES = frozenset("YMWD")
# Units shorter than a microsecond.
_FINE = frozenset({"ns", "ps", "fs", "as"})
_PLAIN = frozenset({bool, int, float})
NIL = Raw(LEAVES[type(None)](None))


def numpy(module: Any) -> dict[type, Callable[[Any], object]]:  # noqa: ANN401
    """Return the converters of numpy's types."""
    unit_of = module.datetime_data
    is_nat = module.isnat

    def scalar(value: Any) -> object:  # noqa: ANN401
        kind = value.dtype.kind
        if kind in _NUMBERS or type(value).__module__ == arrays.ML_DTYPES:
            plain = value.item()
            # `item` returns numbers that Python's float cannot hold (`longdouble`) unchanged.
            if type(plain) in _PLAIN:
                return plain
            msg = "Elixir has no floats of this size; convert it with float()"
            raise NoFormError(msg)
        if kind == _COMPLEX:
            if type(value.item()) is complex:
                return scalar(value.real), scalar(value.imag)
            msg = "Elixir has no floats of this size; convert it with complex()"
            raise NoFormError(msg)
        if kind == _DATETIME:
            return NIL if is_nat(value) else moment(value)
        if kind == _TIMEDELTA:
            return NIL if is_nat(value) else interval(value)
        raise NoFormError

    def moment(value: Any) -> object:  # noqa: ANN401
        if unit_of(value.dtype)[0] in _DATES:
            return structs.date(item(value, "M8[D]"))
        return structs.date_time(item(value, "M8[us]"))

    def interval(value: Any) -> object:  # noqa: ANN401
        unit = unit_of(value.dtype)[0]
        if unit in _UNEVEN:
            raise NoFormError(_UNEVEN[unit])
        return structs.duration(item(value, "m8[us]"))

    def item(value: Any, dtype: str) -> Any:  # noqa: ANN401
        """Return a date or time of Python's. For units finer than a microsecond, `value.item()` would return an `int`."""
        try:
            whole = value.astype(dtype)
            # On overflow, the number changes, or there is an error.
            same = unit_of(value.dtype)[0] in _FINE or whole.astype(value.dtype) == value
        except OverflowError:
            same = False
        exact = whole.item() if same else 0
        if type(exact) is int:
            msg = "it is outside the range of Python's datetime"
            raise NoFormError(msg)
        return exact

    return {module.generic: scalar, module.ndarray: arrays.of_numpy(module)}


def pandas(module: Any) -> dict[type, Callable[[Any], object]]:  # noqa: ANN401
    """Return the converters of pandas' types."""

    def nil(_value: object) -> object:
        return NIL

    return {
        module.Timestamp: structs.date_time,
        module.Timedelta: structs.duration,
        type(module.NaT): nil,
        type(module.NA): nil,
    }
