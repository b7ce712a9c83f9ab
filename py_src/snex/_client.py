"""Requests from Python to the VM: who waits for which answer.

Requests come from any thread. The table of those who wait is a `dict` that is changed by single
operations only: whoever waits puts itself in and takes itself out, the event loop's thread takes
out what has been answered. An answer to nobody is dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from concurrent.futures import Future as SyncFuture
from typing import TYPE_CHECKING

from ._etf import encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._writer import FrameWriter

_GONE = "the connection to the VM is closed"
_OUTSIDE = "not inside a Snex interpreter: there is no VM to talk to"
_FORKED = "the connection to the VM belongs to the process that this one was forked from"
_BLOCKING = (
    "{} would block the event loop that has to receive the answer; "
    "use the awaitable function, or call this one in another thread"
)


class Client:
    """One connection's requests. Made on the event loop's thread."""

    def __init__(self, writer: FrameWriter) -> None:
        """Send through `writer`."""
        self._writer = writer
        self._thread = threading.get_ident()
        self._ids = itertools.count(1)
        self._waiting: dict[int, Callable[[BaseException | None, object], None]] = {}
        self._closed = False

    async def request(self, kind: int, body: object) -> object:
        """Send a frame and return its answer, or raise it. Works on any event loop."""
        parts = encode(body)
        await self.drain()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()

        def settle(error: BaseException | None, value: object) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

        def settle_elsewhere(error: BaseException | None, value: object) -> None:
            # A loop that is closed by now has nobody who waits.
            _call_soon(loop, lambda: settle(error, value))

        here = threading.get_ident() == self._thread
        number = self._send(kind, parts, settle if here else settle_elsewhere)
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    def request_sync(self, name: str, kind: int, body: object) -> object:
        """Like `request`, for threads without an event loop."""
        if threading.get_ident() == self._thread:
            raise RuntimeError(_BLOCKING.format(name))
        parts = encode(body)
        room = threading.Event()
        while self._writer.when_drained(room.set):
            room.wait()
            room.clear()
        future: SyncFuture[object] = SyncFuture()

        def settle(error: BaseException | None, value: object) -> None:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

        number = self._send(kind, parts, settle)
        try:
            return future.result()
        finally:
            self._waiting.pop(number, None)

    async def post(self, kind: int, body: object) -> None:
        """Send a frame that has no answer."""
        parts = encode(body)
        await self.drain()
        self._check()
        self._writer.write(kind, 0, parts)

    def _check(self) -> None:
        if self._closed or self._writer.broken:
            raise RuntimeError(_GONE)

    def _send(
        self,
        kind: int,
        parts: list[bytes | memoryview],
        settle: Callable[[BaseException | None, object], None],
    ) -> int:
        number = next(self._ids)
        self._waiting[number] = settle
        try:
            # After `close` nobody would settle what has just been put in.
            self._check()
            self._writer.write(kind, number, parts)
        except BaseException:
            # Also a signal handler's.
            self._waiting.pop(number, None)
            raise
        return number

    async def drain(self) -> None:
        """Wait while too much waits to be written."""
        while self._writer.full:
            loop = asyncio.get_running_loop()
            room: asyncio.Future[None] = loop.create_future()

            def settle(room: asyncio.Future[None] = room) -> None:
                if not room.done():
                    room.set_result(None)

            def wake(
                loop: asyncio.AbstractEventLoop = loop, settle: Callable[[], None] = settle
            ) -> None:
                _call_soon(loop, settle)

            if self._writer.when_drained(wake):
                try:
                    await room
                finally:
                    self._writer.forget(wake)

    def expects(self, number: int) -> bool:
        """Whether somebody still waits for the answer `number`."""
        return number in self._waiting

    def settle(self, number: int, error: BaseException | None, value: object = None) -> None:
        """Give an answer to the one that waits for it. On the event loop's thread."""
        waiter = self._waiting.pop(number, None)
        if waiter is not None:
            waiter(error, value)

    def close(self) -> None:
        """Let go of all who wait, with an error, and refuse new requests."""
        self._closed = True
        for number in list(self._waiting):
            self.settle(number, RuntimeError(_GONE))


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
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


# The child shares the descriptors; a single frame from it would garble those of the parent.
os.register_at_fork(after_in_child=_forget_after_fork)
