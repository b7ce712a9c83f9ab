"""Elixir enumerables that Python iterates: `Snex.Serde.stream/2`. Pickles from the VM name this module.

Items come in frames, and a frame is decoded when its first item is wanted. The items of the current frame are in a
list's iterator, `_chunk`: taking one is a single operation, so tasks and threads can share a stream. Whoever finds it
empty moves on to the next frame, with `_lock` held. No thread waits for that lock: its holder wakes those who wait for
items.
"""

from __future__ import annotations

import _thread
import asyncio
import threading
import weakref
from collections import deque
from contextlib import suppress
from operator import length_hint
from typing import TYPE_CHECKING, Any

from .._etf import encoder
from .._eval.request import OUTSIDE
from .._eval.request import current as current_request
from .._wire import frame
from .._wire.body import COUNT, ENTRY, load_items
from .._wire.frame import HEADER_SIZE, SOURCE
from .answers import error_of
from .client import call_soon, current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import NoReturn

    from .._eval.request import Request
    from .answers import Answer
    from .client import Client

# The VM is told each time that a quarter of the demand has been taken, so that it sends more while the rest is taken.
# Its frames have this size, too.
_PARTS = 4
_MADE_BY_ELIXIR = "only Snex.Serde.stream/2, in Elixir, can make a snex.Stream"
_NOT_SERVED = (
    "a stream cannot be used in a served process: only the interpreter itself can iterate it"
)
_NOT_BACK = "a snex.Stream cannot be sent to Elixir; send its items, for instance as a list"
_NOTHING: list[Any] = []


