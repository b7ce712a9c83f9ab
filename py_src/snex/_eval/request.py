"""The request for which code runs, and the exception that ends it.

A context variable has the request of the running code, so that tasks which the code starts and
calls of `asyncio.to_thread` belong to the request, too.
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

    Everything except the fields for output belongs to the event loop's thread, or to the worker thread in
    which the request runs. `unsent`, `stream` and `size` are only touched with the printer's lock held.

    In a worker thread, the request is a context manager for functions of ours that user code calls:
    inside, no exception from another thread is raised.
    """

    # The variables of its environment. None for a request without an environment.
    names: dict[str, Any] | None = None
    # The call from Python that caused it; while that call waits on the event loop's thread, the request whose code made the
    # call; and whether this one runs on top of that one, where nothing can be awaited.
    cause = 0
    parent: Request | None = None
    is_nested = False
    # Most requests need none of the following. As attributes of the class, they cost nothing then.
    task: asyncio.Task[None] | None = None
    # The numbers of CANCEL frames that wait for the end of the work. The thread that removes one answers it.
    cancels: deque[int] | None = None
    # The id of its worker thread.
    thread = 0
    # Not zero while `Cancelled` may not be raised in that thread.
    shield = 1
    # Set once `Cancelled` was raised in that thread, or the thread's event loop has cancelled its tasks.
    noticed = False
    # Wakes that thread if it waits for an answer.
    wake: Callable[[], None] | None = None
    # For a stream: a function that closes its iterator; and the number of all items, once it has ended.
    stop: Callable[[], None] | None = None
    items = 0
    # Set once the answer has been sent, or never will be.
    ended = False
    # Set by an interrupt that came while our own code ran for it, in which nothing may be raised.
    interrupted = False
    # Seconds that a cleanup may take before it is interrupted again. Set for all requests.
    cleanup_timeout = 5.0
    # The ends of its cleanups: of code that awaits, and of the tasks and threads in which `Cancelled` was raised.
    cleaning_until = 0.0
    cleanups: dict[object, float] | None = None
    # The span of its caller; see `trace`.
    traceparent: str | None = None
    # Set if it failed for lack of memory.
    no_memory = False
    # The streams from Elixir that were passed to it, by number.
    streams: dict[int, ref[Stream]] | None = None
    printed = False
    unsent: list[bytes] | None = None
    stream = 0
    size = 0

    def __init__(self, number: int) -> None:
        """Make the request with a number; 0 stands for code outside of any request."""
        self.number = number

    @property
    def is_here(self) -> bool:
        """Whether this is the worker thread in which the request runs."""
        return self.thread != 0 and self.thread == threading.get_ident()

    def __enter__(self) -> None:
        if self.is_here:
            self.shield += 1

    def __exit__(self, *_: object) -> None:
        if self.is_here:
            self.shield -= 1

    def begin_cleanup(self) -> None:
        """Note that its tasks are being cancelled, and clean up from now on."""
        self.cleaning_until = monotonic() + self.cleanup_timeout

    def interrupt(self, place: object) -> bool:
        """Return whether `Cancelled` may be raised in a task or thread of the request, and note that it will be.

        Not while the request cleans up there: it may have to release a lock, or roll back a transaction.
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
        """End the streams that were passed to it, because it has ended."""
        for known in list((self.streams or {}).values()):
            stream = known()
            if stream is not None:
                stream.end(_STREAM_ENDED)
        self.streams = None

    def checkpoint(self) -> None:
        """Raise what an earlier interrupt could not, now that nothing of ours is half done."""
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
