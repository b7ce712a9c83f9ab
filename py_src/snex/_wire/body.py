"""Bodies of frames that carry values: a pickle, and its out-of-band buffers.

Towards Python a body may begin with a table of buffers, whose contents follow the pickle; see
`docs/protocol.md`.
"""

from __future__ import annotations

import gc
import struct
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from .frame import FrameError
from .sinks import PICKLE, SINKS, Sink

try:
    # What `pickle` exports, without `pickle` itself, which takes as long to load as seven of our modules.
    from _pickle import Unpickler, dumps, loads
except ImportError:
    # Another implementation.
    from pickle import Unpickler, dumps, loads

__all__ = [
    "STREAMS",
    "Unpickler",
    "drops",
    "dumps",
    "join",
    "load",
    "load_items",
    "loads",
    "may_contain",
    "numbers_of_streams",
    "split",
]

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    # A view is one of shared memory.
    Body = bytes | bytearray | memoryview

# Pickles from the VM name this module for a stream from Elixir.
STREAMS = b"snex._elixir.streams"
COUNT = struct.Struct("<I")
ENTRY = struct.Struct("<BQ")
# Flag in the type of an entry: the buffer lies in shared memory, and the body has its offset instead of its contents.
IN_SLOT = 0x80
OFFSET_SIZE = 8
# A record of a DROP frame: the kind of handle, the number of its target, and how many handles are given back.
RECORD = struct.Struct("<BQI")


# Opcodes of integers.
_INTEGERS = frozenset({"BININT", "BININT1", "BININT2", "LONG1"})

# Bytes of a body. To search a longer one would take longer than what the search may save.
_LONG = 64 * 1024

# Bytes of a pickle. While a larger one is loaded, the garbage collector is off: it would run again and again, and
# visit ever more objects, none of which is garbage.
_LARGE = 64 * 1024


def may_contain(body: Body, what: bytes) -> bool:
    """Return whether `what` may occur in a body. In a long one, nobody looks for it.

    >>> may_contain(b"a pickle", b"pick"), may_contain(b"a pickle", b"choose")
    (True, False)
    """
    return len(body) > _LONG or what in body


def load(body: Body, sinks: Sequence[Sink]) -> object:
    """Return the value of a body.

    >>> load(dumps([1, 2]), ())
    [1, 2]
    """
    if len(body) < _LARGE or not gc.isenabled():
        return unpickle(body, sinks)
    gc.disable()
    try:
        return unpickle(body, sinks)
    finally:
        gc.enable()


def unpickle(body: Body, sinks: Sequence[Sink]) -> object:
    """Do the work of `load`. Only here may a signal handler raise an exception."""
    try:
        if not sinks:
            return loads(body)  # noqa: S301 - from the VM, which could run any code anyway
        return loads(body, buffers=[sink.finish() for sink in sinks])  # noqa: S301 - as above
    except (ValueError, ArithmeticError) as error:
        from .._etf.where import wrong

        better = wrong(error, body, sinks)
        try:
            if better is error:
                raise
            raise better from None
        finally:
            # Its traceback refers to this frame. Without the cycle, the body is freed with the error.
            del better


def load_items(body: Body, sinks: Sequence[Sink]) -> tuple[list[Any], Exception | None]:
    """Return the items of a body that is a list, up to the first that cannot be loaded, and the error of that one."""
    try:
        buffers = [sink.finish() for sink in sinks]
    except MemoryError as error:
        return [], error
    large = len(body) >= _LARGE and gc.isenabled()
    if large:
        gc.disable()
    try:
        return loads(body, buffers=buffers), None  # noqa: S301 - from the VM, which could run any code anyway
    except Exception as error:  # noqa: BLE001 - constructors of the user's classes
        better = error
        if isinstance(error, (ValueError, ArithmeticError)):
            from .._etf.where import wrong

            better = wrong(error, body, sinks)
        try:
            return _first_items(body, buffers, better)
        finally:
            # As above.
            del better
    finally:
        if large:
            gc.enable()


def _first_items(
    body: Body, buffers: list[Any], error: Exception
) -> tuple[list[Any], Exception | None]:
    """Load again, with an `Unpickler`: its memo has the list, with the items that were loaded before the error."""
    unpickler = Unpickler(BytesIO(body), buffers=buffers)  # noqa: S301 - as above
    try:
        return unpickler.load(), None
    except Exception:  # noqa: BLE001 - as above
        items: Any = unpickler.memo.copy()[0]
        return items, error


