"""Python objects to Erlang's external term format, in pure Python.

The encoder keeps its own stack: depth is limited by memory, not by recursion. Pieces are collected
in a list and joined once; large binaries stay pieces of their own and are never copied.
"""

from __future__ import annotations

import struct
from functools import partial
from itertools import chain, repeat
from math import isfinite, isnan
from typing import TYPE_CHECKING

from ._terms import Atom, DistinctAtom, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Encoder = Callable[[object], object]
    Piece = bytes | list[bytes | memoryview]

LARGE = 64 * 1024
_MAX_COUNT = 0xFFFFFFFF
# Only a custom encoder that wraps its own results for ever gets here; memory would end first.
_MAX_DEPTH = 1_000_000
# A cycle makes the path grow without end, so it is enough to look for one now and then: at this
# depth, and whenever the depth has doubled since.
_FIRST_LOOK = 8

_NIL = b"j"
_pack_count = struct.Struct(">BI").pack
_pack_int = partial(struct.Struct(">Bi").pack, 98)
_pack_float = partial(struct.Struct(">Bd").pack, 70)
_SMALL = [b"a" + bytes((i,)) for i in range(256)]


def _too_large(what: str, count: int) -> ValueError:
    return ValueError(f"{what} of {count} is more than external term format can hold")


def _header(tag: int, count: int, what: str) -> bytes:
    if count > _MAX_COUNT:
        raise _too_large(what, count)
    return _pack_count(tag, count)


def atom(name: str) -> bytes:
    """Return an atom, without the leading 131.

    >>> atom("ok")
    b'w\\x02ok'
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
    return _header(111, size, "integer with a number of bytes") + bytes((sign,)) + digits


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
    return [_header(109, size, "binary with a number of bytes"), memoryview(value)]


def _bytearray(value: bytearray) -> Piece:
    return _bytes(bytes(value)) if len(value) < LARGE else _memoryview(memoryview(value))


def _memoryview(value: memoryview) -> Piece:
    size = value.nbytes
    if size < LARGE:
        return _pack_count(109, size) + value.tobytes()
    header = _header(109, size, "binary with a number of bytes")
    if value.c_contiguous:
        try:
            return [header, value.cast("B")]
        except (TypeError, ValueError, NotImplementedError):
            # A format that `cast` does not know.
            pass
    return [header, value.tobytes()]


def _str(value: str) -> Piece:
    data = value.encode()
    size = len(data)
    if size < LARGE:
        return _pack_count(109, size) + data
    return [_header(109, size, "binary with a number of bytes"), data]


def _term(value: Term) -> Piece:
    if len(value) < LARGE:
        return value[1:]
    return [memoryview(value)[1:]]


class _Raw:
    """A piece that is encoded already, in the place of an object."""

    __slots__ = ("piece",)

    def __init__(self, piece: Piece) -> None:
        self.piece = piece


def _raw(value: _Raw) -> Piece:
    return value.piece


# What takes no stack, by exact type.
_LEAVES: dict[type, Callable[..., Piece]] = {
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
    _Raw: _raw,
}

# Keys of these types never encode to the same term unless they are equal in Python too: any mix of
# the first ones, or one alone of the second.
_CLEAR_MIX = frozenset({str, int, Atom})
_CLEAR_ALONE = frozenset({bytes, DistinctAtom, Term, bool, type(None)})

# A list with this many elements is looked at as a whole first.
_BULK = 8


def _bulk(items: tuple[object, ...]) -> Iterator[Piece] | None:
    """Return the pieces of items that are all of one simple type, at the speed of a `map`."""
    kinds = set(map(type, items))
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    if kind is int:
        low, high = min(items), max(items)  # type: ignore[type-var]
        if 0 <= low and high < 256:  # type: ignore[operator]  # noqa: PLR2004 - one byte
            return map(_SMALL.__getitem__, items)  # type: ignore[arg-type]
        if -0x80000000 <= low and high <= 0x7FFFFFFF:  # type: ignore[operator]  # noqa: PLR2004
            return map(_pack_int, items)
    elif kind is float and all(map(isfinite, items)):  # type: ignore[arg-type]
        return map(_pack_float, items)
    leaf = _LEAVES.get(kind)
    return map(leaf, items) if leaf else None


class Settings:
    """What an interpreter sets for all encodings of its process."""

    custom_encoder: Encoder | None = None
    # How the VM lays out a MapSet; HELLO replaces it with what the VM really does.
    set_head = b"t\x00\x00\x00\x02" + atom("__struct__") + atom("Elixir.MapSet") + atom("map")
    set_member = _NIL


def set_custom_encoder(encoder: Encoder) -> None:
    """Set the function that turns objects that Snex does not know into ones that it does.

    There is one for the whole process. It may be called on any thread, wherever something is
    encoded.

    Args:
        encoder: takes the object and returns another, which is encoded in its place; it raises
            `TypeError` for what it does not know either.

    >>> import datetime
    >>> def encoder(obj):
    ...     if isinstance(obj, datetime.date):
    ...         return obj.isoformat()
    ...     raise TypeError(f"Cannot serialize object of {type(obj)}")
    >>> set_custom_encoder(encoder)
    """
    Settings.custom_encoder = encoder


class _Custom:
    """What the custom encoder returned, as a container of one."""

    __slots__ = ("result",)

    def __init__(self, result: object) -> None:
        self.result = result


def _converted(value: object) -> object:
    """Return a subclass's instance as its base, a view as a list, others as the encoder says."""
    from collections.abc import ItemsView, KeysView, ValuesView  # noqa: PLC0415 - rarely needed

    for base, convert in _BASES:
        if isinstance(value, base):
            return convert(value)
    if isinstance(value, (KeysView, ValuesView, ItemsView)):
        return list(value)
    if Settings.custom_encoder is None:
        msg = f"Cannot serialize object of {type(value)}"
        raise TypeError(msg)
    return _Custom(Settings.custom_encoder(value))


