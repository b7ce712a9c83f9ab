"""Values without parts that the ETF encoder turns into bytes: numbers, text, binaries, atoms.

A piece is `bytes`, or for a large binary its parts, which must not be copied.
"""

from __future__ import annotations

import struct
from functools import partial
from math import isfinite, isnan
from typing import TYPE_CHECKING

from .._wire.frame import TooLargeError
from .terms import Atom, DistinctAtom, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGE = 64 * 1024
_MAX_COUNT = 0xFFFFFFFF

NIL = b"j"
_pack_count = struct.Struct(">BI").pack
_pack_int = partial(struct.Struct(">Bi").pack, 98)
_pack_float = partial(struct.Struct(">Bd").pack, 70)
# Integers below this take one byte.
_SMALLS = 256
_SMALL = [b"a" + bytes((i,)) for i in range(_SMALLS)]


class Large:
    """A large binary: its consecutive parts. Its length is their sum."""

    __slots__ = ("_size", "parts")

    def __init__(self, *parts: bytes | memoryview) -> None:
        self.parts = parts
        self._size = sum(p.nbytes if isinstance(p, memoryview) else len(p) for p in parts)

    def __len__(self) -> int:
        return self._size


if TYPE_CHECKING:
    Piece = bytes | Large


def header(tag: int, count: int, what: str) -> bytes:
    """Return a tag and a count of four bytes. Raises `ValueError` for a larger count of `what`."""
    if count > _MAX_COUNT:
        msg = f"{what.format(count)} is more than external term format can hold"
        raise ValueError(msg)
    return _pack_count(tag, count)


def atom(name: str) -> bytes:
    r"""Return an atom, without the leading 131.

    >>> atom("ok")
    b'w\x02ok'
    """
    data = name.encode()
    size = len(data)
    if size < 256:  # noqa: PLR2004 - one byte
        return b"w" + bytes((size,)) + data
    return b"v" + size.to_bytes(2, "big") + data


def _bool(value: object) -> bytes:
    return b"w\x04true" if value else b"w\x05false"


def _none(_value: object) -> bytes:
    return b"w\x03nil"


def _int(value: int) -> bytes:
    if 0 <= value < 256:  # noqa: PLR2004 - one byte
        return _SMALL[value]
    if -0x80000000 <= value <= 0x7FFFFFFF:  # noqa: PLR2004 - four bytes
        return _pack_int(value)
    size = (value.bit_length() + 7) // 8
    sign = value < 0
    digits = abs(value).to_bytes(size, "little")
    if size < 256:  # noqa: PLR2004 - one byte
        return bytes((110, size, sign)) + digits
    return header(111, size, "an integer of {} bytes") + bytes((sign,)) + digits


def _float(value: float) -> bytes:
    if isfinite(value):
        return _pack_float(value)
    if isnan(value):
        return b"w\x03nan"
    return b"w\x03inf" if value > 0 else b"w\x04-inf"


def _bytes(value: bytes) -> Piece:
    size = len(value)
    if size < LARGE:
        return _pack_count(109, size) + value
    return Large(header(109, size, "a binary of {} bytes"), memoryview(value))


def _bytearray(value: bytearray) -> Piece:
    return _bytes(bytes(value)) if len(value) < LARGE else _memoryview(memoryview(value))


def _memoryview(value: memoryview) -> Piece:
    if value.format != "B" or value.ndim != 1:
        from .arrays import of_view

        array = of_view(value)
        if array is not None:
            return array
    size = value.nbytes
    if size < LARGE:
        return _pack_count(109, size) + value.tobytes()
    return Large(header(109, size, "a binary of {} bytes"), flat(value))


def flat(view: memoryview) -> bytes | memoryview:
    """Return the bytes of a view, in C order: a view of the same memory, if possible."""
    if view.format == "B" and view.ndim == 1 and view.c_contiguous:
        # Not a cast, which PyPy would read byte by byte. A view of our own, because the user may release theirs.
        return memoryview(view)
    if view.c_contiguous:
        try:
            return view.cast("B")
        except (TypeError, ValueError, NotImplementedError):
            # `cast` does not know the format, or the view is empty.
            pass
    return view.tobytes()


def buffer(value: bytearray | memoryview) -> Piece:
    """Encode a buffer as a binary."""
    return _bytearray(value) if type(value) is bytearray else _memoryview(memoryview(value))


def _str(value: str) -> Piece:
    data = value.encode()
    size = len(data)
    if size < LARGE:
        return _pack_count(109, size) + data
    return Large(header(109, size, "a binary of {} bytes"), data)


def _term(value: Term) -> Piece:
    if len(value) < LARGE:
        return value[1:]
    return Large(memoryview(value)[1:])


class Raw:
    """An encoded piece in place of an object.

    `around` lets the extension encode further objects of the same type by itself: the bytes before and after
    the index of a handle. None if each object has to be converted here.
    """

    __slots__ = ("around", "piece")

    def __init__(self, piece: Piece, around: tuple[bytes, bytes] | None = None) -> None:
        self.piece = piece
        self.around = around


class NoFormError(Exception):
    """A value has no form in Elixir, although others of its type have one. The text says why."""


class Arrow:
    """A dict that becomes a `Snex.Arrow`."""

    __slots__ = ("fields",)

    def __init__(self, fields: dict[object, object]) -> None:
        self.fields = fields


class Instead:
    """Stands for an object: a container of the one that is encoded instead."""

    __slots__ = ("result",)

    def __init__(self, result: object) -> None:
        self.result = result


def _raw(value: Raw) -> Piece:
    return value.piece


# Encoders of values without parts, by exact type.
LEAVES: dict[type, Callable[..., Piece]] = {
    type(None): _none,
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    bytes: _bytes,
    bytearray: _bytearray,
    memoryview: _memoryview,
    Atom: atom,
    DistinctAtom: atom,
    Term: _term,
    Raw: _raw,
}

# Types whose length is at most that of their piece.
_SIZED = frozenset({str, bytes, bytearray, Atom, DistinctAtom})


def check_room(least: int, room: int) -> None:
    """Raise `TooLargeError` if `least` bytes are more than the `room`."""
    if least > room:
        raise TooLargeError(least - room)


# A list with at least this many elements is first tried as a whole.
BULK = 8


def bulk(items: tuple[object, ...], room: int) -> Iterator[Piece] | None:
    """Return the pieces of items that are all of one simple type, at the speed of a `map`.

    Raises:
        TooLargeError: when it is clear that they take more than `room` bytes.
    """
    kinds = set(map(type, items))
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    if kind in _SIZED:
        check_room(len(items) + sum(map(len, items)), room)  # type: ignore[arg-type]
    if kind is int:
        low, high = min(items), max(items)  # type: ignore[type-var]
        if low >= 0 and high < _SMALLS:  # type: ignore[operator]
            return map(_SMALL.__getitem__, items)  # type: ignore[arg-type]
        if low >= _SMALLS and high <= 0x7FFFFFFF:  # type: ignore[operator]  # noqa: PLR2004 - four bytes
            return map(_pack_int, items)
        check_room(len(items) + sum(map(int.bit_length, items)) // 8, room)  # type: ignore[arg-type]
    elif kind is float and all(map(isfinite, items)):  # type: ignore[arg-type]
        return map(_pack_float, items)
    leaf = LEAVES.get(kind)
    return map(leaf, items) if leaf else None
