"""The arena from Python: bodies in memory that is shared with the VM."""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections import deque
from typing import TYPE_CHECKING

from .._fork import in_child
from .arena import ALIGN, PIECE
from .mappings import address_of, use_large_pages

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

# Bytes of a body. Larger ones travel through shared memory. As in `shared_memory.rs`.
WORTH = 256 * 1024
# From this size on, the pipe to the VM is faster: both sides copy at the same time, and the data stays in the processor's cache.
# A body that may change before the pipe has taken it would have to be copied first; for such a body, shared memory stays faster.
MOST = 8 * 1024 * 1024
# The place of a body: its offset and its length.
PLACE = struct.Struct("<QQ")

# As in `shared_memory.rs`.
_CACHE_LINE = 64
# Bytes that may wait for the VM at a time.
WAITING = 256 * 1024 * 1024
# Seconds for which unused memory is kept for the next body.
_IDLE = 2.0


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
        lead = _lead(parts)
        slot = self._reserve(lead + length)
        if slot is None:
            return None
        offset, fresh = slot
        try:
            use_large_pages(self._fd, fresh, offset + lead + length)
            at = offset + lead
            for part in parts:
                view = memoryview(part)
                while view:
                    count = os.pwrite(self._fd, view[:PIECE], at)
                    at += count
                    view = view[count:]
        except OSError:
            # There is no memory. The VM does not know of the slot.
            self._freed.append(offset)
            return None
        except BaseException:
            self._freed.append(offset)
            raise
        return PLACE.pack(offset + lead, length)

    def drop(self, counts: Sequence[tuple[int, int]]) -> None:
        """Take slots back that the VM has read: the records of a DROP frame."""
        self._freed.extend(offset - offset % ALIGN for offset, _ in counts)
        if not self._tidying:
            self._tidy_later()

    def _reserve(self, length: int) -> tuple[int, int] | None:
        """Return where a new slot begins, and from where on it has no memory yet; None without room."""
        size = -(-length // ALIGN) * ALIGN
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
            fresh = max(self._top, start)
            self._top = max(self._top, start + size)
            self._busy = True
            return start, fresh
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


def _lead(parts: Sequence[bytes | memoryview]) -> int:
    """Return where in its slot a body begins: a large part is copied faster to the place of a cache line that it comes from."""
    at = 0
    for part in parts:
        if len(part) >= PIECE:
            address = address_of(part)
            return 0 if address is None else (address - at) % _CACHE_LINE
        at += len(part)
    return 0
