"""Advances the iterator of a stream, and sends its items.

One thread advances an iterator: a worker thread, or that of an event loop. Items are collected in a `Batch`. Any of
these threads may find that the batch is due: the producing one; the event loop's, when the consumer has taken
everything; or the one that has drained the pipe. No thread waits for the lock: one that finds it taken sets a flag,
and the holder of the lock looks again.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from contextlib import suppress
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .._elixir.client import call_soon
from .._fork import in_child
from .batch import DUE, END, FULL, Batch
from .iterables import iterator_of
from .request import Cancelled
from .traceback import report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._wire.pressure import Pressure
    from .request import Request

    # With the number of items that were sent before.
    Send = Callable[[Request, Sequence[bytes | memoryview], int], None]

# Items in a row for a stream in a thread of its own.
_ENDLESS = sys.maxsize
# On an event loop: items between two looks at the clock, and seconds until others get their turn.
_FEW = 64
_SLICE = 0.005
# Seconds that the end of a stream waits for another thread that is sending.
_PATIENCE = 1.0


class Producer:
    """One stream, from its first item to its end."""

    def __init__(
        self,
        request: Request,
        batch: Batch,
        send: Send,
        pressure: Callable[[Request], Pressure],
        producers: dict[int, Producer],
    ) -> None:
        """Send items through `send`, as long as what `pressure` returns has room.

        While it produces, `producers` has it under the number of its request.
        """
        self._request = request
        self._batch = batch
        self._send = send
        self._pressure = pressure
        self._producers = producers
        self._lock = threading.Lock()
        # Set to have the holder of the lock look again.
        self._look = False
        self._credits: deque[int] = deque()
        # Kept, because a bound method is a new object each time, and this one must be found again.
        self._drained = self.flush
        # Wakes the one that waits for the consumer.
        self._wake: Callable[[], None] | None = None
        request.stop = self.stop

    def stop(self) -> None:
        """Have the iterator closed as soon as it is not running. On any thread."""
        self._batch.stopped = True
        self.wake()

    def wake(self) -> None:
        """Wake the one that waits for the consumer."""
        wake = self._wake
        if wake is not None:
            wake()

    def credit(self, count: int) -> None:
        """Note that the consumer has taken items. On the event loop's thread."""
        self._credits.append(count)
        self.flush()
        if self._batch.has_room:
            self.wake()

    def flush(self) -> None:
        """Send what is due. On any thread."""
        self._look = True
        while self._look and self._lock.acquire(blocking=False):
            try:
                self._look = False
                self._settle()
                if self._batch.is_due and not self._batch.stopped and not self._is_put_off():
                    self._send_all()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        while self._credits:
            self._batch.credit(self._credits.popleft())

    def _is_put_off(self) -> bool:
        pressure = self._pressure(self._request)
        return pressure.full and pressure.when_drained(self._drained)

    def _send_all(self) -> None:
        taken = self._batch.take()
        if taken is not None:
            before, parts = taken
            self._send(self._request, parts, before)

    def _begin(self) -> None:
        self._producers[self._request.number] = self
        if in_child():
            self.stop()

    def _end(self) -> None:
        """Send the rest."""
        request = self._request
        self._producers.pop(request.number, None)
        self._pressure(request).forget(self._drained)
        with request:
            if self._batch.stopped:
                return
            locked = self._lock.acquire(timeout=_PATIENCE)
            try:
                self._send_all()
                request.items = self._batch.total
            finally:
                if locked:
                    self._lock.release()

    def _check_stopped(self) -> None:
        # A forked child must not send anything.
        if not in_child():
            raise Cancelled

    def produce(self, iterable: Any) -> None:  # noqa: ANN401 - whatever is to be iterated
        """Advance an iterator to its end, in a worker thread."""
        request, batch = self._request, self._batch
        closes = True
        iterator = iterator_of(iterable)
        self._begin()
        try:
            while not batch.stopped:
                state = advance(batch, iterator, _ENDLESS)
                if state & DUE:
                    with request:
                        self.flush()
                if state & FULL:
                    self._wait()
                request.checkpoint()
                if state & END:
                    closes = False
                    return
            closes = False
            self._close(iterator)
            self._check_stopped()
        finally:
            if closes:
                self._close(iterator)
            self._end()

    def _wait(self) -> None:
        """Block the thread until the consumer has taken something."""
        request, batch = self._request, self._batch
        with request:
            gate = threading.Lock()
            gate.acquire()

            def wake() -> None:
                with suppress(RuntimeError):
                    gate.release()

            self._wake = request.wake = wake
            try:
                while batch.is_full and not batch.stopped and not request.interrupted:
                    gate.acquire()
            finally:
                self._wake = request.wake = None

    async def produce_here(self, iterable: Any) -> None:  # noqa: ANN401 - as above
        """Advance an ordinary iterator to its end on an event loop, in slices."""
        batch = self._batch
        closes = True
        iterator = iterator_of(iterable)
        self._begin()
        until = monotonic() + _SLICE
        try:
            while not batch.stopped:
                state = advance(batch, iterator, _FEW)
                if state & DUE:
                    self.flush()
                if state & END:
                    closes = False
                    return
                until = await self._pause(state, until)
            closes = False
            self._close(iterator)
            self._check_stopped()
        finally:
            if closes:
                self._close(iterator)
            self._end()

    async def produce_async(self, iterable: Any) -> None:  # noqa: ANN401 - as above
        """Advance an async iterator to its end, on any event loop."""
        request, batch = self._request, self._batch
        closes = True
        iterator = aiter(iterable) if hasattr(type(iterable), "__aiter__") else iterable
        self._begin()
        count = 0
        until = monotonic() + _SLICE
        try:
            while not batch.stopped:
                try:
                    item = await anext(iterator)
                except StopAsyncIteration:
                    closes = False
                    return
                state = batch.put(item)
                if state & DUE:
                    with request:
                        self.flush()
                count += 1
                if state & FULL or not count % _FEW:
                    until = await self._pause(state, until)
            closes = False
            await self._aclose(iterator)
            self._check_stopped()
        finally:
            if closes:
                await self._aclose(iterator)
            self._end()

    async def _pause(self, state: int, until: float) -> float:
        """Wait for the consumer, or let others have their turn. Returns the end of our next turn."""
        batch = self._batch
        if state & FULL and batch.is_full:
            loop = asyncio.get_running_loop()
            while batch.is_full and not batch.stopped:
                future: asyncio.Future[None] = loop.create_future()

                def settle(future: asyncio.Future[None] = future) -> None:
                    if not future.done():
                        future.set_result(None)

                def wake(settle: Callable[[], None] = settle) -> None:
                    call_soon(loop, settle)

                self._wake = wake
                try:
                    # The batch may have changed just before.
                    if batch.is_full and not batch.stopped:
                        await future
                finally:
                    self._wake = None
        elif batch.stopped or monotonic() < until:
            # In a forked child, the stream is stopped. Since Python 3.14, no task could continue there.
            return until
        else:
            await asyncio.sleep(0)
        return monotonic() + _SLICE

    def _close(self, iterator: Any) -> None:  # noqa: ANN401 - as above
        # Other iterators may have a `close`, too, such as files, which belong to user code.
        if not hasattr(type(iterator), "throw") or getattr(iterator, "gi_running", False):
            return
        self._request.noticed = True
        try:
            iterator.close()
        except Cancelled:
            pass
        except BaseException as error:  # noqa: BLE001 - as where Python itself closes one
            unraisable(error, iterator)

    async def _aclose(self, iterator: Any) -> None:  # noqa: ANN401 - as above
        if not hasattr(type(iterator), "athrow") or getattr(iterator, "ag_running", False):
            return
        self._request.noticed = True
        try:
            await iterator.aclose()
        except (Cancelled, asyncio.CancelledError):
            pass
        except BaseException as error:  # noqa: BLE001 - as above
            unraisable(error, iterator)


def advance(batch: Batch, iterator: Any, most: int) -> int:  # noqa: ANN401 - as above
    """Add items to a batch. In here nothing of ours is half done, so a signal handler may raise."""
    return batch.fill(iterator, most)


def unraisable(error: BaseException, culprit: object) -> None:
    """Report an exception that a generator raised when it was closed."""
    message = "Exception ignored while a generator was closed"
    if sys.unraisablehook is sys.__unraisablehook__:
        # Python's own hook only takes arguments that Python itself has made.
        report(f"{message}: {culprit!r}", error)
        return
    args: Any = SimpleNamespace(
        exc_type=type(error),
        exc_value=error,
        exc_traceback=error.__traceback__,
        err_msg=message,
        object=culprit,
    )
    try:
        sys.unraisablehook(args)
    except BaseException as problem:  # noqa: BLE001 - as Python does
        report("sys.unraisablehook raised", problem)
