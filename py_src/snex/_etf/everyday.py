"""Types of Python's library that have a form in Elixir, and their converters.

Nothing is imported for this: an object's class comes from a module that is loaded. The types of a module are added to
the table when an object of a class from there is met.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from . import frames, libraries, structs
from .encoder import KNOWN
from .handles import MRO
from .scalars import LEAVES, Instead, NoFormError, Raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from .encoder import Converter

_modules = sys.modules
_attributes: Any = type.__dict__
_MODULE = _attributes["__module__"].__get__
_DICT = _attributes["__dict__"].__get__
_FIELDS = "__dataclass_fields__"
_STREAM = "__arrow_c_stream__"


def _text(value: object) -> object:
    return str(value)


def _path(value: object) -> object:
    # A name that is not text becomes the bytes by which the system knows it.
    binary: Any = LEAVES[bytes](str(value).encode("utf-8", "surrogateescape"))
    return Raw(binary)


def _member(value: Any) -> object:  # noqa: ANN401
    inner = value.value
    return inner if type(inner) in LEAVES else Instead(inner)


def _dataclass(value: object) -> object:
    fields: Any = _modules["dataclasses"].fields
    pairs = {}
    for field in fields(type(value)):
        try:
            pairs[field.name] = getattr(value, field.name)
        except AttributeError:
            msg = f"its field {field.name!r} has no value"
            raise NoFormError(msg) from None
    return pairs


KNOWN.update(
    {
        range: structs.number_range,
        complex: lambda value: (value.real, value.imag),
        type(type.__dict__): dict,
    }
)

# The types of a module, by its name. They raise `AttributeError` while the module is being loaded.
_MODULES: dict[str, Callable[[Any], dict[type, Converter]]] = {
    "datetime": lambda module: {
        module.date: structs.date,
        module.time: structs.time,
        module.datetime: structs.date_time,
        module.timedelta: structs.duration,
    },
    "decimal": lambda module: {module.Decimal: structs.decimal_number},
    "uuid": lambda module: {module.UUID: _text},
    "pathlib": lambda module: {module.PurePath: _path},
    "enum": lambda module: {module.Enum: _member},
    "collections": lambda module: {module.deque: list},
    "array": lambda module: {module.array: lambda value: value.tolist()},
    "fractions": lambda module: {
        module.Fraction: lambda value: (value.numerator, value.denominator)
    },
    "numpy": libraries.numpy,
    "pandas": lambda module: {**libraries.pandas(module), **frames.pandas(module)},
    "polars": frames.polars,
    "pyarrow": frames.pyarrow,
}


def converter(kind: type) -> Converter | None:
    """Return the converter for objects of this class: its own, or that of its nearest base class."""
    for base in MRO(kind):
        known = KNOWN.get(base) or _learned(base)
        if known is not None:
            return known
        if _STREAM in _DICT(base):
            return frames.stream
        if _FIELDS in _DICT(base) and "dataclasses" in _modules:
            return _dataclass
    return None


def _learned(base: type) -> Converter | None:
    """Add the types of a class's module to the known ones, if it is loaded completely."""
    name = _MODULE(base)
    if type(name) is not str:
        return None
    name = name.partition(".")[0]
    types_of = _MODULES.get(name)
    module = _modules.get(name)
    if types_of is None or module is None:
        return None
    try:
        KNOWN.update(types_of(module))
    except AttributeError:
        return None
    _MODULES.pop(name, None)
    return KNOWN.get(base)
