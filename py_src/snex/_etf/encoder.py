"""Python objects to Erlang's external term format.

There are two encoders with the same results: this one in pure Python, and the extension `_native`, which is used if it
can be loaded. The extension leaves unusual values to this one. `SNEX_ENCODER=pure` disables it.

The encoder keeps its own stack: depth is limited by memory, not by recursion. Pieces are collected
in a list and joined once; large binaries stay pieces of their own and are never copied.
"""

from __future__ import annotations

import os
from collections.abc import ItemsView, KeysView, ValuesView
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .._wire.frame import Limit, TooLargeError
from . import memory
from .handles import BYTES_OF_HANDLE, FRAME, MRO, Handle, WithHandles, keep, place
from .memory import OnMemory, SharedMemory
from .scalars import (
    BULK,
    LARGE,
    LEAVES,
    NIL,
    Arrow,
    Instead,
    NoFormError,
    Raw,
    atom,
    buffer,
    bulk,
    check_room,
    header,
)
from .terms import Atom, DistinctAtom, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .scalars import Piece

    Encoder = Callable[[Any], object]
    Converter = Callable[[Any], object]
    # What to encode, and by how much it may exceed the limit.
    _Encode = Callable[..., list[bytes | memoryview]]


# Reached only by a custom encoder that wraps its own results forever; anything else runs out of memory first.
_MAX_DEPTH = 1_000_000
# A cycle makes the path grow without end, so it is enough to look for one at this depth, and whenever the depth
# has doubled since.
_FIRST_LOOK = 8
# The bytes are counted each time that this many pieces have been added.
_MANY = 8192

# Keys of these types encode to the same term only if they are equal in Python, too: any mix of the first, or only
# one of the second.
_CLEAR_MIX = frozenset({str, int, Atom})
_CLEAR_ALONE = frozenset({bytes, DistinctAtom, Term, bool, type(None)})


class Settings:
    """What an interpreter sets for all encodings of its process."""

    custom_encoder: Encoder | None = None
    # By class.
    encoders: ClassVar[dict[type, Encoder]] = {}
    # The VM's layout of a MapSet, unless HELLO has another.
    set_head = b"t\x00\x00\x00\x02" + atom("__struct__") + atom("Elixir.MapSet") + atom("map")
    set_member = NIL
    # Its layouts of other structs, by name; see `structs.py`.
    structs: dict[str, tuple[bytes, ...]] | None = None


def set_custom_encoder(encoder: Encoder) -> None:
    """Set the function that converts objects that Snex cannot encode into objects that it can.

    There is one such function for the whole process. It may be called on any thread, wherever something is
    encoded.

    Args:
        encoder: takes the object and returns another, which is encoded in its place; it raises
            `TypeError` for an object that it cannot convert either.

    >>> import datetime
    >>> def encoder(obj):
    ...     if isinstance(obj, datetime.date):
    ...         return obj.isoformat()
    ...     raise TypeError(f"Cannot serialize object of {type(obj)}")
    >>> set_custom_encoder(encoder)
    """
    Settings.custom_encoder = encoder


# Converters of objects that are neither containers nor leaves, by their exact class. `everyday` fills the table when an
# object of an unknown class is met, because few programs need it at their start.
KNOWN: dict[type, Converter] = {}


def _converted(value: object, objects: list[object], auto: bool) -> object:  # noqa: FBT001 - internal
    """Convert an instance of a subclass to its base, a view to a list, others as encoders or `everyday` do.

    A handle is added to `objects`, and with `auto` also an object that nothing else converts.
    """
    # Not `isinstance`, which would ask the value itself for its class.
    kind = type(value)
    if kind is Handle:
        return place(value.object, objects)  # type: ignore[attr-defined]
    if kind is SharedMemory:
        return memory.form(value, objects)  # type: ignore[arg-type]
    custom, encoders = Settings.custom_encoder, Settings.encoders
    convert = KNOWN.get(kind)
    if convert is not None and custom is None and not encoders:
        return _in_form(value, convert, objects, auto)
    encoder = None
    for base in MRO(kind):
        encoder = encoder or encoders.get(base)
        convert = _CONVERTERS.get(base)
        if convert is not None:
            return convert(value) if encoder is None else Instead(encoder(value))
    if issubclass(kind, (KeysView, ValuesView, ItemsView)):
        return list(value)  # type: ignore[call-overload]
    refusal: TypeError | None = None
    if custom is not None:
        try:
            return Instead(custom(value))
        except TypeError as error:
            refusal = error
    if encoder is not None:
        return Instead(encoder(value))
    from . import everyday, foreign

    convert = everyday.converter(kind) or foreign.converter(value)
    if convert is not None:
        return _in_form(value, convert, objects, auto)
    if auto:
        # All of this depends only on the type, except with a custom encoder.
        return place(value, objects, alike=custom is None)
    if refusal is not None:
        raise refusal
    from .where import unknown

    raise TypeError(unknown(value))


