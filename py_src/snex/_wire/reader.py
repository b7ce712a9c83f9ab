"""Reads frames from a non-blocking descriptor, on the event loop's thread only.

Short frames are cut from chunks of up to 64 KiB. A body that is longer than what has arrived goes
to sinks, which are filled in place, so that a long body is copied from the pipe once.

One callback of the event loop does a bounded amount of work, and `call_soon` schedules the rest, so that timers
and other descriptors get their turn.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any

from .._fork import in_child
from .body import COUNT, ENTRY, IN_SLOT, OFFSET_SIZE, check_table
from .frame import (
    AUTO,
    BUFFERS,
    HEADER_SIZE,
    INCOMING,
    LOOP,
    MAGIC,
    OBJECT,
    STREAM,
    THREAD,
    FrameError,
    parse_header,
    unpack_header,
)
from .sinks import PICKLE, SINKS, Sink
from .vectored import readv

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from .arena import Inbound
    from .body import Body

    # Kind, flags, id, cause, body, buffers.
    OnFrame = Callable[[int, int, int, int, Body, Sequence[Sink]], None]

CHUNK = 64 * 1024
# From this size on, the rest of a sink is worth a system call of its own.
_DIRECT = 16 * 1024
_FRAMES_PER_TURN = 32
_READS_PER_TURN = 16
# Flags with which a frame cannot simply be cut from the chunk.
_UNUSUAL = ~(THREAD | AUTO | OBJECT | STREAM | LOOP)


class FrameReader:
    """Hands each frame to `on_frame(kind, flags, id, cause, body, sinks)`, in order of arrival.

    `body` is the pickle; `sinks` are its out-of-band buffers. The receiver finishes them, so that a broken buffer
    is an error of that frame alone.

    `on_end(None)` is called once at end of file, `on_end(error)` once for garbage. Nothing follows.
    """

    def __init__(
        self,
        fd: int,
        loop: asyncio.AbstractEventLoop,
        on_frame: OnFrame,
        on_end: Callable[[BaseException | None], None],
        arena: Inbound | None = None,
    ) -> None:
        """Prepare to read from `fd`, which stays the caller's to close. Buffers may lie in `arena`."""
        self.fd = self._fd = fd
        self._arena = arena
        self._loop = loop
        self._on_frame = on_frame
        self._on_end = on_end
        # Frames that were cut from the chunk. The rest of the chunk begins at the offset.
        self._whole: deque[tuple[int, int, int, int, bytes]] = deque()
        self._chunk = b""
        self._offset = 0
        # The long body that is being filled: its header, its sinks in order, and the index of the current one.
        self._long: tuple[int, int, int, int] | None = None
        self._sinks: list[Sink] = []
        self._current = 0
        self._after_table: int | None = None
        # For each buffer that lies in shared memory: its index among the sinks, its type and its length.
        self._in_slots: list[tuple[int, int, int]] = []
        self._resuming = False
        # Whether something is left for the next turn, and whether a turn is running.
        self._more = False
        self.is_busy = False
        self._paused = False
        self._ended = False

    def start(self) -> None:
        """Begin to read."""
        self._loop.add_reader(self._fd, self._readable)

    def stop(self) -> None:
        """Stop reading. `on_end` is not called afterwards."""
        if not self._ended:
            self._ended = True
            self._loop.remove_reader(self._fd)

    def pause(self) -> None:
        """Take no more frames until `resume`. Safe to call twice."""
        if not (self._paused or self._ended):
            self._paused = True
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Continue after `pause`. Safe to call twice."""
        if self._paused and not self._ended:
            self._paused = False
            self._loop.add_reader(self._fd, self._readable)
            self._continue_soon()

    @property
    def has_more(self) -> bool:
        """Whether the last turn has left something to be continued."""
        return self._resuming

    def turn(self) -> bool:
        """Take a turn outside of the event loop. Returns whether there is more to take at once."""
        self._more = False
        if not self._ended:
            self._turn()
        return self._more and not (self._ended or self._paused)

    def _continue_soon(self) -> None:
        self._more = True
        if not self._resuming:
            self._resuming = True
            self._loop.call_soon(self._continue)

    def _continue(self) -> None:
        self._resuming = False
        self._turn()

    def _readable(self) -> None:
        # With frames left over from the last turn, reading more would only pile up data.
        if not self._resuming:
            self._turn()

    def _turn(self) -> None:
        if in_child():
            # User code has forked. The frames belong to the parent.
            self._on_end(None)
            return
        self.is_busy = True
        try:
            for _ in range(_READS_PER_TURN):
                if (self._whole or self._chunk or self._long) and not self._take_frames():
                    return
                if not self._read():
                    return
            # Frames from the last read must not wait for the next one.
            self._continue_soon()
        except (FrameError, MemoryError) as error:
            self._end(error)
        except BaseException:
            # No exception may keep the following frames from being taken.
            self._continue_soon()
            raise
        finally:
            self.is_busy = False

    def _end(self, error: BaseException | None) -> None:
        if not self._ended:
            try:
                self.stop()
            finally:
                # Even without the memory to stop: nothing else would end the interpreter.
                self._on_end(error)

    def _read(self) -> bool:
        """Read once. Returns whether there is likely more."""
        try:
            if self._long is not None:
                sink = self._sinks[self._current]
                if sink.size - sink.filled >= _DIRECT:
                    return self._read_into(sink)
            data = os.read(self._fd, CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            # The pipe cannot be read any more, for whatever reason: it counts as closed.
            data = b""
        if not data:
            self._end(None)
            return False
        rest = self._chunk[self._offset :]
        self._chunk = rest + data if rest else data
        self._offset = 0
        if len(data) == CHUNK:
            return True
        self._take_frames()
        return False

    def _read_into(self, sink: Sink) -> bool:
        with sink.view() as view:
            wanted = len(view)
            count = readv(self._fd, [view])
        if count == 0:
            self._end(None)
            return False
        sink.advance(count)
        if count == wanted:
            return True
        # The pipe is empty. A body that is complete must not wait for more.
        self._take_frames()
        return False

    def _take_frames(self) -> bool:
        """Pass on the frames in the chunk. Returns whether to go on reading in this turn."""
        frames = self._whole
        left = _FRAMES_PER_TURN
        while True:
            if self._ended or self._paused:
                return False
            if frames:
                self._on_frame(*frames.popleft(), ())
            elif self._long is None:
                if self._cut():
                    continue
                return True
            elif not self._fill():
                return True
            left -= 1
            if not left:
                self._continue_soon()
                return False

    def _cut(self) -> bool:
        """Cut the complete frames from the chunk, or begin a long one.

        Returns whether there was either.
        """
        chunk = self._chunk
        start = self._offset
        size = len(chunk)
        while (body := start + HEADER_SIZE) <= size:
            magic, kind, flags, number, length, cause = unpack_header(chunk, start)
            end = body + length
            if flags & _UNUSUAL or end > size or magic != MAGIC or kind not in INCOMING:
                break
            self._whole.append((kind, flags, number, cause, chunk[body:end]))
            start = end
        self._chunk, self._offset = (chunk, start) if start < size else (b"", 0)
        if self._whole:
            return True
        if body > size:
            # Garbage that is shorter than a header must be detected, too: nothing may follow it.
            if start < size and not MAGIC.startswith(chunk[start : start + 2]):
                msg = f"expected a frame, got {chunk[start:]!r}"
                raise FrameError(msg)
            return False
        kind, flags, number, length, cause = parse_header(chunk, start)
        self._offset = body
        self._begin_long(kind, flags, number, length, cause)
        return True

    def _begin_long(self, kind: int, flags: int, number: int, length: int, cause: int) -> None:
        self._long = (kind, flags, number, cause)
        self._current = 0
        if flags & BUFFERS:
            if length < COUNT.size:
                msg = f"a body of {length} bytes has no room for its table of buffers"
                raise FrameError(msg)
            self._after_table = length
            self._sinks = [Sink(COUNT.size)]
        else:
            self._after_table = None
            self._sinks = [Sink(length)]

    def _fill(self) -> bool:
        """Move what the chunk holds into the sinks. Returns whether a frame was completed."""
        with memoryview(self._chunk) as chunk:
            while True:
                while self._current < len(self._sinks):
                    sink = self._sinks[self._current]
                    missing = sink.size - sink.filled
                    if missing:
                        piece = chunk[self._offset : self._offset + missing]
                        if not piece:
                            self._chunk = b""
                            self._offset = 0
                            return False
                        self._offset += len(piece)
                        sink.put(piece)
                        if len(piece) < missing:
                            continue
                    self._current += 1
                if self._after_table is None:
                    break
                self._table_filled()
        sinks = self._sinks
        assert self._long is not None  # noqa: S101 - it is being filled
        header = self._long
        self._long = None
        self._sinks = []
        if sinks[0].lost:
            # The receiver gets a `MemoryError` when it finishes the sinks.
            self._on_frame(*header, b"", sinks)
            return True
        body: Any = sinks.pop(0).finish()
        assert isinstance(body, bytearray)  # noqa: S101 - the first sink is always the pickle's
        if self._in_slots:
            self._find_slots(sinks)
            if sinks[0].number == PICKLE:
                try:
                    body = sinks[0].content()
                    del sinks[0]
                except MemoryError:
                    # It cannot be mapped, and there is no room for a copy. As above.
                    body = b""
                    sinks = [Sink(sinks[0].size)]
                    sinks[0].lost = True
        self._on_frame(*header, body, sinks)
        return True

    def _table_filled(self) -> None:
        """Continue after a part of the table of buffers: first its length, then its rows."""
        length = self._after_table or 0
        first = self._sinks[0].finish()
        assert isinstance(first, bytearray)  # noqa: S101 - a plain sink's
        (count,) = COUNT.unpack_from(first)
        rows = count * ENTRY.size
        if len(self._sinks) == 1:
            if COUNT.size + rows > length:
                msg = f"a table of {count} buffers does not fit into a body of {length} bytes"
                raise FrameError(msg)
            self._sinks.append(Sink(rows))
            return
        if self._sinks[1].lost:
            msg = f"not enough memory for a table of {count} buffers"
            raise FrameError(msg)
        table = self._sinks[1].finish()
        assert isinstance(table, bytearray)  # noqa: S101 - a plain sink's
        entries = list(ENTRY.iter_unpack(table))
        pickle_size = check_table(entries, length - COUNT.size - rows)
        self._after_table = None
        self._sinks = [Sink(pickle_size)]
        for number, size in entries:
            if number & IN_SLOT:
                self._in_slots.append((len(self._sinks) - 1, number & ~IN_SLOT, size))
                self._sinks.append(Sink(OFFSET_SIZE))
            else:
                self._sinks.append(SINKS[number](size))
        self._current = 0

    def _find_slots(self, sinks: list[Sink]) -> None:
        """Replace the sinks that have received offsets by the buffers in shared memory."""
        arena = self._arena
        if arena is None:
            msg = "a buffer lies in shared memory, but this interpreter has none"
            raise FrameError(msg)
        for index, number, size in self._in_slots:
            sinks[index] = arena.sink(number, sinks[index].content(), size)
        self._in_slots = []
        arena.taken(sinks)
