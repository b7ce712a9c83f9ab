"""Writes frames to a non-blocking descriptor, from any thread.

Who owns what: the queue, its size and the descriptor are touched only with `_lock` held. The lock
is re-entrant, because the garbage collector may run somebody's `__del__`, which sends something, in
the middle of a write; such a frame is only queued, and the write it interrupted takes it along.
The event loop's writer callback is armed and disarmed on the loop's own thread.

Parts of a frame are written from where they are. What the pipe does not take at once waits in the
queue: `bytes` as they are; anything that could change meanwhile is copied first.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from ._frame import encode_header

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

# Well below IOV_MAX of every system, and enough to keep system calls rare.
_PARTS_PER_WRITE = 64
# Up to this size one buffer is cheaper than two parts.
_JOIN = 16 * 1024


class FrameWriter:
    """Frames out, in the order in which `write` was called.

    `on_pressure(full)` is called when the queue passes the high mark, and when it falls to the low
    one again; `on_broken()` once, when nobody reads any more. Both may be called from any thread.
    """

    def __init__(  # noqa: PLR0913 - made in one place, by the interpreter
        self,
        fd: int,
        loop: asyncio.AbstractEventLoop,
        low: int,
        high: int,
        on_pressure: Callable[[bool], None],
        on_broken: Callable[[], None],
    ) -> None:
        """Prepare to write to `fd`, which stays the caller's to close. On the loop's own thread."""
        self._fd = fd
        self._loop = loop
        self._thread = threading.get_ident()
        self._low = low
        self._high = high
        self._on_pressure = on_pressure
        self._on_broken = on_broken
        self._lock = threading.RLock()
        self._queue: deque[memoryview] = deque()
        self._size = 0
        self._busy = False
        self._armed = False
        self._waiters: list[Callable[[], None]] = []
        self.full = False
        self.broken = False

    def write(self, kind: int, request: int, parts: Sequence[bytes | memoryview] = ()) -> None:
        """Send a frame whose body is `parts`, one after the other. Never blocks."""
        if len(parts) == 1:
            part = parts[0]
            length = part.nbytes if isinstance(part, memoryview) else len(part)
            header = encode_header(kind, request, length)
            if length <= _JOIN:
                header += part
                parts = ()
        else:
            length = sum(p.nbytes if isinstance(p, memoryview) else len(p) for p in parts)
            header = encode_header(kind, request, length)
        with self._lock:
            if self.broken:
                return
            if self._queue or self._busy:
                self._enqueue([header, *parts], 0)
                return
            self._busy = True
            try:
                self._write_now(header, parts)
                # Frames of a `__del__` that ran in between.
                if self._queue:
                    self._flush()
            finally:
                self._busy = False

    def _write_now(self, header: bytes, parts: Sequence[bytes | memoryview]) -> None:
        all_parts = [header, *parts]
        try:
            if len(all_parts) == 1:
                count = os.write(self._fd, header)
            else:
                count = os.writev(self._fd, all_parts[:_PARTS_PER_WRITE])
        except (BlockingIOError, InterruptedError):
            count = 0
        except OSError:
            self._break()
            return
        rest: list[bytes | memoryview] = []
        for part in all_parts:
            size = part.nbytes if isinstance(part, memoryview) else len(part)
            if count >= size:
                count -= size
                continue
            rest.append(memoryview(part).cast("B")[count:] if count else part)
            count = 0
        if rest:
            # What was queued meanwhile belongs behind this frame.
            self._enqueue(rest, len(self._queue))

    def _enqueue(self, parts: list[bytes | memoryview], behind: int) -> None:
        views = []
        for part in parts:
            view = memoryview(part)
            if type(view.obj) is not bytes:
                view = memoryview(bytes(view))
            if view.nbytes:
                views.append(view)
                self._size += view.nbytes
        self._queue.extend(views)
        if behind:
            self._queue.rotate(len(views))
        self._arm()
        if self._size > self._high and not self.full:
            self.full = True
            self._on_pressure(True)  # noqa: FBT003 - a callback's only argument

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            if threading.get_ident() == self._thread:
                self._loop.add_writer(self._fd, self._writable)
            else:
                try:
                    self._loop.call_soon_threadsafe(self._arm_on_loop)
                except RuntimeError:
                    # The loop is closed: the interpreter is at its end.
                    self._break()

    def _arm_on_loop(self) -> None:
        with self._lock:
            if self._queue:
                self._loop.add_writer(self._fd, self._writable)
            else:
                self._armed = False

    def _writable(self) -> None:
        with self._lock:
            self._flush()
            if not self._queue:
                self._armed = False
                self._loop.remove_writer(self._fd)

    def _flush(self) -> None:
        """Write what the pipe takes. Needs the lock."""
        queue = self._queue
        while queue:
            parts = [queue[i] for i in range(min(len(queue), _PARTS_PER_WRITE))]
            try:
                count = os.writev(self._fd, parts)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._break()
                return
            self._size -= count
            while count:
                part = queue.popleft()
                if count < part.nbytes:
                    queue.appendleft(part[count:])
                    break
                count -= part.nbytes
            if self.full and self._size <= self._low:
                self._relax()

    def _relax(self) -> None:
        self.full = False
        self._on_pressure(False)  # noqa: FBT003 - a callback's only argument
        waiters, self._waiters = self._waiters, []
        for wake in waiters:
            wake()

    def _break(self) -> None:
        """Nobody reads any more: forget what waits, let go of those who wait. Needs the lock."""
        if not self.broken:
            self.broken = True
            self._queue.clear()
            self._size = 0
            self._relax()
            self._on_broken()

    def when_drained(self, wake: Callable[[], None]) -> bool:
        """Have `wake` called, on any thread, once there is room. Returns False if there is now."""
        with self._lock:
            if not self.full:
                return False
            self._waiters.append(wake)
            return True

    def forget(self, wake: Callable[[], None]) -> None:
        """Take back `when_drained`."""
        with self._lock:
            if wake in self._waiters:
                self._waiters.remove(wake)