# `Atom` before `str`, and so on: the first that fits wins. The base's own methods are used, whatever
# the subclass has made of them.
_BASES: tuple[tuple[type, Callable[..., object]], ...] = (
    (Atom, lambda value: Atom(str.__str__(value))),
    (DistinctAtom, lambda value: DistinctAtom(str.__str__(value))),
    (Term, lambda value: Term(bytes(memoryview(value)))),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, lambda value: bytes(memoryview(value))),
    (bytearray, memoryview),
    (tuple, lambda value: tuple(tuple.__iter__(value))),
    (list, lambda value: list(list.__iter__(value))),
    (dict, lambda value: dict(dict.items(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
)


def _needs_key_check(kinds: set[type]) -> bool:
    return not (kinds <= _CLEAR_MIX or (len(kinds) == 1 and kinds <= _CLEAR_ALONE))


def _checked_keys(keys: tuple[object, ...], what: str) -> list[_Raw]:
    """Encode keys that may become the same term: `"a"` and `b"a"` are one binary.

    The VM would refuse such a map without saying why.
    """
    seen: set[bytes] = set()
    raw = []
    for key in keys:
        piece = b"".join(_encode(key, b""))
        if piece in seen:
            msg = f"two keys of a {what} become the same term: {key!r} and another"
            raise ValueError(msg)
        seen.add(piece)
        raw.append(_Raw(piece))
    return raw


def _find_cycle(path: list[tuple[Iterator[object], object, bytes]], obj: object) -> None:
    if len({id(entry[1]) for entry in path} | {id(obj)}) <= len(path):
        msg = f"Cannot serialize a {type(obj).__name__} that contains itself"
        raise ValueError(msg)
    if len(path) > _MAX_DEPTH:
        msg = f"Cannot serialize a value nested deeper than {_MAX_DEPTH} levels"
        raise ValueError(msg)


def encode(obj: object) -> list[bytes | memoryview]:
    """Return `obj` as a complete term: the parts, one after the other.

    A part is a view of the object's own memory where a binary is large: write it out before the
    object changes.

    Raises:
        TypeError: for an object that neither Snex nor the custom encoder knows.
        ValueError: for a value that contains itself, that is too large for the format, or has two
            keys that become the same term; `UnicodeEncodeError` for a lone surrogate.

    >>> encode([1, "a", None])
    [b'\\x83l\\x00\\x00\\x00\\x03a\\x01m\\x00\\x00\\x00\\x01aw\\x03nilj']
    """
    return _encode(obj, b"\x83")


def _encode(obj: object, start: bytes) -> list[bytes | memoryview]:  # noqa: C901, PLR0912, PLR0915
    leaves = _LEAVES
    leaf = leaves.get(type(obj))
    out: list[Piece] = [start]
    push = out.append
    # Containers that are being encoded, outermost first: what is left of each, the object itself
    # (kept alive, so that its id stays its own), and what follows its last element.
    path: list[tuple[Iterator[object], object, bytes]] = []
    look = _FIRST_LOOK
    items: Iterator[object] = iter((obj,))
    end = b""
    parent: object = None
    while True:
        for value in items:
            leaf = leaves.get(type(value))
            if leaf is not None:
                push(leaf(value))
                continue
            kind = type(value)
            original = value
            if kind not in _CONTAINERS:
                value = _converted(value)  # noqa: PLW2901 - the same value in another shape
                kind = type(value)
                leaf = leaves.get(kind)
                if leaf is not None:
                    push(leaf(value))
                    continue
            after = b""
            inner: Iterator[object]
            if kind is list or kind is tuple:
                # A snapshot: another thread may change the list, and its length is written first.
                elements = tuple(value)  # type: ignore[arg-type]
                count = len(elements)
                if kind is list:
                    if not count:
                        push(_NIL)
                        continue
                    push(_header(108, count, "list with a length"))
                    after = _NIL
                elif count < 256:  # noqa: PLR2004 - one byte
                    push(b"h" + bytes((count,)))
                else:
                    push(_header(105, count, "tuple with a size"))
                if count >= _BULK:
                    pieces = _bulk(elements)
                    if pieces is not None:
                        out.extend(pieces)
                        push(after)
                        continue
                inner = iter(elements)
            elif kind is dict:
                pairs = tuple(value.items())  # type: ignore[attr-defined]
                push(_header(116, len(pairs), "map with a size"))
                keys = tuple(key for key, _ in pairs)
                if _needs_key_check(set(map(type, keys))):
                    raw = _checked_keys(keys, "dict")
                    inner = chain.from_iterable(
                        zip(raw, (item for _, item in pairs), strict=True)
                    )
                else:
                    inner = chain.from_iterable(pairs)
            elif kind is set or kind is frozenset:
                members = tuple(value)  # type: ignore[arg-type]
                push(Settings.set_head + _header(116, len(members), "set with a size"))
                if _needs_key_check(set(map(type, members))):
                    members = tuple(_checked_keys(members, "set"))
                inner = chain.from_iterable(zip(members, repeat(_Raw(Settings.set_member))))  # noqa: B905
            else:
                inner = iter((value.result,))  # type: ignore[attr-defined]
            path.append((items, parent, end))
            items, parent, end = inner, original, after
            if len(path) >= look:
                look *= 2
                _find_cycle(path, parent)
            break
        else:
            if not path:
                break
            if end:
                push(end)
            items, parent, end = path.pop()
            if look > _FIRST_LOOK and len(path) * 4 < look:
                look //= 2
    return _parts(out)


_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


def _parts(out: list[Piece]) -> list[bytes | memoryview]:
    """Join what is small. Large binaries show as lists, which is what makes the plain join fail."""
    try:
        return [b"".join(out)]  # type: ignore[arg-type]
    except TypeError:
        pass
    parts: list[bytes | memoryview] = []
    small: list[bytes] = []
    for piece in out:
        if isinstance(piece, bytes):
            small.append(piece)
        else:
            for part in piece:
                if isinstance(part, bytes) and len(part) < LARGE:
                    small.append(part)
                else:
                    parts += (b"".join(small), part)
                    small = []
    if small:
        parts.append(b"".join(small))
    return parts