def numbers_of_streams(body: Body) -> list[int]:
    r"""Return the numbers of the streams from Elixir in a pickle, without loading it.

    >>> from snex._wire.body import STREAMS
    >>> module = b"\x8c" + bytes([len(STREAMS)]) + STREAMS
    >>> numbers_of_streams(b"\x80\x05(" + module + b"\x8c\x04open\x93\x94(K\x07K\x09tRh\x00(M\x00\x01K\x09tRt.")
    [7, 256]

    In a pickle that is not well-formed, those up to the fault:

    >>> numbers_of_streams(b"\x80\x05(" + module + b"\x8c\x04open\x93\x94(K\x07K\x09tR\x8c\x01\xff")
    [7]
    """
    # To take a pickle apart takes long.
    pickled = bytes(body)
    numbers: list[int] = []
    if STREAMS in pickled:
        # A fault, such as text that is not UTF-8, raises a `ValueError`.
        with suppress(ValueError):
            numbers.extend(_numbers_of_streams(pickled))
    return numbers


def _numbers_of_streams(pickled: bytes) -> Iterator[int]:
    from pickletools import genops

    texts: list[object] = []
    memoized = 0
    ours = -1
    # Whether the function is on top of the stack, or below the mark of its arguments.
    called = False
    for opcode, argument, _ in genops(pickled):
        name = opcode.name
        if called and name == "MARK":
            continue
        if called and isinstance(argument, int) and name in _INTEGERS:
            yield argument
            called = False
        elif name == "STACK_GLOBAL":
            called = texts[-2:] == [STREAMS.decode(), "open"]
        elif name == "MEMOIZE":
            if called:
                ours = memoized
            memoized += 1
        elif name in {"BINGET", "LONG_BINGET"}:
            called = argument == ours
        else:
            called = False
            if isinstance(argument, str):
                texts = [*texts[-1:], argument]


def check_table(entries: Sequence[tuple[int, int]], room: int) -> int:
    """Return the length of the pickle between a table of buffers and their contents.

    Args:
        entries: the number of its type and the length of each buffer.
        room: the number of bytes after the table.

    Raises:
        FrameError: for an unknown type, or if the contents do not fit.
    """
    for index, (number, _) in enumerate(entries):
        if number & ~IN_SLOT >= len(SINKS):
            msg = f"unknown type {number & ~IN_SLOT} in a table of {len(entries)} buffers"
            raise FrameError(msg)
        if number & ~IN_SLOT == PICKLE and (index or not number & IN_SLOT):
            msg = f"a pickle in the place of buffer {index} of {len(entries)}"
            raise FrameError(msg)
    needed = sum(OFFSET_SIZE if number & IN_SLOT else length for number, length in entries)
    if needed > room:
        msg = (
            f"a table of {len(entries)} buffers announces {needed} bytes, but only {room} follow it"
        )
        raise FrameError(msg)
    left = room - needed
    if left and entries and entries[0][0] == PICKLE | IN_SLOT:
        msg = f"a pickle of {left} bytes, and another one in shared memory"
        raise FrameError(msg)
    return left


def split(body: bytes) -> tuple[Body, list[Sink]]:
    """Take a body with a table of buffers apart, into the pickle and the filled buffers.

    Raises:
        FrameError: for a table that does not fit.
    """
    if len(body) < COUNT.size:
        msg = f"a body of {len(body)} bytes has no room for its table of buffers"
        raise FrameError(msg)
    (count,) = COUNT.unpack_from(body)
    start = COUNT.size + count * ENTRY.size
    if start > len(body):
        msg = f"a table of {count} buffers does not fit into a body of {len(body)} bytes"
        raise FrameError(msg)
    entries = list(ENTRY.iter_unpack(body[COUNT.size : start]))
    end = start + check_table(entries, len(body) - start)
    pickled = body[start:end]
    sinks = []
    with memoryview(body) as view:
        for number, length in entries:
            sink = SINKS[number](length)
            sink.put(view[end : end + length])
            end += length
            sinks.append(sink)
    return pickled, sinks


def drops(body: Body) -> dict[int, list[tuple[int, int]]]:
    """Return the records of a DROP frame by their kind: `(number, count)` each.

    Raises:
        struct.error: for a body that is cut short.

    >>> drops(RECORD.pack(0, 7, 1) + RECORD.pack(1, 2**40, 3) + RECORD.pack(0, 8, 1))
    {0: [(7, 1), (8, 1)], 1: [(1099511627776, 3)]}
    """
    counts: dict[int, list[tuple[int, int]]] = {}
    for kind, number, count in RECORD.iter_unpack(body):
        counts.setdefault(kind, []).append((number, count))
    return counts


def join(body: Body, sinks: Sequence[Sink]) -> list[bytes | memoryview]:
    """Return the parts of a body with a table of buffers: the inverse of `split`."""
    table = bytearray(COUNT.pack(len(sinks)))
    for sink in sinks:
        table += ENTRY.pack(sink.number, sink.size)
    return [bytes(table), memoryview(body), *(sink.content() for sink in sinks)]
