"""Requests from Python to the VM: who waits for which answer.

Requests come from any thread. The table of waiters is a `dict` that is only changed by single operations: a waiter
adds and removes its own entry, and the event loop's thread removes the entry of a call that is answered. An answer
without a waiter is dropped. Each waiter decodes its own answer.
"""

from __future__ import annotations

import _thread
import asyncio
import itertools
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from .._etf.encoder import encode
from .._etf.handles import FRAME, WithHandles
from .._eval.objects import body_of
from .._eval.request import current as current_request
from .._wire import frame
from .._wire.body import numbers_of_streams
from .._wire.frame import SOURCE
from .answers import Answer, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol
    from weakref import ref

    from .._eval.request import Request
    from .._eval.waits import Waits
    from .._wire.body import Body
    from .streams import Stream

    Parts = Sequence[bytes | memoryview]
    Settle = Callable[[Answer | BaseException], None]

    class Until(Protocol):
        """The condition of a wait."""

        def __bool__(self) -> bool:
            """Return whether it is met."""

    class Writer(Protocol):
        """Where a client's frames go: a pipe's `FrameWriter`, or a stream's `FrameStream`."""

        full: bool
        broken: bool

        def write(
            self, kind: int, number: int, parts: Parts = (), flags: int = 0, cause: int = 0
        ) -> None:
            """Send a frame, from any thread. Never blocks."""

        def when_drained(self, wake: Callable[[], None]) -> bool:
            """Have `wake` called once there is room; False if there is room already."""

        def forget(self, wake: Callable[[], None]) -> None:
            """Take back `when_drained`."""


_GONE = "the connection to the VM is closed"
_OUTSIDE = "not inside a Snex interpreter: there is no VM to talk to"
_FORKED = "the connection to the VM belongs to the process from which this one was forked"
_NO_OBJECTS = (
    "an object cannot stay in a served process: only the interpreter itself can keep objects"
)
_BLOCKING = (
    "{} would block the event loop that has to receive the answer; "
    "use the awaitable function, or call this one in another thread"
)


class Client:
    """One connection's requests. Made on the event loop's thread.

    `log` sends a log event, from any thread. It waits for room first, if this thread may wait.
    """

    def __init__(
        self, writer: Writer, log: Callable[[Parts], None], *, has_objects: bool = True
    ) -> None:
        """Send through `writer`. `has_objects` says whether the VM may have handles of objects here."""
        self._writer = writer
        self.has_objects = has_objects
        # Bytes of a stream that may be taken before the VM is told. The VM may wait for that with twice as many on their way.
        self.most_bytes = 1 << 20
        # Streams from Elixir, by number. Whoever loads a stream adds it, and whoever ends it removes it.
        self.streams: dict[int, ref[Stream]] = {}
        self.log = log
        self._thread = threading.get_ident()
        self._ids = itertools.count(1)
        # By the number of the call: the callback of the waiter, and the request whose code waits.
        self._waiting: dict[int, tuple[Settle, Request]] = {}
        # How the event loop's own thread waits. None in a served process, where it cannot.
        self.waits: Waits | None = None
        self._closed = False

    async def request(self, kind: int, body: object) -> object:
        """Send a frame and return the value of its answer, or raise its error. Works on any event loop."""
        await self.drain()
        parts = encode(body)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer | BaseException] = loop.create_future()

        def settle(answer: Answer | BaseException) -> None:
            if not future.done():
                future.set_result(answer)

        def settle_elsewhere(answer: Answer | BaseException) -> None:
            # If the loop is closed by then, nobody waits.
            call_soon(loop, lambda: settle(answer))

        here = threading.get_ident() == self._thread
        number = self._send(kind, parts, settle if here else settle_elsewhere)
        try:
            answer = await future
        finally:
            self.forget(number)
        return value_of(answer)

    def request_sync(self, name: str, kind: int, body: object) -> object:
        """Like `request`, for threads without an event loop."""
        if threading.get_ident() == self._thread:
            return self._request_here(name, kind, body)
        wait_for_room(self._writer)
        parts = encode(body)
        slot = _Slot()
        request = current_request.get()
        here = request.is_here
        if here:
            request.wake = slot.wake
        number = self._send(kind, parts, slot.settle)
        try:
            answer = slot.wait(request)
        finally:
            self.forget(number)
            if here:
                request.wake = None
        return value_of(answer)

    def _request_here(self, name: str, kind: int, body: object) -> object:
        """Do the same on the event loop's own thread, which itself reads the answer."""
        waits = self.waits
        if waits is None:
            raise RuntimeError(_BLOCKING.format(name))
        answers: list[Answer | BaseException] = []
        waits.begin()
        try:
            if not waits.may_wait():
                raise RuntimeError(_BLOCKING.format(name))
            waits.make_room()
            number = self._send(kind, encode(body), answers.append)
            try:
                waits.wait(number, answers)
            finally:
                self.forget(number)
        finally:
            waits.end()
        return value_of(answers[0])

    def is_here(self) -> bool:
        """Return whether this is the event loop's own thread."""
        return threading.get_ident() == self._thread

    def wait_here(self, name: str, number: int, until: Until) -> None:
        """Wait on the event loop's own thread, as for the answer to call `number`."""
        waits = self.waits
        if waits is None or not waits.may_wait():
            raise RuntimeError(_BLOCKING.format(name))
        waits.begin()
        try:
            waits.wait(number, until)
        finally:
            waits.end()

    def wake_here(self) -> None:
        """Have a wait on the event loop's own thread look again. From any thread."""
        if self.waits is not None and not self.is_here():
            self.waits.wake()

    def signal(self, kind: int, number: int, body: bytes = b"") -> None:
        """Send a frame about a stream, from any thread; not if the VM is gone, nor in a forked process."""
        if _Current.client is self and not (self._closed or self._writer.broken):
            with current_request.get():
                self._writer.write(kind, number, (body,))

    def feed(self, number: int, answer: Answer) -> None:
        """Pass a frame to its stream. On the event loop's thread."""
        known = self.streams.get(number)
        stream = known() if known is not None else None
        if stream is not None:
            stream.take(answer)

    def close_streams(self, body: Body) -> None:
        """Close the streams in a body that was not loaded completely. For a served process, the relay has done so."""
        if self.has_objects:
            for number in numbers_of_streams(body):
                known = self.streams.get(number)
                stream = known() if known is not None else None
                if stream is not None:
                    stream.close()
                else:
                    self.signal(frame.CLOSE, number)

    def requester(self, number: int) -> Request | None:
        """Return the request whose code waits for the answer to a call, or to which a source belongs."""
        if number & SOURCE:
            known = self.streams.get(number ^ SOURCE)
            stream = known() if known is not None else None
            return None if stream is None else stream.request
        entry = self._waiting.get(number)
        return None if entry is None else entry[1]

    async def post(self, kind: int, body: object) -> None:
        """Send a frame that has no answer."""
        await self.drain()
        self.pass_on(kind, encode(body))

    def pass_on(self, kind: int, parts: Parts, settle: Settle | None = None) -> int:
        """Send a frame whose body is encoded; `settle` gets its answer, undecoded.

        Returns the number by which it can be forgotten, 0 without `settle`.
        """
        if settle is not None:
            return self._send(kind, parts, settle)
        self._check()
        self._write(kind, 0, parts, current_request.get())
        return 0

    def _check(self) -> None:
        if self._closed or self._writer.broken:
            raise RuntimeError(_GONE)

    def _send(self, kind: int, parts: Parts, settle: Settle) -> int:
        number = next(self._ids)
        request = current_request.get()
        self._waiting[number] = settle, request
        try:
            # After `close`, nobody would settle the entry that was just added.
            self._check()
            self._write(kind, number, parts, request)
        except BaseException:
            # Also one from a signal handler.
            self._waiting.pop(number, None)
            raise
        return number

    def _write(self, kind: int, number: int, parts: Parts, request: Request) -> None:
        with request:
            if self.has_objects:
                flags, parts = body_of(parts)
            elif type(parts) is WithHandles and any(obj is not FRAME for obj in parts.objects):
                raise TypeError(_NO_OBJECTS)
            else:
                flags = 0
            self._writer.write(kind, number, parts, flags, request.number)

    async def drain(self) -> None:
        """Wait while too much waits to be written."""
        await drain(self._writer)

    def answer(self, number: int, answer: Answer | BaseException) -> None:
        """Give an answer to its waiter. On the event loop's thread.

        A late answer, for which nobody waits any more, is not decoded.
        """
        entry = self._waiting.pop(number, None)
        if entry is not None:
            entry[0](answer)
        elif isinstance(answer, Answer):
            self.close_streams(answer.body)

    def forget(self, number: int) -> None:
        """Stop waiting for an answer."""
        self._waiting.pop(number, None)

    def close(self) -> None:
        """Answer all waiters with an error, and refuse new requests."""
        self._closed = True
        for number in list(self._waiting):
            self.answer(number, RuntimeError(_GONE))
        for known in list(self.streams.values()):
            stream = known()
            if stream is not None:
                stream.end(_GONE)


