"""Frames over asyncio's streams, between an interpreter and a process that it serves."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from .._elixir.client import call_soon
from . import frame
from .pressure import Pressure

if TYPE_CHECKING:
    from .._elixir.client import Parts

LOW = 1 << 20
HIGH = 4 << 20
# Seconds.
_PATIENCE = 1.0


async def read_first(reader: asyncio.StreamReader, kind: int) -> bytes | None:
    """Return the body of the first frame, which has to be of that kind; None at the end of the stream.

    Raises:
        FrameError: for anything else.
    """
    try:
        header = await reader.readexactly(frame.FIRST_HEADER_SIZE)
        return await reader.readexactly(frame.parse_first_header(header, kind))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        _check_end(error, frame.FIRST_HEADER_SIZE)
        return None


async def read_frame(
    reader: asyncio.StreamReader, kinds: frozenset[int], most: int | None = None
) -> tuple[int, int, int, bytes] | None:
    """Return `(kind, flags, id, body)` of the next frame; `None` at the end of the stream.

    Raises:
        FrameError: for garbage, a kind that is not one of `kinds`, a body of more than `most` bytes, or an end of
            the stream inside a frame.
    """
    try:
        header = await reader.readexactly(len(frame.MAGIC))
        # Garbage that is shorter than a header must be detected, too.
        more = frame.HEADER_SIZE - len(header)
        header += await (reader.readexactly(more) if header == frame.MAGIC else reader.read(more))
        kind, flags, number, length, _cause = frame.parse_header(header, 0, kinds)
        if most is not None and length > most:
            msg = f"a frame of kind {kind:#04x} has {length} bytes, more than the limit of {most}"
            raise frame.FrameError(msg)
        return kind, flags, number, await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        _check_end(error, len(frame.MAGIC))
        return None


def _check_end(error: Exception, header: int) -> None:
    """Raise for a stream that has ended inside a frame."""
    if isinstance(error, asyncio.IncompleteReadError) and (
        error.partial or error.expected != header
    ):
        msg = f"the stream ended after {len(error.partial)} of {error.expected} bytes"
        raise frame.FrameError(msg) from None


class FrameStream(Pressure):
    """Writes frames to a stream, from any thread. `full` is set until `open`.

    Only the thread of its loop touches the stream. What other threads send is counted until that thread has it, so
    that they wait, too, when too much is on its way.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        """Write to `writer`. On the thread of its event loop."""
        super().__init__(full=True)
        self._stream = writer
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # Guards the count of bytes on their way from other threads. Re-entrant: a `__del__` may send something.
        self._lock = threading.RLock()
        self._coming = 0
        self._draining: asyncio.Task[None] | None = None
        self._open = False
        writer.transport.set_write_buffer_limits(high=HIGH, low=LOW)

    def open(self) -> None:
        """Wake those who wait for the connection to be ready."""
        self._open = True
        self._relax()

    @property
    def is_here(self) -> bool:
        """Whether this is the thread of the stream's event loop."""
        return threading.get_ident() == self._thread

    def write(
        self, kind: int, number: int, parts: Parts = (), flags: int = 0, cause: int = 0
    ) -> None:
        """Send a frame whose body is `parts`. Never blocks."""
        body = b"".join(parts)
        data = frame.encode_header(kind, number, len(body), flags, cause) + body
        if self.is_here:
            self._put(data)
            return
        self._count(len(data))
        call_soon(self._loop, lambda: self._arrived(data))
        if self._loop.is_closed():
            self._break()

    def wait_until_sent(self) -> None:
        """Block until the stream has all that this thread has written. Not for the loop's own thread."""
        sent = threading.Event()
        call_soon(self._loop, sent.set)
        # A loop that no longer runs never sets it.
        sent.wait(_PATIENCE)

    def _count(self, size: int) -> None:
        with self._lock:
            self._coming += size
            if self._coming > HIGH:
                self.full = True

    def _arrived(self, data: bytes) -> None:
        self._count(-len(data))
        self._put(data)
        if self.full and self._draining is None:
            self._relax()

    def _put(self, data: bytes) -> None:
        if self.broken or self._stream.is_closing():
            self._break()
            return
        self._stream.write(data)
        if self._draining is None and self._stream.transport.get_write_buffer_size() > HIGH:
            self.full = True
            self._draining = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await self._stream.drain()
        except ConnectionError:
            self._break()
        finally:
            self._draining = None
            self._relax()

    def _relax(self) -> None:
        with self._lock:
            self.full = not self.broken and (self._coming > HIGH or not self._open)
        self._wake_all()

    def _break(self) -> None:
        self.broken = True
        self._relax()

    async def close(self) -> None:
        """Close the stream, once all that was sent has been written."""
        self._stream.close()
        with suppress(ConnectionError):
            await self._stream.wait_closed()
        self._break()
