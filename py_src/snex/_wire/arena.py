"""Memory that is shared with the VM: one *arena* per direction, of which a frame names *slots*.

The VM hands out the slots towards Python. A slot is either read, or mapped for a view or an array and unmapped with
the last reference to it; then the VM is told that the slot is free.
Python hands out the slots from Python. The VM gives them back when it has read them.

A forked child must not use anything here: the slots belong to its parent.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from collections import deque
from typing import TYPE_CHECKING

from .._fork import in_child
from .frame import FrameError
from .sinks import SINKS, MemorySink, Sink, ViewSink

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

# The offset of a buffer, which a frame has instead of the contents.
OFFSET = struct.Struct("<Q")

# A report about a slot: what happened to it, and its offset.
_REPORT = struct.Struct("<BQ")
_TAKEN = 0
_FREE = 1

# Slots begin at multiples of this. Their content may begin a little later.
ALIGN = 64 * 1024
# Bytes that are copied at a time.
PIECE = 1024 * 1024
# Until Python 3.13, each mapping has a descriptor of its own.
_MAPPINGS = 1 << 20 if sys.version_info >= (3, 13) else 64


class _Mapping(mmap.mmap):
    """A mapped slot. Views of it keep it alive."""

    free: Callable[[], None] | None = None

    def __del__(self) -> None:
        if self.free is not None:
            self.free()


class Inbound:
    """The arena towards Python.

    `report(reports)` sends the body of a SLOTS frame. The thread that drops the last reference to a slot frees it;
    the event loop reports all freed slots to the VM at once.
    """

    def __init__(
        self,
        fd: int,
        size: int,
        loop: asyncio.AbstractEventLoop,
        report: Callable[[bytes], None],
    ) -> None:
        """Use the file behind `fd`, which stays open until the process ends."""
        self._fd = fd
        self._size = size
        self._loop = loop
        self._report = report
        self._freed: deque[int] = deque()
        self._mapped: set[int] = set()

    @property
    def mapped(self) -> int:
        """The number of slots that are mapped."""
        return len(self._mapped)

    def sink(self, number: int, place: bytes | memoryview, length: int) -> SlotSink:
        """Return the sink of the buffer at a place, by the number of its type.

        Raises:
            FrameError: for a place that is not in the arena.
        """
        (offset,) = OFFSET.unpack(place)
        if offset + length > self._size:
            msg = f"a buffer of {length} bytes at offset {offset} reaches beyond the shared memory of {self._size} bytes"
            raise FrameError(msg)
        return SlotSink(self, number, offset, length)

    def taken(self, sinks: Sequence[Sink]) -> None:
        """Tell the VM that these have arrived, and which slots are free by now."""
        reports = [
            _REPORT.pack(_TAKEN, sink.offset) for sink in sinks if isinstance(sink, SlotSink)
        ]
        self._report(b"".join(reports + self._free_reports()))

    def free(self, offset: int) -> None:
        """Free a slot. Called on any thread, at any point of its code."""
        self._mapped.discard(offset)
        self._freed.append(offset)
        if len(self._freed) == 1 and not in_child():
            try:
                self._loop.call_soon_threadsafe(self._flush)
            except RuntimeError:
                # The loop is closed: the interpreter is ending.
                return

    def read(self, into: memoryview, offset: int) -> int:
        """Copy bytes from the arena. Returns how many."""
        return _read_at(self._fd, into, offset)

    def map(self, offset: int, length: int, *, writable: bool = False) -> memoryview | None:
        """Return a view of a slot, which is freed with the view; `None` if it cannot be mapped.

        Writes to it stay in this process: a page that is written to becomes a copy.
        """
        if len(self._mapped) >= _MAPPINGS:
            return None
        lead = offset % ALIGN
        try:
            mapping = _map(self._fd, offset - lead, lead + length, writable=writable)
        except OSError:
            # No descriptor or address space is left.
            return None
        self._mapped.add(offset)
        mapping.free = lambda: self.free(offset)
        return memoryview(mapping)[lead:]

    def _flush(self) -> None:
        reports = self._free_reports()
        if reports:
            self._report(b"".join(reports))

    def _free_reports(self) -> list[bytes]:
        reports = []
        freed = self._freed
        while freed:
            reports.append(_REPORT.pack(_FREE, freed.popleft()))
        return reports


class SlotSink(Sink):
    """A buffer in a slot towards Python, which has already arrived.

    It owns the slot until that is freed or mapped.
    """

    __slots__ = ("_arena", "_number", "_view", "offset")

    def __init__(self, arena: Inbound, number: int, offset: int, length: int) -> None:
        """Take over a slot."""
        super().__init__(length)
        self.filled = length
        self.offset = offset
        self._arena: Inbound | None = arena
        self._number = number
        self._view: memoryview | None = None

    @property
    def number(self) -> int:
        """The number of the type that the buffer becomes."""
        return self._number

    def content(self) -> memoryview:
        """Return the bytes. Raises `MemoryError` if there is no memory for them; so does `finish`."""
        value = self._value()
        return value if isinstance(value, memoryview) else memoryview(value.content())

    def finish(self) -> object:
        """Return the object that the buffer becomes."""
        value = self._value()
        return value if isinstance(value, memoryview) else value.finish()

    def _value(self) -> memoryview | Sink:
        """Return the view of the slot, or a copy."""
        if self._view is not None:
            return self._view
        arena = self._arena
        if arena is None:
            return self._home  # type: ignore[return-value]
        kind = SINKS[self._number]
        if issubclass(kind, (ViewSink, MemorySink)):
            self._view = arena.map(self.offset, self.size, writable=kind is MemorySink)
            if self._view is not None:
                self._arena = None
                return self._view
        copy = kind(self.size)
        while copy.filled < copy.size:
            with copy.view() as view:
                count = arena.read(view, self.offset + copy.filled)
            copy.advance(count)
        self._home = copy  # type: ignore[assignment]
        self._arena = None
        arena.free(self.offset)
        return copy

    def __del__(self) -> None:
        """Free a slot that was never read: that of a request that was cancelled before it began."""
        if self._arena is not None:
            self._arena.free(self.offset)


def _map(fd: int, offset: int, length: int, *, writable: bool) -> _Mapping:
    flags, prot = mmap.MAP_SHARED, mmap.PROT_READ
    if writable:
        flags, prot = mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
    if sys.version_info >= (3, 13):
        return _Mapping(fd, length, flags, prot, offset=offset, trackfd=False)
    return _Mapping(fd, length, flags, prot, offset=offset)


def _read_at(fd: int, into: memoryview, offset: int) -> int:
    # PyPy has no `preadv`.
    if hasattr(os, "preadv"):
        return os.preadv(fd, [into], offset)
    data = os.pread(fd, min(len(into), PIECE), offset)
    into[: len(data)] = data
    return len(data)


def is_there(fd: int, size: int) -> bool:
    """Return whether a descriptor has been passed on to us as the VM intended."""
    try:
        return os.fstat(fd).st_size == size
    except OSError:
        return False