class Stream:
    """An Elixir enumerable: both an async iterator and an ordinary iterator.

    Both take items from the same stream: a `for` continues where an `async for` has stopped. Several tasks and
    threads can take items from one stream; each item goes to one of them. `for` blocks the thread; on the event
    loop's thread, it does so as `snex.call_sync` does.

    The enumerable runs on demand, and only a limited number of items ahead. It ends with `close`, at the end of
    a `with` block, when the stream is dropped, and with the call that passed it to Python. After that there are
    no more items; once the call has returned, it is an error to ask for one.

    Raises:
        ElixirError: while iterating, if the enumerable raises, exits or throws; after all earlier items.
        RuntimeError: while iterating, if the call that passed the stream has returned, or the VM is gone.

    Example:
        ```python
        async for row in rows:
            await load(row)
        ```
    """

    __module__ = "snex"
    __slots__ = (
        "__weakref__",
        "_bytes",
        "_chunk",
        "_client",
        "_demand",
        "_error",
        "_frames",
        "_gone",
        "_is_open",
        "_lock",
        "_number",
        "_over",
        "_size",
        "_taken",
        "_taken_bytes",
        "_waiting",
        "request",
    )

    def __init__(
        self,
        client: Client | None = None,
        number: int = 0,
        demand: int = 0,
        request: Request = OUTSIDE,
    ) -> None:
        """Raise a `TypeError`, because only Elixir makes streams."""
        if client is None:
            raise TypeError(_MADE_BY_ELIXIR)
        self._client = client
        # The stream ends with it.
        self.request = request
        self._number = number
        self._demand = demand
        self._frames: deque[Answer] = deque()
        self._chunk: Iterator[Any] = iter(_NOTHING)
        # The items and bytes of the current frame, and those that were taken without telling the VM yet. At first, that is the
        # whole demand: the VM may send as much.
        self._size = 0
        self._bytes = 0
        self._taken = demand
        self._taken_bytes = 0
        # The error that comes after the current items.
        self._error: BaseException | None = None
        # Whether the VM may send items, whether there are no more, and why none can be taken any more.
        self._is_open = True
        self._over = False
        self._gone: str | None = None
        self._lock = _thread.allocate_lock()
        # Wakes those who wait for items.
        self._waiting: deque[Callable[[], None]] = deque()

    def __iter__(self) -> Stream:
        """Return itself."""
        return self

    def __aiter__(self) -> Stream:
        """Return itself."""
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - whatever Elixir sends
        """Return the next item, or block the thread until there is one."""
        while True:
            for item in self._chunk:
                return item
            if self._over:
                raise StopIteration
            if not self._advance():
                self._wait()

    async def __anext__(self) -> Any:  # noqa: ANN401 - whatever Elixir sends
        """Wait for the next item and return it. Works on any event loop."""
        while True:
            for item in self._chunk:
                return item
            if self._over:
                raise StopAsyncIteration
            if not self._advance():
                await self._wait_in_task()
            elif not self._client.is_here():
                # Frames arrive on another thread, perhaps as fast as they are taken here.
                await asyncio.sleep(0)

    def _advance(self) -> bool:
        """Move on to the next frame. Returns False if the caller has to wait for that."""
        request = current_request.get()
        # No other thread raises an exception in here.
        with request:
            if not self._lock.acquire(blocking=False):
                return False
            try:
                more = self._next_frame()
            finally:
                self._lock.release()
                # Those who found the lock taken wait, too.
                if self._waiting and self._is_ready():
                    self._wake()
        request.checkpoint()
        return more

    def _next_frame(self) -> bool:
        if length_hint(self._chunk):
            # Another task or thread has moved on.
            return True
        if self._gone is not None:
            raise RuntimeError(self._gone)
        self._taken += self._size
        self._taken_bytes += self._bytes
        self._size = self._bytes = 0
        error = self._error
        if error is not None:
            self._error = None
            self.close()
            raise error
        if self._over:
            return True
        if self._taken * _PARTS >= self._demand or self._taken_bytes >= self._client.most_bytes:
            taken, self._taken, self._taken_bytes = self._taken, 0, 0
            self._client.signal(frame.PULL, self._number, taken.to_bytes(4, "little"))
        try:
            answer = self._frames.popleft()
        except IndexError:
            return False
        if answer.kind == frame.FEED_END:
            self._over = True
            if answer.body:
                raise error_of(answer)
            return True
        try:
            items, self._error = load_items(answer.body, answer.sinks)
        finally:
            if answer.hold is not None:
                answer.hold.release()
        self._bytes = HEADER_SIZE + len(answer.body)
        if answer.sinks:
            self._bytes += COUNT.size + sum(ENTRY.size + sink.size for sink in answer.sinks)
        self._size = len(items)
        self._chunk = iter(items)
        if self._over or self._gone is not None:
            # It was closed meanwhile.
            self._chunk = iter(_NOTHING)
        return True

    def _is_ready(self) -> bool:
        """Return whether a waiter should try again."""
        return not self._lock.locked() and (
            bool(self._frames)
            or self._over
            or self._gone is not None
            or length_hint(self._chunk) > 0
        )

    def _wait(self) -> None:
        client = current()
        if client.is_here():
            self._wait_here(client)
            return
        # Released when there is something to look at.
        bell = _thread.allocate_lock()
        bell.acquire()

        def wake() -> None:
            with suppress(RuntimeError):
                bell.release()

        request = current_request.get()
        here = request.is_here
        if here:
            request.wake = wake
        try:
            while True:
                self._waiting.append(wake)
                if self._is_ready():
                    return
                bell.acquire()
                request.checkpoint()
        finally:
            if here:
                request.wake = None
            with suppress(ValueError):
                self._waiting.remove(wake)

    def _wait_here(self, client: Client) -> None:
        """Wait on the event loop's own thread, which itself reads what arrives."""
        until = _Ready(self, client)
        try:
            client.wait_here("a stream", self._number | SOURCE, until)
        finally:
            with suppress(ValueError):
                self._waiting.remove(until.wake)

    async def _wait_in_task(self) -> None:
        current()
        loop = asyncio.get_running_loop()
        thread = threading.get_ident()
        future: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not future.done():
                future.set_result(None)

        def wake() -> None:
            if threading.get_ident() == thread:
                settle()
            else:
                call_soon(loop, settle)

        self._waiting.append(wake)
        try:
            if not self._is_ready():
                await future
        finally:
            with suppress(ValueError):
                self._waiting.remove(wake)

    def _wake(self) -> None:
        with suppress(IndexError):
            while True:
                self._waiting.popleft()()

    def take(self, answer: Answer) -> None:
        """Take a frame that has arrived. On the event loop's thread."""
        if self._is_open:
            self._frames.append(answer)
            if answer.kind == frame.FEED_END:
                self._is_open = False
                self._client.streams.pop(self._number, None)
            self._wake()

    def end(self, why: str | None) -> None:
        """End the stream, on any thread; `why` is the error that is raised from now on, if any."""
        self._gone = self._gone or why
        self._over = self._over or why is None
        self._chunk = iter(_NOTHING)
        self._error = None
        self._frames.clear()
        if self._is_open:
            self._is_open = False
            self._client.streams.pop(self._number, None)
            self._client.signal(frame.CLOSE, self._number)
        self._wake()

    def close(self) -> None:
        """Take no more items, and end the enumerable. It can be called more than once."""
        if not self._over or self._is_open:
            self.end(None)

    async def aclose(self) -> None:
        """Close the stream, as `close` does; async iterators have this method."""
        self.close()

    def __del__(self) -> None:
        """Close it. Nothing here blocks."""
        # A stream whose `__init__` failed has no attributes, and at the end of the process the modules may be gone.
        with suppress(Exception):
            self.close()
            # The call may run for a long time and receive many streams.
            of_request = self.request.streams
            if of_request is not None and of_request[self._number]() in {None, self}:
                del of_request[self._number]

    def __enter__(self) -> Stream:  # noqa: PYI034 - as in `Term`
        """Return itself."""
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    async def __aenter__(self) -> Stream:  # noqa: PYI034 - as in `Term`
        """Return itself."""
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Show its number."""
        return f"<snex.Stream {self._number}>"

    def __reduce__(self) -> NoReturn:
        """Raise a `TypeError`: a stream can't be copied or pickled."""
        msg = "a snex.Stream can be neither copied nor pickled"
        raise TypeError(msg)


class _Ready:
    """Is true when a stream's waiter should try again; for a wait on the event loop's thread."""

    __slots__ = ("_stream", "wake")

    def __init__(self, stream: Stream, client: Client) -> None:
        self._stream = stream
        # For other threads, which may change the stream, too.
        self.wake = client.wake_here

    def __bool__(self) -> bool:
        waiting = self._stream._waiting  # noqa: SLF001 - a part of it
        if self.wake not in waiting:
            waiting.append(self.wake)
        return self._stream._is_ready()  # noqa: SLF001 - as above


def open(number: int, demand: int) -> Stream:  # noqa: A001 - the VM's name for it
    """Return the stream of a source; always the same one while it exists.

    Raises:
        RuntimeError: in a served process, which has no connection to the VM of its own.
    """
    client = current()
    if not client.has_objects:
        raise RuntimeError(_NOT_SERVED)
    known = client.streams.get(number)
    stream = known() if known is not None else None
    if stream is None:
        request = current_request.get()
        if request.ended:
            # This is a task that outlived its request.
            request = OUTSIDE
        stream = Stream(client, number, demand, request)
        known = client.streams[number] = weakref.ref(stream)
        if request is not OUTSIDE:
            if request.streams is None:
                request.streams = {}
            request.streams[number] = known
    return stream


def _refuse(_stream: object) -> NoReturn:
    raise TypeError(_NOT_BACK)


encoder.add_converter(Stream, _refuse)
