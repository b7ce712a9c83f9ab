"""Several buffers in one system call: `readv` and `writev`, also for PyPy, whose `os` has neither."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# PyPy copies what it reads and writes, and by default a pipe takes hardly more than this.
_AT_ONCE = 128 * 1024


def readv_by_copy(fd: int, buffers: Sequence[memoryview]) -> int:
    """Read into the first of `buffers`. Returns the number of bytes, 0 at the end of the file."""
    data = os.read(fd, min(len(buffers[0]), _AT_ONCE))
    buffers[0][: len(data)] = data
    return len(data)


def writev_by_copy(fd: int, buffers: Sequence[bytes | memoryview]) -> int:
    """Write the first bytes of `buffers`, one after the other. Returns how many were taken."""
    pieces: list[bytes | memoryview] = []
    room = _AT_ONCE
    for buffer in buffers:
        piece = buffer[:room]
        pieces.append(piece)
        room -= len(piece)
        if not room:
            break
    return os.write(fd, b"".join(pieces))


readv: Callable[[int, Sequence[memoryview]], int] = getattr(os, "readv", readv_by_copy)
writev: Callable[[int, Sequence[bytes | memoryview]], int] = getattr(os, "writev", writev_by_copy)
