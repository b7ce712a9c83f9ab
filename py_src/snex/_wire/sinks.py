"""Final homes for long bodies: objects that are filled in place while their bytes arrive.

A length on the wire is a claim, not a fact. A sink allocates nothing before its first byte arrives, and never more
than `AHEAD` bytes beyond those that have arrived. The extension reserves more, but touches no more than that.

If there is not even that much memory, the sink drops the bytes that arrive, so that the next frame is found, and
`finish` raises a `MemoryError`: an error of that one frame.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class _Home(Protocol):
        def view(self, start: int) -> memoryview:
            """Return writable memory from byte `start` on; it has to be released before the next call."""

        def finish(self) -> bytes | bytearray:
            """Return the object, once it is full. The last call to be made."""


AHEAD = 64 * 1024 * 1024
# Bytes that the extension reserves at once. Reserved memory that is not touched costs only addresses.
RESERVE = 1024 * 1024 * 1024


class _GrowingBytearray:
    def __init__(self, size: int) -> None:
        self._size = size
        self._data = bytearray(min(size, AHEAD))

    def view(self, start: int) -> memoryview:
        if start == len(self._data):
            self._data += bytes(min(self._size - start, AHEAD))
        return memoryview(self._data)[start:]

    def finish(self) -> bytearray:
        return self._data


class _GrowingBytes:
    """Makes `bytes` without a second copy.

    A `BytesIO` writes into a `bytes` object of its own, and returns that very object if nothing was written
    beyond its end.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._io = io.BytesIO()

    def view(self, start: int) -> memoryview:
        if start == self._io.tell() and start < self._size:
            self._io.seek(start + min(self._size - start, AHEAD) - 1)
            self._io.write(b"\0")
        return self._io.getbuffer()[start:]

    def finish(self) -> bytes:
        return self._io.getvalue()


def _extension() -> Callable[[int, bool], _Home] | None:
    try:
        from .._etf._native import Room
    except ImportError:
        # Another implementation of Python, a machine for which it was not built, or only the sources.
        return None
    return Room


_room = _extension()


def _new_home(size: int, *, mutable: bool) -> _Home:
    if _room is not None and size <= RESERVE:
        return _room(size, mutable)
    return _GrowingBytearray(size) if mutable else _GrowingBytes(size)


# Takes the bytes for which there is no memory.
_NOWHERE = bytearray(64 * 1024)


class Sink:
    """A `bytearray` of `size` bytes that is still being filled."""

    __slots__ = ("_home", "_object", "filled", "lost", "size")
    _mutable = True

    @property
    def number(self) -> int:
        """The number of its type in the table of buffers."""
        return SINKS.index(type(self))

    def __init__(self, size: int) -> None:
        """Prepare for `size` bytes without trusting the number."""
        self.size = size
        self.filled = 0
        # Set if there was no memory for it.
        self.lost = False
        self._home: _Home | None = None
        self._object: bytes | bytearray | None = None

    def view(self) -> memoryview:
        """Return writable memory for what comes next. Release it before `advance`."""
        if not self.lost:
            try:
                if self._home is None:
                    self._home = _new_home(self.size, mutable=self._mutable)
                return self._home.view(self.filled)
            except MemoryError:
                self.lost = True
                self._home = None
        return memoryview(_NOWHERE)[: self.size - self.filled]

    def advance(self, count: int) -> None:
        """Note that `count` bytes have been written to the last `view`."""
        self.filled += count

    def put(self, chunk: memoryview) -> None:
        """Copy `chunk`, which is no longer than what is missing."""
        while chunk:
            with self.view() as view:
                count = min(len(view), len(chunk))
                view[:count] = chunk[:count]
            self.advance(count)
            chunk = chunk[count:]

    def content(self) -> memoryview:
        """Return the bytes of a filled sink, whatever they are to become.

        Raises:
            MemoryError: when there was no room for them; so does `finish`.
        """
        return memoryview(self._filled())

    def finish(self) -> object:
        """Return the filled object."""
        return self._filled()

    def _filled(self) -> bytes | bytearray:
        if self.lost:
            msg = f"not enough memory for {self.size} bytes"
            raise MemoryError(msg)
        if self._object is None:
            home = self._home or _new_home(self.size, mutable=self._mutable)
            self._object = home.finish()
            self._home = None
        return self._object


class ViewSink(Sink):
    """Becomes a read-only `memoryview`."""

    __slots__ = ()

    def finish(self) -> memoryview:
        """Return a read-only view of what has arrived."""
        return self.content().toreadonly()


class MemorySink(Sink):
    """Becomes memory that may be written to, a `bytearray` here."""

    __slots__ = ()


class BytesSink(Sink):
    """Becomes `bytes`."""

    __slots__ = ()
    _mutable = False


class StrSink(BytesSink):
    """Becomes a `str`."""

    __slots__ = ()

    def finish(self) -> str:
        """Return the text. Raises `UnicodeDecodeError` for anything but UTF-8."""
        return self._filled().decode()


class PickleSink(ViewSink):
    """Becomes a view of the pickle of its frame."""

    __slots__ = ()


# The types of the table in front of a body with BUFFERS, in order of their numbers.
SINKS = (BytesSink, StrSink, Sink, ViewSink, MemorySink, PickleSink)
# The number of the last one. It can only be the first of a table, and only in shared memory.
PICKLE = SINKS.index(PickleSink)
