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
import threading
from collections import deque
from typing import TYPE_CHECKING

from .._fork import in_child
from .frame import FrameError
from .sinks import SINKS, MemorySink, Sink, ViewSink

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

# Bytes of a body. Larger ones travel through shared memory. As in `shared_memory.rs`.
WORTH = 256 * 1024
# From this size on, the pipe to the VM is faster: both sides copy at the same time, and the data stays in the processor's cache.
# A body that may change before the pipe has taken it would have to be copied first; for such a body, shared memory stays faster.
MOST = 8 * 1024 * 1024
# The place of a body: its offset and its length. Of a buffer, the frame has only the offset, instead of the contents.
PLACE = struct.Struct("<QQ")
OFFSET = struct.Struct("<Q")

# A report about a slot: what happened to it, and its offset.
_REPORT = struct.Struct("<BQ")
_TAKEN = 0
_FREE = 1

_ALIGN = 64 * 1024
_PIECE = 1024 * 1024
# Until Python 3.13, each mapping has a descriptor of its own.
_MAPPINGS = 1 << 20 if sys.version_info >= (3, 13) else 64
# Bytes that may wait for the VM at a time.
WAITING = 256 * 1024 * 1024
# Seconds for which unused memory is kept for the next body.
_IDLE = 2.0


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
        try:
            mapping = _map(self._fd, offset, length, writable=writable)
        except OSError:
            # No descriptor or address space is left.
            return None
        self._mapped.add(offset)
        mapping.free = lambda: self.free(offset)
        return memoryview(mapping)

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
        if kind in {ViewSink, MemorySink}:
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


class Outbound:
    """The arena from Python. Slots are handed out to any thread, and freed on the event loop's."""

    def __init__(self, fd: int, size: int, loop: asyncio.AbstractEventLoop) -> None:
        """Use the file behind `fd`, which stays open until the process ends."""
        self._fd = fd
        self._size = size
        self._loop = loop
        # Never waited for: if it is taken, perhaps further up on the same stack, the body goes through the pipe.
        self._lock = threading.Lock()
        # Touched with the lock held: the lengths of slots in use, by their offsets, and the end of what may have memory.
        self._used: dict[int, int] = {}
        self._top = 0
        self._freed: deque[int] = deque()
        # Whether `_tidy` is scheduled, and whether a slot has been taken since.
        self._tidying = False
        self._busy = False

    def put(self, parts: Sequence[bytes | memoryview], length: int) -> bytes | None:
        """Copy a body into a slot. Returns its place, or `None` if there is no room."""
        offset = self._reserve(length)
        if offset is None:
            return None
        try:
            at = offset
            for part in parts:
                view = memoryview(part)
                while view:
                    count = os.pwrite(self._fd, view[:_PIECE], at)
                    at += count
                    view = view[count:]
        except OSError:
            # There is no memory. The VM does not know of the slot.
            self._freed.append(offset)
            return None
        except BaseException:
            self._freed.append(offset)
            raise
        return PLACE.pack(offset, length)

    def drop(self, counts: Sequence[tuple[int, int]]) -> None:
        """Take slots back that the VM has read: the records of a DROP frame."""
        self._freed.extend(offset for offset, _ in counts)
        if not self._tidying:
            self._tidy_later()

    def _reserve(self, length: int) -> int | None:
        size = -(-length // _ALIGN) * _ALIGN
        if not self._lock.acquire(blocking=False):
            return None
        try:
            used = self._take_back()
            if used and sum(used.values()) + size > WAITING:
                return None
            start = 0
            for offset in sorted(used):
                if offset - start >= size:
                    break
                start = offset + used[offset]
            if start + size > self._size:
                return None
            used[start] = size
            self._top = max(self._top, start + size)
            self._busy = True
            return start
        finally:
            self._lock.release()

    def _take_back(self) -> dict[int, int]:
        while self._freed:
            self._used.pop(self._freed.popleft(), None)
        return self._used

    def _tidy_later(self) -> None:
        self._tidying = True
        self._busy = False
        self._loop.call_later(_IDLE, self._tidy)

    def _tidy(self) -> None:
        """Give memory back to the system, unless it has been in use lately."""
        self._tidying = False
        if self._busy:
            self._tidy_later()
            return
        if in_child() or not self._lock.acquire(blocking=False):
            return
        try:
            if not self._take_back() and self._top:
                with mmap.mmap(self._fd, self._top, mmap.MAP_SHARED) as mapping:
                    mapping.madvise(mmap.MADV_REMOVE)
                self._top = 0
        except OSError:
            # No address space is left. The memory is given back some other time.
            return
        finally:
            self._lock.release()


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
    data = os.pread(fd, min(len(into), _PIECE), offset)
    into[: len(data)] = data
    return len(data)


def is_there(fd: int, size: int) -> bool:
    """Return whether a descriptor has been passed on to us as the VM intended."""
    try:
        return os.fstat(fd).st_size == size
    except OSError:
        return False
