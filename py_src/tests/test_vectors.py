"""The vectors that all three languages share, see `test/vectors/README.md`."""

from __future__ import annotations

import decimal
import functools
import importlib
import json
import pickle
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.etf import decode

import snex
from snex._etf.encoder import encode
from snex._wire.sinks import SINKS

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = Path(__file__).parents[2] / "test" / "vectors" / "vectors.json"
VECTORS: list[Any] = json.loads(PATH.read_text(encoding="utf-8"))
STRUCTS = {v["name"] for v in VECTORS if isinstance(v["value"], dict) and "struct" in v["value"]}


def raw(text: str) -> bytes:
    pieces = (piece.partition("*") for piece in text.split())
    return b"".join(bytes.fromhex(unit) * int(count or 1) for unit, _, count in pieces)


def made(module: str, name: str, arguments: list[Any]) -> object:
    return getattr(importlib.import_module(module), name)(*map(built, arguments))


MAKERS: dict[str, Callable[[Any], object]] = {
    "int": int,
    "float": lambda bits: struct.unpack(">d", bytes.fromhex(bits))[0],
    "special": float,
    "str": lambda text: raw(text).decode(),
    "bytes": raw,
    "memory": lambda text: bytearray(raw(text)),
    "bytearray": lambda text: bytearray(raw(text)),
    "memoryview": lambda text: memoryview(raw(text)),
    "atom": snex.Atom,
    "distinct_atom": snex.DistinctAtom,
    "list": lambda items: [built(item) for item in items],
    "repeat": lambda pair: [built(pair[0]) for _ in range(pair[1])],
    "tuple": lambda items: tuple(built(item) for item in items),
    "map": lambda pairs: {built(key): built(value) for key, value in pairs},
    "set": lambda items: {built(item) for item in items},
    "frozenset": lambda items: frozenset(built(item) for item in items),
    "opaque": lambda text: snex.Term(raw(text)),
    "term": lambda text: snex.Term(raw(text)),
    "function": lambda text: snex.Function(raw(text)),
    "callback": lambda text: snex.Callback(raw(text)),
    "object": lambda parts: made(*parts),
    "struct": lambda parts: made(*parts[1:]),
}


def built(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    return MAKERS[kind](inner)


def shape(value: Any) -> Any:
    """Return what two values share that are equal to the last bit, types included."""
    if isinstance(value, memoryview):
        return ("memoryview", value.readonly, value.format, value.shape, value.tobytes())
    if hasattr(value, "__array_interface__"):
        # Where another test has loaded numpy.
        return (type(value), value.dtype, value.shape, value.tobytes())
    if isinstance(value, decimal.Decimal):
        # It is not equal to itself if it is no number.
        return (type(value), str(value))
    if isinstance(value, float):
        return ("float", "nan" if value != value else struct.pack(">d", value))  # noqa: PLR0124 - nan
    if isinstance(value, (list, tuple)):
        return (type(value), [shape(item) for item in value])
    if isinstance(value, dict):
        return ("dict", [(shape(k), shape(v)) for k, v in value.items()])
    if isinstance(value, (set, frozenset)):
        return (type(value), {repr(shape(item)) for item in value})
    return (type(value), value)


@functools.cache
def loaded(number: int) -> Any:
    vector = VECTORS[number]
    sinks = []
    for kind, text in vector.get("buffers", ()):
        data = raw(text)
        sinks.append(SINKS[kind](len(data)))
        sinks[-1].put(memoryview(data))
    return pickle.loads(raw(vector["pickle"]), buffers=[sink.finish() for sink in sinks])


numbers = pytest.mark.parametrize("number", range(len(VECTORS)), ids=[v["name"] for v in VECTORS])


@numbers
def test_a_pickle_becomes_the_value(number: int) -> None:
    assert shape(loaded(number)) == shape(built(VECTORS[number]["value"]))


@numbers
def test_a_value_becomes_its_external_term_format(number: int) -> None:
    expected = raw(VECTORS[number]["etf"])
    # Also what has been read.
    for value in (built(VECTORS[number]["value"]), loaded(number)):
        encoded = b"".join(encode(value))
        if VECTORS[number]["name"] in STRUCTS:
            # Without a VM, fields are in the order of our own.
            assert decode(encoded) == decode(expected)
        else:
            assert encoded == expected