class _Slot:
    """The place where a thread waits for one answer."""

    def __init__(self) -> None:
        self._answer: Answer | BaseException | None = None
        # Released when there is something to look at.
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def settle(self, answer: Answer | BaseException) -> None:
        self._answer = answer
        self.wake()

    def wake(self) -> None:
        """Wake the thread, which then also raises an exception that another thread has set for it."""
        with suppress(RuntimeError):
            self._lock.release()

    def wait(self, request: Request) -> Answer | BaseException:
        while (answer := self._answer) is None:
            self._lock.acquire()
            request.checkpoint()
        return answer


async def drain(writer: Writer) -> None:
    """Wait while too much waits to be written; on any event loop."""
    while writer.full:
        loop = asyncio.get_running_loop()
        room: asyncio.Future[None] = loop.create_future()

        def settle(room: asyncio.Future[None] = room) -> None:
            if not room.done():
                room.set_result(None)

        def wake(
            loop: asyncio.AbstractEventLoop = loop, settle: Callable[[], None] = settle
        ) -> None:
            call_soon(loop, settle)

        if writer.when_drained(wake):
            try:
                await room
            finally:
                writer.forget(wake)


def wait_for_room(writer: Writer) -> None:
    """Block the thread while too much waits to be written."""
    room = threading.Event()
    while writer.when_drained(room.set):
        room.wait()
        room.clear()


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Have a loop run `callback`, from any thread; do nothing if it is closed."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise


class _Current:
    """The client of this process, set by the interpreter."""

    client: Client | None = None
    missing = _OUTSIDE


def use(client: Client | None, missing: str = _OUTSIDE) -> None:
    """Make `client` that of this process."""
    _Current.client = client
    _Current.missing = missing


def is_connected() -> bool:
    """Return whether this process has a connection."""
    return _Current.client is not None


def current() -> Client:
    """Return the client of this process.

    Raises:
        RuntimeError: outside of an interpreter, and in a process forked from one.
    """
    client = _Current.client
    if client is None:
        raise RuntimeError(_Current.missing)
    return client


def _forget_after_fork() -> None:
    if _Current.client is not None:
        use(None, _FORKED)


# The child shares the descriptors: a single frame from it would garble the parent's frames.
os.register_at_fork(after_in_child=_forget_after_fork)
