"""Writes frames to a non-blocking descriptor, from any thread.

Who owns what: the queue, its size and the descriptor are touched only with `_lock` held. No thread
waits for the lock: in the middle of a write, its holder may run some `__del__`, which sends something
or waits for a lock of its own. If the lock is taken, by another thread or further up on the same stack,
a frame goes to the inbox, and the holder of the lock sends it, too. (The lock is re-entrant only so
that `pump` can tell the two cases apart.)
The event loop's writer callback is armed and disarmed on the loop's own thread.

Parts of a frame are written without a copy. What the pipe does not take at once waits in the queue:
`bytes` as they are, a copy of anything that could change meanwhile.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from .frame import SHAREABLE, SHARED, encode_header
from .outbound import MOST, WAITING, WORTH
from .pressure import Pressure
from .sinks import BytesSink
from .vectored import writev

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from .outbound import Outbound

# Well below IOV_MAX of every system, and enough to keep system calls rare.
_PARTS_PER_WRITE = 64
_WRITES_PER_TURN = 64
# Up to this size one buffer is cheaper than two parts.
_JOIN = 16 * 1024
# From this size on, it matters which memory a copy goes to.
_LARGE = 1024 * 1024


class FrameWriter(Pressure):
    """Sends frames, in the order in which `write` was called.

    `on_pressure(full)` is called when the queue passes the high mark, and when it falls to the low
    mark again; `on_broken()` once, when nobody reads any more. Both may be called from any thread.
    """

    def __init__(  # noqa: PLR0913 - made in one place, by the interpreter
        self,
        fd: int,
        loop: asyncio.AbstractEventLoop,
        low: int,
        high: int,
        on_pressure: Callable[[bool], None],
        on_broken: Callable[[], None],
        arena: Outbound | None = None,
    ) -> None:
        """Prepare to write to `fd`, which stays the caller's to close. On the loop's own thread. Large bodies go to `arena`."""
        super().__init__(full=False)
        self.fd = fd
        self._loop = loop
        self._thread = threading.get_ident()
        self._low = low
        self._high = high
        self._on_pressure = on_pressure
        self._on_broken = on_broken
        self._arena = arena
        self._lock = threading.RLock()
        self._busy = False
        self._inbox: deque[list[bytes | memoryview]] = deque()
        self._queue: deque[memoryview] = deque()
        self._size = 0
        self._armed = False
        # Called, on other threads, when there is something to write again: the event loop may be blocked.
        self.on_backlog: Callable[[], None] = _nothing

    @property
    def backlog(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._queue or self._inbox)

    def write(
        self,
        kind: int,
        number: int,
        parts: Sequence[bytes | memoryview] = (),
        flags: int = 0,
        cause: int = 0,
    ) -> None:
        """Send a frame whose body is `parts`, one after the other: bytes or flat views of bytes.

        Never blocks.
        """
        if len(parts) == 1:
            part = parts[0]
            length = part.nbytes if isinstance(part, memoryview) else len(part)
            if length <= _JOIN:
                self._send_small(encode_header(kind, number, length, flags, cause) + part)
                return
        else:
            length = sum(p.nbytes if isinstance(p, memoryview) else len(p) for p in parts)
        if (
            self._arena is not None
            and kind in SHAREABLE
            and WORTH <= length <= WAITING
            and (length < MOST or _is_mostly_unfrozen(parts, length))
        ):
            place = self._arena.put(parts, length)
            if place is not None:
                header = encode_header(kind, number, len(place), flags | SHARED, cause)
                self._send(header + place, ())
                return
        self._send(encode_header(kind, number, length, flags, cause), parts)

    def write_frames(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send whole frames, headers and bodies, at once."""
        self._send(b"".join(parts), ())

    def _send_small(self, whole: bytes) -> None:
        """Send a frame as `_send` does, by a shorter path if nothing else waits: that of most answers."""
        if not self._lock.acquire(blocking=False):
            self._send(whole, ())
            return
        if self._busy or self._queue or self._inbox or self.broken:
            self._lock.release()
            self._send(whole, ())
            return
        self._busy = True
        try:
            try:
                written = os.write(self.fd, whole)
            except (BlockingIOError, InterruptedError):
                written = 0
            except OSError:
                self._break()
                return
            if written != len(whole):
                self._enqueue([memoryview(whole)[written:]])
        finally:
            self._busy = False
            self._lock.release()
        if self._inbox:
            self.pump()

    def _send(self, first: bytes, parts: Sequence[bytes | memoryview]) -> None:
        if self._take():
            try:
                if self._queue or self._inbox:
                    self._take_inbox()
                    self._enqueue([first, *parts])
                elif not self.broken:
                    self._write_now(first, parts)
            finally:
                self._leave()
        else:
            # A single operation, so that nothing gets between the parts.
            self._inbox.append([first, *map(_frozen, parts)])
        if self._inbox:
            self.pump()

    def pump(self) -> bool:
        """Write what the pipe takes now, unless another thread is doing so.

        Returns False, and does nothing, if this thread itself is in the middle of a write.
        """
        while True:
            if not self._lock.acquire(blocking=False):
                return True
            if self._busy:
                self._lock.release()
                return False
            self._busy = True
            try:
                self._flush()
            finally:
                # Not in a function: at the recursion limit, it could not be called.
                self._busy = False
                self._lock.release()
            # A frame that came at the last moment found the lock taken.
            if not self._inbox:
                return True

    def is_busy_here(self) -> bool:
        """Return whether this thread is in the middle of a write."""
        if not self._lock.acquire(blocking=False):
            return False
        busy = self._busy
        self._lock.release()
        return busy

    def finish(self, grace: float) -> None:
        """Write what waits, for at most `grace` seconds. Blocks; only at the end."""
        deadline = time.monotonic() + grace
        while self.backlog and self.pump():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            poll.poll(left * 1000)

    def _take(self) -> bool:
        if not self._lock.acquire(blocking=False):
            return False
        if self._busy:
            self._lock.release()
            return False
        self._busy = True
        return True

    def _leave(self) -> None:
        self._busy = False
        self._lock.release()

    def _write_now(self, header: bytes, parts: Sequence[bytes | memoryview]) -> None:
        all_parts = [header, *parts]
        try:
            if len(all_parts) == 1:
                count = os.write(self.fd, header)
            else:
                count = writev(self.fd, all_parts[:_PARTS_PER_WRITE])
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
            rest.append(memoryview(part)[count:] if count else part)
            count = 0
        if rest:
            self._enqueue(rest)

    def _take_inbox(self) -> None:
        while self._inbox:
            self._enqueue(self._inbox.popleft())

    def _enqueue(self, parts: list[bytes | memoryview]) -> None:
        if self.broken:
            return
        was_empty = not self._queue
        for part in parts:
            view = memoryview(_frozen(part))
            if view.nbytes:
                self._queue.append(view)
                self._size += view.nbytes
        self._arm()
        # Even if the event loop is armed: a wait on its thread writes everything without the loop.
        if was_empty and threading.get_ident() != self._thread:
            self.on_backlog()
        if self._size > self._high and not self.full:
            self.full = True
            self._on_pressure(True)  # noqa: FBT003 - a callback's only argument

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            if threading.get_ident() == self._thread:
                self._loop.add_writer(self.fd, self._writable)
            else:
                try:
                    self._loop.call_soon_threadsafe(self._arm_on_loop)
                except RuntimeError:
                    # The loop is closed: the interpreter is ending.
                    self._break()

    def _arm_on_loop(self) -> None:
        # If nothing is left to write by then, it disarms itself.
        self._loop.add_writer(self.fd, self._writable)

    def _writable(self) -> None:
        if self._take():
            try:
                self._flush()
                if not self._queue:
                    self._armed = False
                    self._loop.remove_writer(self.fd)
            finally:
                self._leave()
            if self._inbox:
                self.pump()

    def _flush(self) -> None:
        """Write what the pipe takes, up to a bound, so that the loop goes on. Needs the lock."""
        queue = self._queue
        for _ in range(_WRITES_PER_TURN):
            # Each time, so that it counts towards the high mark however long this takes.
            self._take_inbox()
            if not queue:
                return
            parts = [queue[i] for i in range(min(len(queue), _PARTS_PER_WRITE))]
            try:
                count = writev(self.fd, parts)
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
        self._wake_all()

    def _break(self) -> None:
        """Drop what waits, and wake all who wait: nobody reads any more. Needs the lock."""
        if not self.broken:
            self.broken = True
            self._queue.clear()
            self._size = 0
            self._relax()
            self._on_broken()


def _nothing() -> None:
    pass


def _is_frozen(part: bytes | memoryview) -> bool:
    return type(part.obj if isinstance(part, memoryview) else part) is bytes


def _is_mostly_unfrozen(parts: Sequence[bytes | memoryview], length: int) -> bool:
    """Return whether most of a body would have to be copied to wait in the queue."""
    unfrozen = sum(
        part.nbytes for part in parts if isinstance(part, memoryview) and not _is_frozen(part)
    )
    return 2 * unfrozen > length


def _frozen(part: bytes | memoryview) -> bytes | memoryview:
    """Return what cannot change before it is written: a copy, unless `bytes` underlie it."""
    if _is_frozen(part):
        return part
    view = memoryview(part)
    if view.nbytes < _LARGE:
        return bytes(part)
    # With the extension, in large pages: asking the system for small ones takes most of the time.
    sink = BytesSink(view.nbytes)
    sink.put(view)
    return sink.content()
