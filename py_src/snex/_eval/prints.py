"""Sends what Python code prints, in frames that say which request printed it.

`sys.stdout` and `sys.stderr` are ordinary text streams over a binary one that hands each write to
the `Printer`. Its queue has the pieces of all threads, in the order of the writes; a thread that
finds the queue unlocked drains it. No thread ever waits for the lock: a `__del__` or a signal
handler that prints in the middle of a print only adds to the queue, and so does another thread.

The pieces of a `print` are joined per request, until one of them ends a line. The answer of a request
that has printed goes through the same queue, and so follows everything that was printed before.

Once the interpreter is ending, and in a forked child, writes go to the descriptor, as in any Python program.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

from .._wire import frame
from .handlers import checkpoint
from .request import Request, current

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from typing_extensions import Buffer

    from .._wire.writer import FrameWriter

STDOUT = 1
STDERR = 2
_FLUSH = 0

# The most bytes that are kept of a request that prints without ending a line.
_MAX_UNSENT = 8 * 1024
# A longer write becomes several frames, and may wait in between.
_CHUNK = 64 * 1024
_TAGS = (b"", b"\x01", b"\x02")
_CONTINUATION = 0b1000_0000
_CONTINUATION_MASK = 0b1100_0000
_LONGEST_CHARACTER = 4
# With this many pieces in the queue, a thread that adds one waits for up to so many seconds for the draining thread.
_LONG_QUEUE = 64
_PATIENCE = 0.01
# Milliseconds. Only a lost wake-up makes it elapse.
_LOOK_AGAIN = 1000


class Printer:
    """Puts what is printed into frames. Any thread may call it."""

    def __init__(self, writer: FrameWriter) -> None:
        """Print through `writer`."""
        self._writer = self.writer = writer
        self._lock = threading.Lock()
        # (request, a stream or the kind of a frame, its flags and cause, parts)
        self._queue: deque[tuple[Request, int, int, int, Sequence[bytes | memoryview]]] = deque()
        # Requests with an unfinished line. Needs the lock.
        self._partial: set[Request] = set()
        # The thread that drains the queue.
        self._drainer = 0
        self.closed = False

    @property
    def raw(self) -> bool:
        """Whether prints go directly to the descriptor."""
        return self.closed or self._writer.broken

    def print(self, stream: int, data: bytes) -> None:
        """Print `data` for the running request. Waits while too much waits to be written."""
        if not data:
            return
        request = current.get()
        request.printed = True
        self._add(request, stream, (data,))
        checkpoint()

    def log(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send a log event after the output of its request. Waits as `print` does."""
        request = current.get()
        request.printed = True
        self._add(request, frame.LOG, parts)

    def _add(self, request: Request, what: int, parts: Sequence[bytes | memoryview]) -> None:
        with request:
            self._queue.append((request, what, 0, 0, parts))
            self._drain()
            if self._writer.backlog:
                self._wait_for_room(request)
        request.checkpoint()

    def flush(self) -> None:
        """Send what the running request has printed so far."""
        request = current.get()
        with request:
            self._queue.append((request, _FLUSH, 0, 0, ()))
            self._drain()
        request.checkpoint()
        checkpoint()

    def answer(
        self,
        kind: int,
        flags: int,
        request: Request,
        parts: Sequence[bytes | memoryview],
        cause: int = 0,
    ) -> None:
        """Send the answer of a request after its output."""
        if self._lock.acquire(blocking=False):
            try:
                self._work_off()
                self._do(request, kind, flags, cause, parts)
            finally:
                self._lock.release()
        else:
            # It is written later, so parts that could change are copied.
            frozen = [part if type(part) is bytes else bytes(part) for part in parts]
            self._queue.append((request, kind, flags, cause, frozen))
        self._drain()

    def _drain(self) -> None:
        # A thread that adds a piece just before the draining thread leaves gets here after that
        # thread has left.
        while self._queue:
            if not self._lock.acquire(blocking=False) and (
                # Do not outrun the draining thread. If that is this thread itself, further up on the
                # stack, waiting is useless, but does no harm.
                len(self._queue) < _LONG_QUEUE or not self._lock.acquire(timeout=_PATIENCE)
            ):
                return
            try:
                self._work_off()
            finally:
                self._lock.release()

    def _work_off(self) -> None:
        self._drainer = threading.get_ident()
        try:
            while self._queue:
                self._do(*self._queue.popleft())
        finally:
            self._drainer = 0

    def is_busy_here(self) -> bool:
        """Return whether this thread is in the middle of a print."""
        return self._drainer == threading.get_ident()

    def _do(
        self,
        request: Request,
        what: int,
        flags: int,
        cause: int,
        parts: Sequence[bytes | memoryview],
    ) -> None:
        if what not in {STDOUT, STDERR}:
            self._send(request)
            if what != _FLUSH:
                self._writer.write(what, request.number, parts, flags, cause)
            return
        if request.stream != what:
            self._send(request)
            request.stream = what
        data: bytes = parts[0]  # type: ignore[assignment]
        if request.unsent is None:
            request.unsent = []
        request.unsent.append(data)
        request.size += len(data)
        if data.endswith(b"\n") or request.size > _MAX_UNSENT:
            self._send(request)
        else:
            self._partial.add(request)

    def _send(self, request: Request) -> None:
        unsent = request.unsent
        if unsent:
            request.unsent = None
            request.size = 0
            self._partial.discard(request)
            data = b"".join((_TAGS[request.stream], *unsent))
            self._writer.write(frame.PRINT, request.number, (data,))

    def _wait_for_room(self, request: Request) -> None:
        # A signal handler may raise in here: nothing of ours is half done.
        writer = self._writer
        if not writer.pump():
            return
        while writer.full and not self.closed and not request.interrupted:
            poll = select.poll()
            poll.register(writer.fd, select.POLLOUT)
            poll.poll(_LOOK_AGAIN)
            if not writer.pump():
                return

    def close(self, grace: float) -> None:
        """Send what has been printed, for at most `grace` seconds. On the event loop's thread."""
        self.closed = True
        self._drain()
        if self._lock.acquire(blocking=False):
            try:
                for request in list(self._partial):
                    self._send(request)
            finally:
                self._lock.release()
        self._writer.finish(grace)

    def abandon(self) -> None:
        """Forget all output, in a forked child: the parent sends it."""
        self.closed = True
        self._queue.clear()
        for request in self._partial:
            request.unsent = None
        self._partial.clear()


