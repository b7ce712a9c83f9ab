"""The request that code runs for, and the exception that ends it.

A request is known to its code through a context variable, so that tasks which the code starts and
calls of `asyncio.to_thread` belong to it as well.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


class Cancelled(BaseException):
    """Raised in code that blocks when its caller has given up: after a timeout, or its own end.

    It comes out of whatever the code is doing, on the interpreter's main thread: a loop, a
    `time.sleep`, a system call. `finally` blocks run; `except Exception` does not catch it. Code that
    awaits gets an `asyncio.CancelledError` instead, as any cancelled task does. Code in other
    threads, and C code that does not come back, can't be interrupted.

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

    Everything but the fields for output belongs to the event loop's thread. `pending`, `stream` and
    `size` are touched only by whoever holds the printer's lock.
    """

    # The variables of its environment; the request of no environment has none.
    names: dict[str, Any] | None = None
    # Most requests need none of these; an attribute of the class costs them nothing.
    task: asyncio.Task[None] | None = None
    # CANCEL frames that wait for the task's end.
    cancels = 0
    # The answer has been sent, or will never be.
    ended = False
    # An interrupt came while code of ours ran for it, where nothing could be raised.
    interrupted = False
    printed = False
    pending: list[bytes] | None = None
    stream = 0
    size = 0

    def __init__(self, number: int) -> None:
        """Begin the request with that number; 0 stands for what belongs to none."""
        self.number = number

    def checkpoint(self) -> None:
        """Raise what an interrupt could not, now that nothing of ours is under way."""
        if (
            self.interrupted
            and not self.ended
            and threading.current_thread() is threading.main_thread()
        ):
            self.interrupted = False
            raise Cancelled


OUTSIDE = Request(0)
current: ContextVar[Request] = ContextVar("snex request", default=OUTSIDE)
set_current = current.set


def is_running() -> bool:
    """Return whether the running code belongs to a request that has not been answered."""
    request = current.get()
    return request is not OUTSIDE and not request.ended
