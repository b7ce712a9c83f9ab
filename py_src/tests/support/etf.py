"""A decoder of external term format, for tests only: independent of the encoder that it checks."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class A:
    """An atom."""

    name: str


@dataclass(frozen=True)
class MapSet:
    """What an Elixir set is: compared by its members."""

    members: frozenset[Any]


@dataclass(frozen=True)
class Bits:
    """A bitstring that is no binary: its bytes, and how many bits of the last one count."""

    data: bytes
    last: int


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        assert len(piece) == count, "term cut short"
        self.at += count
        return piece

    def number(self, fmt: str) -> Any:
        return struct.unpack(fmt, self.take(struct.calcsize(fmt)))[0]


def decode(data: bytes) -> Any:
    """Decode a complete term. Maps become dicts; their keys must be distinct, as the VM demands."""
    reader = Reader(bytes(data))
    assert reader.take(1) == b"\x83"
    term = _term(reader)
    assert reader.at == len(reader.data), "bytes behind the term"
    return term


def _big(reader: Reader, size: int) -> int:
    sign = reader.take(1)[0]
    value = int.from_bytes(reader.take(size), "little")
    return -value if sign else value


def _atom(name: bytes) -> Any:
    text = name.decode()
    return {"nil": None, "true": True, "false": False}.get(text, A(text))


def _term(reader: Reader) -> Any:
    tag = reader.take(1)[0]
    if tag == 97:
        return reader.number(">B")
    if tag == 98:
        return reader.number(">i")
    if tag == 110:
        return _big(reader, reader.number(">B"))
    if tag == 111:
        return _big(reader, reader.number(">I"))
    if tag == 70:
        return reader.number(">d")
    if tag == 119:
        return _atom(reader.take(reader.number(">B")))
    if tag == 118:
        return _atom(reader.take(reader.number(">H")))
    if tag == 109:
        return reader.take(reader.number(">I"))
    if tag == 77:
        size, last = reader.number(">I"), reader.number(">B")
        return Bits(reader.take(size), last)
    if tag == 106:
        return []
    if tag == 108:
        items = [_term(reader) for _ in range(reader.number(">I"))]
        assert reader.take(1) == b"j", "improper list"
        return items
    if tag == 104:
        return tuple(_term(reader) for _ in range(reader.number(">B")))
    if tag == 105:
        return tuple(_term(reader) for _ in range(reader.number(">I")))
    if tag == 116:
        return _map(reader)
    msg = f"tag {tag} at {reader.at}"
    raise AssertionError(msg)


def trip(encoder: Any, value: object) -> Any:
    """Return what an encoder makes of a value, decoded."""
    return decode(b"".join(encoder(value)))


class Key:
    """A key, equal to another by type as well: the VM knows 1 from 1.0 and from true."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return hash(repr(self.value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and repr(self.value) == repr(other.value)


def _map(reader: Reader) -> Any:
    pairs = [(_term(reader), _term(reader)) for _ in range(reader.number(">I"))]
    assert len({Key(k) for k, _ in pairs}) == len(pairs), "duplicate keys in a map"
    fields = [(k, v) for k, v in pairs if isinstance(k, A)]
    if (A("__struct__"), A("Elixir.MapSet")) in fields:
        members = next(v for k, v in fields if k == A("map"))
        assert all(v == [] for v in members.values())
        return MapSet(frozenset(members))
    return dict(pairs)
