"""Final homes for long bodies: objects that are filled in place while their bytes arrive.

A length on the wire is a claim, not a fact: a sink never allocates more than `AHEAD` bytes beyond
what has really arrived, and grows as data comes.
"""

from __future__ import annotations

import io

AHEAD = 64 * 1024 * 1024


class Sink:
    """A `bytearray` of `size` bytes that is still being filled."""

    __slots__ = ("_data", "filled", "size")

    def __init__(self, size: int) -> None:
        """Prepare for `size` bytes without trusting the number."""
        self.size = size
        self.filled = 0
        self._data = bytearray(min(size, AHEAD))

    def view(self) -> memoryview:
        """Return writable memory for what comes next. Release it before `advance`."""
        if self.filled == len(self._data):
            self._data += bytes(min(self.size - self.filled, AHEAD))
        return memoryview(self._data)[self.filled :]

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
        """Return the bytes that have arrived, whatever they are to become."""
        return memoryview(self._data)[: self.filled]

    def finish(self) -> object:
        """Return the filled object."""
        return self._data


class ViewSink(Sink):
    """Becomes a read-only `memoryview`."""

    __slots__ = ()

    def finish(self) -> memoryview:
        """Return a read-only view of what has arrived."""
        return memoryview(self._data).toreadonly()


class StrSink(Sink):
    """Becomes a `str`."""

    __slots__ = ()

    def finish(self) -> str:
        """Return the text. Raises `UnicodeDecodeError` for anything but UTF-8."""
        return self._data.decode()


class BytesSink(Sink):
    """Becomes `bytes` without a second copy.

    A `BytesIO` writes into a `bytes` object of its own and hands out that very object, if nothing
    else has been put behind the end.
    """

    __slots__ = ("_io",)

    def __init__(self, size: int) -> None:
        """Prepare for `size` bytes without trusting the number."""
        self.size = size
        self.filled = 0
        self._io = io.BytesIO()
        self._extend()

    def _extend(self) -> None:
        ahead = min(self.size - self.filled, AHEAD)
        if ahead:
            self._io.seek(self.filled + ahead - 1)
            self._io.write(b"\0")

    def view(self) -> memoryview:
        """Return writable memory for what comes next. Release it before `advance`."""
        if self.filled == self._io.tell():
            self._extend()
        return self._io.getbuffer()[self.filled :]

    def content(self) -> memoryview:
        """Return the bytes that have arrived."""
        return self._io.getbuffer()[: self.filled]

    def finish(self) -> bytes:
        """Return the filled object."""
        return self._io.getvalue()


# The types of the table in front of a body with BUFFERS, in order of their numbers.
SINKS = (BytesSink, StrSink, Sink, ViewSink)