class PrintBuffer(io.BufferedIOBase):
    """The binary stream below the text: `sys.stdout.buffer`."""

    mode = "wb"

    def __init__(self, printer: Printer, stream: int) -> None:
        """Print to `stream`, which is also the number of the descriptor."""
        self._printer = printer
        self._stream = stream
        self.name = "<stdout>" if stream == STDOUT else "<stderr>"

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that child processes inherit. What they write belongs to no request."""
        return self._stream

    def write(self, data: Buffer, /) -> int:
        """Print bytes. Returns how many."""
        if type(data) is bytes and len(data) <= _CHUNK:
            if self._printer.raw:
                _write_raw(self._stream, data)
            else:
                self._printer.print(self._stream, data)
            return len(data)
        with memoryview(data) as view, view.cast("B") as content:
            size = len(content)
            start = 0
            while start < size:
                end = _cut(content, start + _CHUNK)
                if self._printer.raw:
                    _write_raw(self._stream, content[start:end])
                else:
                    self._printer.print(self._stream, bytes(content[start:end]))
                start = end
        return size

    def flush(self) -> None:
        """Send what the running request has printed."""
        if not self._printer.raw:
            self._printer.flush()

    def close(self) -> None:
        """Only flush: another text stream on top of it must not end printing when it is closed."""
        self.flush()


class PrintStream(io.TextIOWrapper):
    """`sys.stdout` or `sys.stderr`."""

    def __init__(self, buffer: PrintBuffer) -> None:
        """Pass every write on immediately: text that is buffered here would lose its request."""
        super().__init__(
            buffer, encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True
        )

    @property
    def mode(self) -> str:
        """Return what `open` would have been called with."""
        return "w"

    def write(self, text: str, /) -> int:
        """Print text, a long one piece by piece. Returns the number of characters."""
        if len(text) <= _CHUNK:
            return super().write(text)
        for start in range(0, len(text), _CHUNK):
            super().write(text[start : start + _CHUNK])
        return len(text)


def _cut(content: memoryview, end: int) -> int:
    """Return where to cut at `end` or a little earlier, so that no UTF-8 character is cut in two."""
    if end >= len(content):
        return len(content)
    for place in range(end, end - _LONGEST_CHARACTER, -1):
        if content[place] & _CONTINUATION_MASK != _CONTINUATION:
            return place
    return end


def _write_raw(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        # Its reader is gone, perhaps with the VM. That should not keep the interpreter from ending
        # properly.
        pass


class Streams:
    """The standard streams, replaced until `restore`."""

    def __init__(self, printer: Printer) -> None:
        """Replace them.

        Replace `sys.__stdout__`, too: code assigns it to `sys.stdout` to undo a redirection.
        """
        self._before: dict[str, TextIO | None] = {}
        self._ours: dict[str, TextIO | None] = {}
        for name, stream in (("stdout", STDOUT), ("stderr", STDERR)):
            replacement = PrintStream(PrintBuffer(printer, stream))
            for place in (name, f"__{name}__"):
                self._before[place] = getattr(sys, place)
                self._ours[place] = replacement
                setattr(sys, place, replacement)

    def restore(self) -> None:
        """Restore the original streams, so that Python's last words need nothing of ours."""
        for place, stream in self._ours.items():
            if getattr(sys, place, None) is stream:
                setattr(sys, place, self._before[place])