def _in_form(
    value: object,
    convert: Converter,
    objects: list[object],
    auto: bool,  # noqa: FBT001 - internal
) -> object:
    try:
        result = convert(value)
    except NoFormError as error:
        if auto:
            return place(value, objects)
        from .where import unknown

        raise TypeError(unknown(value, str(error))) from None
    if type(result) is OnMemory:
        return result.form(objects)
    if type(result) is not Arrow:
        return result
    objects.append(FRAME)
    return result.fields


_T = TypeVar("_T")


def register_encoder(kind: type[_T], encoder: Callable[[_T], object]) -> None:
    """Set the function that encodes the objects of one class, and of its subclasses.

    There is one for each class in the whole process; if several fit an object, that of the most specific
    class is used. It takes precedence over Snex's own conversions, but not over the custom encoder
    (`set_custom_encoder`). It may be called on any thread, wherever something is encoded.

    Args:
        kind: a class. It cannot be a class that Snex has to encode itself, such as `str`, but it can be a subclass
            of such a class.
        encoder: takes the object and returns another, which is encoded in its place. If it raises, that is
            the error of the call.

    Raises:
        TypeError: if `kind` is not a class, or `encoder` is not a function.
        ValueError: for a class that Snex encodes itself.

    >>> class Money:
    ...     def __init__(self, amount, currency):
    ...         self.amount, self.currency = amount, currency
    >>> def encode(money):
    ...     return {"amount": money.amount, "currency": money.currency}
    >>> register_encoder(Money, encode)
    """
    if not isinstance(kind, type):
        msg = f"expected a class, got: {kind!r}"
        raise TypeError(msg)
    if not callable(encoder):
        msg = f"expected a function, got: {encoder!r}"
        raise TypeError(msg)
    if kind in LEAVES or kind in _CONVERTERS or issubclass(kind, (Atom, Term, Handle)):
        msg = f"Snex encodes {kind} itself: register an encoder for a subclass of it"
        raise ValueError(msg)
    Settings.encoders[kind] = encoder
    if _native_encode is not None and any(base in _CONVERTERS for base in MRO(kind)):
        from . import _native

        _native.ask_subclasses()


