"""How the result of a call is encoded: the Python side of `encoding_opts`."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Literal, TypedDict

from .._etf.terms import Atom

if TYPE_CHECKING:
    from collections.abc import Mapping


class EncodingOpt:
    """The values of `EncodingOpts`, for those who prefer names to strings."""

    __module__ = "snex"

    class BinaryAs(str, enum.Enum):
        """What an Elixir binary becomes."""

        __module__ = "snex"

        STR = "str"
        BYTES = "bytes"
        BYTEARRAY = "bytearray"
        MEMORYVIEW = "memoryview"

    class SetAs(str, enum.Enum):
        """What a `MapSet` becomes."""

        __module__ = "snex"

        SET = "set"
        FROZENSET = "frozenset"

    class AtomAs(str, enum.Enum):
        """What an atom becomes."""

        __module__ = "snex"

        ATOM = "atom"
        DISTINCT_ATOM = "distinct_atom"

    class StructsAs(str, enum.Enum):
        """What structs with a counterpart in Python become: dates, times, `Decimal`, `Range`, `URI`."""

        __module__ = "snex"

        DICT = "dict"
        NATIVE = "native"

    class DataframeAs(str, enum.Enum):
        """The library that data frames are made with."""

        __module__ = "snex"

        PANDAS = "pandas"
        POLARS = "polars"
        PYARROW = "pyarrow"


class EncodingOpts(TypedDict, total=False):
    """How the result of a call is encoded; options that are left out have the interpreter's defaults.

    >>> opts: EncodingOpts = {"binary_as": "bytes", "set_as": EncodingOpt.SetAs.FROZENSET}
    """

    binary_as: EncodingOpt.BinaryAs | Literal["str", "bytes", "bytearray", "memoryview"]
    set_as: EncodingOpt.SetAs | Literal["set", "frozenset"]
    atom_as: EncodingOpt.AtomAs | Literal["atom", "distinct_atom"]
    structs_as: EncodingOpt.StructsAs | Literal["dict", "native"]
    dataframe_as: EncodingOpt.DataframeAs | Literal["pandas", "polars", "pyarrow"]


_ENUMS: dict[str, type[enum.Enum]] = {
    "binary_as": EncodingOpt.BinaryAs,
    "set_as": EncodingOpt.SetAs,
    "atom_as": EncodingOpt.AtomAs,
    "structs_as": EncodingOpt.StructsAs,
    "dataframe_as": EncodingOpt.DataframeAs,
}


def wire_opts(opts: Mapping[str, object]) -> dict[Atom, Atom]:
    """Return options as they are sent to the VM.

    Raises:
        ValueError: for an unknown option or value, naming the possible ones.
    """
    result = {}
    for name, value in opts.items():
        values = _ENUMS.get(str(name))
        if values is None:
            msg = f"unknown encoding option {name!r}, expected one of {', '.join(_ENUMS)}"
            raise ValueError(msg)
        try:
            result[Atom(str(name))] = Atom(values(value).value)
        except ValueError:
            possible = ", ".join(repr(member.value) for member in values)
            msg = f"unknown value {value!r} for {name}, expected one of {possible}"
            raise ValueError(msg) from None
    return result
