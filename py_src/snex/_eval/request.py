"""The request that code runs for, and the exception that ends it.

A request is known to its code through a context variable, so that tasks which the code starts and
calls of `asyncio.to_thread` belong to it as well.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections import deque
    from collections.abc import Callable
    from weakref import ref

    from .._elixir.streams import Stream


_STREAM_ENDED = "the stream ended with the call that passed it to Python: take its items before that call returns"


class Cancelled(BaseException):
    """Raised in blocking code when its caller has given up: after a timeout, or because the caller has ended.

    On the interpreter's main thread, it interrupts whatever the code is doing: a loop, a
    `time.sleep`, a system call. With `run: :thread`, it interrupts Python code, and C code as soon as
    that returns. `finally` blocks run; `except Exception` does not catch it. Code that awaits gets an
    `asyncio.CancelledError` instead, as any cancelled task does. Code in threads that your code has
    started, and C code that does not return, can't be interrupted.

    >>> try:
    ...     raise Cancelled
    ... except Exception:
    ...     print("not here")
    ... except Cancelled:
    ...     print("here")
    here
    """

    __module__ = "snex"


class Request:
    """One request, from the frame that brings it to its answer.

    Everything but the fields for output belongs to the event loop's thread, or to the worker thread that
    the request runs in. `pending`, `stream` and `size` are touched only by whoever holds the printer's lock.

    A request that runs in a worker thread is a context manager for code of ours that user code calls
    there: no exception from another thread is raised within.
    """

    # The variables of its environment; the request of no environment has none.
    names: dict[str, Any] | None = None
    # The call, of Python's, that has caused it, and while that waits on the event loop's thread, the request whose code
    # has made it; whether this one runs on top of that one, where nothing can be awaited.
    cause = 0
    parent: Request | None = None
    is_nested = False
    # Most requests need none of these; an attribute of the class costs them nothing.
    task: asyncio.Task[None] | None = None
    # Numbers of CANCEL frames that wait for the work's end. Whoever takes one out answers it.
    cancels: deque[int] | None = None
    # The worker thread.
    thread = 0
    # Not zero while `Cancelled` may not be raised in that thread.
    shield = 1
    # `Cancelled` has been raised in that thread, or its event loop has cancelled what runs there.
    noticed = False
    # Has that thread look up from waiting for an answer.
    wake: Callable[[], None] | None = None
    # Of a stream: has its iterator closed; how many items there have been, once it has ended.
    stop: Callable[[], None] | None = None
    items = 0
    # The answer has been sent, or will never be.
    ended = False
    # An interrupt came while code of ours ran for it, where nothing could be raised.
    interrupted = False
    # Seconds that its cleanup has before it is interrupted again; for all requests.
    cleanup_timeout = 5.0
    # Until when it cleans up: what awaits, and the tasks and threads in which `Cancelled` was raised.
    cleaning_until = 0.0
    cleanups: dict[object, float] | None = None
    # The span of its caller; see `trace`.
    traceparent: str | None = None
    # It has failed for want of memory.
    no_memory = False
    # Streams of Elixir's that it has been given, by number.
    streams: dict[int, ref[Stream]] | None = None
    printed = False
    pending: list[bytes] | None = None
    stream = 0
    size = 0

    def __init__(self, number: int) -> None:
        """Begin the request with that number; 0 stands for what belongs to none."""
        self.number = number

    @property
    def is_here(self) -> bool:
        """Whether this is the worker thread that the request runs in."""
        return self.thread != 0 and self.thread == threading.get_ident()

    def __enter__(self) -> None:
        if self.is_here:
            self.shield += 1

    def __exit__(self, *_: object) -> None:
        if self.is_here:
            self.shield -= 1

    def begin_cleanup(self) -> None:
        """Note that its tasks are being cancelled. From now on they clean up."""
        self.cleaning_until = monotonic() + self.cleanup_timeout

    def interrupt(self, place: object) -> bool:
        """Return whether `Cancelled` may be raised in a task or thread of the request, and note that it is.

        Not while the request cleans up there: a lock is to be released, a transaction rolled back.
        """
        now = monotonic()
        cleanups = self.cleanups
        if cleanups is None:
            cleanups = self.cleanups = {}
        if now < max(self.cleaning_until, cleanups.get(place, 0.0)):
            return False
        cleanups[place] = now + self.cleanup_timeout
        return True

    def end_streams(self) -> None:
        """End the streams that it has been given: it has ended."""
        for known in list((self.streams or {}).values()):
            stream = known()
            if stream is not None:
                stream.end(_STREAM_ENDED)
        self.streams = None

    def checkpoint(self) -> None:
        """Raise what an interrupt could not, now that nothing of ours is under way."""
        if self.interrupted and not self.ended and (self.is_here or self._is_on_main_thread()):
            self.interrupted = False
            if self.is_here or self.interrupt(running_task()):
                self.noticed = True
                raise Cancelled

    def _is_on_main_thread(self) -> bool:
        return not self.thread and threading.current_thread() is threading.main_thread()


def running_task() -> object:
    """Return the task that runs on this thread, or None."""
    from asyncio import current_task

    try:
        return current_task()
    except RuntimeError:
        return None


OUTSIDE = Request(0)
current: ContextVar[Request] = ContextVar("snex request", default=OUTSIDE)
set_current = current.set


def is_running() -> bool:
    """Return whether the running code belongs to a request that has not been answered."""
    request = current.get()
    return request is not OUTSIDE and not request.ended