# How an instance of a subclass becomes one of the class itself: the nearest of its base classes that is listed decides.
# The methods of that class are used, even if the subclass overrides them.
_CONVERTERS: dict[type, Callable[[Any], object]] = {
    Atom: lambda value: Atom(str.__str__(value)),
    Term: lambda value: Term(bytes(memoryview(value))),
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    bytearray: memoryview,
    tuple: lambda value: tuple(tuple.__iter__(value)),
    list: lambda value: list(list.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}


def add_converter(kind: type, convert: Callable[[Any], object]) -> None:
    """Have instances of a class, and of its subclasses, encoded as what `convert` returns."""
    _CONVERTERS[kind] = convert


def _needs_key_check(kinds: set[type]) -> bool:
    return not (kinds <= _CLEAR_MIX or (len(kinds) == 1 and kinds <= _CLEAR_ALONE))


def _checked_keys(
    keys: tuple[object, ...],
    what: str,
    room: int,
    objects: list[object],
    auto: bool,  # noqa: FBT001 - internal
) -> list[Raw]:
    """Encode keys that may become the same term: `"a"` and `b"a"` are one binary.

    The VM would refuse such a map without saying why.
    """
    seen: set[bytes] = set()
    raw = []
    for key in keys:
        try:
            piece = b"".join(_encode(key, b"", room, objects, auto))
            room -= len(piece)
        except Exception as error:
            from .where import key as explain_key

            explain_key(error, key, "key" if what == "dict" else "member")
            raise
        if piece in seen:
            msg = f"two keys of a {what} become the same term in Elixir: {key!r} and another"
            raise ValueError(msg)
        seen.add(piece)
        raw.append(Raw(piece))
    return raw


def _explain(error: Exception, chain: list[object], *culprits: object) -> None:
    # A value that is too large is so as a whole.
    if not isinstance(error, TooLargeError):
        from .where import explain

        explain(error, chain, *culprits)


def _find_cycle(path: list[tuple[Iterator[object], object, bytes]], obj: object) -> None:
    seen: set[int] = set()
    for container in (*(entry[1] for entry in path), obj):
        if id(container) in seen:
            msg = f"Cannot serialize a {type(container).__name__} that contains itself"
            raise ValueError(msg)
        seen.add(id(container))
    if len(path) > _MAX_DEPTH:
        msg = f"Cannot serialize a value nested deeper than {_MAX_DEPTH} levels"
        raise ValueError(msg)


def encode_pure(
    obj: object,
    spare: int = 0,
    auto: bool = False,  # noqa: FBT001, FBT002 - called by the extension, too
) -> list[bytes | memoryview]:
    r"""Return `obj` as a complete term: the parts, one after the other.

    With `auto`, an object that has no form in Elixir becomes a handle. A term with handles is `WithHandles`.

    The part of a large binary is a view of the object's own memory: write it out before the object changes.
    The parts together have at most `Limit.reply + spare` bytes; encoding stops once there are more.

    Raises:
        TooLargeError: if there are more.
        TypeError: for an object that neither Snex nor the custom encoder knows.
        ValueError: for a value that contains itself, that is too large for the format, or has two
            keys that become the same term; `UnicodeEncodeError` for a lone surrogate. They say
            where in the value.

    >>> encode_pure([1, "a", None])
    [b'\x83l\x00\x00\x00\x03a\x01m\x00\x00\x00\x01aw\x03nilj']
    """
    objects: list[object] = []
    parts = _encode(obj, b"\x83", Limit.reply + spare, objects, auto)
    if not objects:
        return parts
    check_room(sum(map(len, parts)) + len(objects) * BYTES_OF_HANDLE, Limit.reply + spare)
    return WithHandles(parts, objects)


def encode_item_pure(obj: object, objects: list[object], auto: bool) -> list[bytes | memoryview]:  # noqa: FBT001 - internal
    r"""Return the parts of an item of a list, without the leading 131.

    Its handles are added to `objects`, and their indexes count from there.

    >>> encode_item_pure([1], [], False)
    [b'l\x00\x00\x00\x01a\x01j']
    """
    before = len(objects)
    parts = _encode(obj, b"\x83", Limit.reply, objects, auto)
    if len(objects) > before:
        size = sum(map(len, parts)) + (len(objects) - before) * BYTES_OF_HANDLE
        check_room(size, Limit.reply)
    parts[0] = parts[0][1:]
    return parts


def frozen(part: bytes | memoryview) -> bytes | memoryview:
    """Return a part that does not change with the object of which it is a view."""
    return part if type(part) is bytes or type(memoryview(part).obj) is bytes else bytes(part)


def _counted(out: list[Piece], counted: int, size: int, most: int) -> int:
    """Return the size of all pieces; `size` is that of the first `counted` ones."""
    size += sum(map(len, out[counted:]))
    check_room(size, most)
    return size


def _encode(  # noqa: PLR0915
    obj: object,
    start: bytes,
    most: int,
    objects: list[object],
    auto: bool,  # noqa: FBT001 - internal
) -> list[bytes | memoryview]:
    leaves = LEAVES
    leaf = leaves.get(type(obj))
    out: list[Piece] = [start]
    push = out.append
    # Containers that are being encoded, outermost first: the elements that are left of each, the object itself
    # (kept alive, so that its id stays unique), and what follows its last element.
    path: list[tuple[Iterator[object], object, bytes]] = []
    look = _FIRST_LOOK
    # Pieces that have been counted, and their bytes.
    counted = size = 0
    items: Iterator[object] = iter((obj,))
    end = b""
    parent: object = None
    value: object = obj
    original: object = obj
    try:
        while True:
            for value in items:
                leaf = leaves.get(type(value))
                if leaf is not None:
                    push(leaf(value))
                    continue
                kind = type(value)
                original = value
                if kind not in _CONTAINERS:
                    value = _converted(value, objects, auto)  # noqa: PLW2901 - the same value in another shape
                    kind = type(value)
                    leaf = leaves.get(kind)
                    if leaf is not None:
                        push(leaf(value))
                        continue
                if len(out) - counted > _MANY:
                    size = _counted(out, counted, size, most)
                    counted = len(out)
                after = b""
                inner: Iterator[object]
                if kind is list or kind is tuple:
                    # A snapshot: another thread may change the list, and its length is written first.
                    elements: tuple[object, ...] = tuple(value)  # type: ignore[arg-type]
                    count = len(elements)
                    if kind is list:
                        if not count:
                            push(NIL)
                            continue
                        push(header(108, count, "a list of {} items"))
                        after = NIL
                    elif count < 256:  # noqa: PLR2004 - one byte
                        push(b"h" + bytes((count,)))
                    else:
                        push(header(105, count, "a tuple of {} items"))
                    if count >= BULK:
                        pieces = bulk(elements, most - size)
                        if pieces is not None:
                            out.extend(pieces)
                            push(after)
                            continue
                    inner = iter(elements)
                elif kind is dict:
                    pairs = tuple(value.items())  # type: ignore[attr-defined]
                    push(header(116, len(pairs), "a map of {} pairs"))
                    keys = tuple(key for key, _ in pairs)
                    if _needs_key_check(set(map(type, keys))):
                        raw = _checked_keys(keys, "dict", most - size, objects, auto)
                        inner = chain.from_iterable(
                            zip(raw, (item for _, item in pairs), strict=True)
                        )
                    else:
                        inner = chain.from_iterable(pairs)
                elif kind is set or kind is frozenset:
                    members: tuple[object, ...] = tuple(value)  # type: ignore[arg-type]
                    push(Settings.set_head + header(116, len(members), "a set of {} members"))
                    if _needs_key_check(set(map(type, members))):
                        members = tuple(_checked_keys(members, "set", most - size, objects, auto))
                    inner = chain.from_iterable(zip(members, repeat(Raw(Settings.set_member))))
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
    except Exception as error:
        # The container explains an error in a key that is encoded apart.
        if start:
            _explain(error, [*(entry[1] for entry in path[1:]), parent], value, original)
        raise
    parts = _parts(out)
    check_room(sum(map(len, parts)), most)
    return parts


_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


def _parts(out: list[Piece]) -> list[bytes | memoryview]:
    """Join small pieces. Large binaries are not `bytes`, so the plain join fails if there are any."""
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
            for part in piece.parts:
                if isinstance(part, bytes) and len(part) < LARGE:
                    small.append(part)
                else:
                    parts += (b"".join(small), part)
                    small = []
    if small:
        parts.append(b"".join(small))
    return parts


def _native_encoder() -> tuple[_Encode, _Encode] | None:
    if os.environ.get("SNEX_ENCODER") == "pure":
        return None
    try:
        from . import _native
    except ImportError:
        # Another implementation of Python, a machine for which it was not built, or only the sources.
        return None
    _native.set_up(
        {
            "atom": Atom,
            "distinct_atom": DistinctAtom,
            "term": Term,
            "custom": Instead,
            "raw": Raw,
            "with_handles": WithHandles,
            "settings": Settings,
            "convert": _converted,
            "leaf": buffer,
            "pure": encode_pure,
            "item": encode_item_pure,
            "frozen": frozen,
            "keep": keep,
            "explain": _explain,
            "too_large": TooLargeError,
        }
    )
    return _native.encode, _native.encode_item


def set_reply_limit(limit: int) -> None:
    """Set the most bytes of a value that is sent to the VM."""
    Limit.reply = limit
    if _native_encode is not None:
        from . import _native

        _native.set_reply_limit(limit)


_native_encode = _native_encoder()
NAME = "pure" if _native_encode is None else "native"
encode, encode_item = _native_encode or (encode_pure, encode_item_pure)
