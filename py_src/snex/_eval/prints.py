"""What Python code prints, as frames that say which request printed it.

`sys.stdout` and `sys.stderr` are ordinary text streams over a binary one that hands each write to
the `Printer`. There the pieces of all threads stand in one line, in the order of the writes; whoever
finds the line unattended works it off. Nobody ever waits for the lock: a `__del__` or a signal
handler that prints in the middle of a print only adds to the line, and so does another thread.

The pieces of a `print` are put together per request, until one ends a line. The answer of a request
that has printed stands in the same line, and so follows everything that was printed before.

Once the interpreter has begun to end, and in a forked child, writes go to the descriptor that they
would go to in any Python program.
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

# Of a request that prints without ever ending a line.
_MAX_PENDING = 8 * 1024
# A longer write becomes several frames, with the chance to wait in between.
_CHUNK = 64 * 1024
_TAGS = (b"", b"\x01", b"\x02")
_CONTINUATION = 0b1000_0000
_CONTINUATION_MASK = 0b1100_0000
_LONGEST_CHARACTER = 4
# With that many pieces in the line, who adds one lets others work for so many seconds.
_LONG_LINE = 64
_PATIENCE = 0.01
# Milliseconds. Nothing but a wake-up call that got lost makes it pass.
_LOOK_AGAIN = 1000


class Printer:
    """Puts what is printed into frames. Any thread may call it."""

    def __init__(self, writer: FrameWriter) -> None:
        """Print through `writer`."""
        self._writer = self.writer = writer
        self._lock = threading.Lock()
        # (request, a stream or the kind of a frame, its flags and cause, parts)
        self._line: deque[tuple[Request, int, int, int, Sequence[bytes | memoryview]]] = deque()
        # Requests with a line begun. Needs the lock.
        self._partial: set[Request] = set()
        # The thread that works the line off.
        self._worker = 0
        self.closed = False

    @property
    def raw(self) -> bool:
        """Whether prints go to the descriptor itself."""
        return self.closed or self._writer.broken

    def print(self, stream: int, data: bytes) -> None:
        """Print `data` for the request that runs. Waits while too much waits to be written."""
        if not data:
            return
        request = current.get()
        request.printed = True
        self._add(request, stream, (data,))
        checkpoint()

    def log(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send a log event behind what its request has printed. Waits as `print` does."""
        request = current.get()
        request.printed = True
        self._add(request, frame.LOG, parts)

    def _add(self, request: Request, what: int, parts: Sequence[bytes | memoryview]) -> None:
        with request:
            self._line.append((request, what, 0, 0, parts))
            self._work()
            if self._writer.backlog:
                self._wait_for_room(request)
        request.checkpoint()

    def flush(self) -> None:
        """Send what the request that runs has printed so far."""
        request = current.get()
        with request:
            self._line.append((request, _FLUSH, 0, 0, ()))
            self._work()
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
        """Send the answer of a request behind what it has printed."""
        if self._lock.acquire(blocking=False):
            try:
                self._work_off()
                self._do(request, kind, flags, cause, parts)
            finally:
                self._lock.release()
        else:
            # It is written later: what could change meanwhile is copied.
            frozen = [part if type(part) is bytes else bytes(part) for part in parts]
            self._line.append((request, kind, flags, cause, frozen))
        self._work()

    def _work(self) -> None:
        # Who adds to the line while another works it off, just before that one leaves, comes here
        # after it has left.
        while self._line:
            if not self._lock.acquire(blocking=False) and (
                # Who works it off must not be outrun. If that is this thread itself, further up on
                # the stack, the patience is in vain, but does no harm.
                len(self._line) < _LONG_LINE or not self._lock.acquire(timeout=_PATIENCE)
            ):
                return
            try:
                self._work_off()
            finally:
                self._lock.release()

    def _work_off(self) -> None:
        self._worker = threading.get_ident()
        try:
            while self._line:
                self._do(*self._line.popleft())
        finally:
            self._worker = 0

    def is_busy_here(self) -> bool:
        """Return whether this thread is in the middle of a print."""
        return self._worker == threading.get_ident()

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
        if request.pending is None:
            request.pending = []
        request.pending.append(data)
        request.size += len(data)
        if data.endswith(b"\n") or request.size > _MAX_PENDING:
            self._send(request)
        else:
            self._partial.add(request)

    def _send(self, request: Request) -> None:
        pending = request.pending
        if pending:
            request.pending = None
            request.size = 0
            self._partial.discard(request)
            data = b"".join((_TAGS[request.stream], *pending))
            self._writer.write(frame.PRINT, request.number, (data,))

    def _wait_for_room(self, request: Request) -> None:
        # A signal's exception may come out of here: nothing of ours is under way.
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
        self._work()
        if self._lock.acquire(blocking=False):
            try:
                for request in list(self._partial):
                    self._send(request)
            finally:
                self._lock.release()
        self._writer.finish(grace)

    def abandon(self) -> None:
        """Forget all, in a forked child: what was printed is the parent's to send."""
        self.closed = True
        self._line.clear()
        for request in self._partial:
            request.pending = None
        self._partial.clear()


class PrintBuffer(io.BufferedIOBase):
    """What is below the text: `sys.stdout.buffer`."""

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
        """Return the descriptor that child processes inherit. What they write belongs to nobody."""
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
        """Send what the request that runs has printed."""
        if not self._printer.raw:
            self._printer.flush()

    def close(self) -> None:
        """Only flush: some text stream that was put on top must not take printing along."""
        self.flush()


class PrintStream(io.TextIOWrapper):
    """`sys.stdout` or `sys.stderr`."""

    def __init__(self, buffer: PrintBuffer) -> None:
        """Pass every write on at once: what is kept here would have lost its request."""
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
        # Whoever read it is gone, as the VM may be by now. That should not stop what else is to be
        # done at the end.
        pass


class Streams:
    """The standard streams, replaced until `restore`."""

    def __init__(self, printer: Printer) -> None:
        """Replace them.

        `sys.__stdout__` as well: people put it back to undo a redirection.
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
        """Put back what was there; Python's own last words need nothing of ours then."""
        for place, stream in self._ours.items():
            if getattr(sys, place, None) is stream:
                setattr(sys, place, self._before[place])
