"""Worker threads, for requests with `run: :thread`.

Each such request has a thread to itself while it runs, so none waits for another. An idle thread is used
again, and ends after a few seconds without work.

How a request is cancelled: if its thread runs an event loop, the tasks there are cancelled, as
`asyncio.run` does at its end. Otherwise `Cancelled` is set as the thread's asynchronous exception, which
Python raises there as soon as Python code runs. `Request.shield` keeps that exception out of our own
code: the exception is set only while the shield is zero, and the thread increments the shield before it
touches our state. No other thread runs between the check of the shield and the call that sets the
exception: both happen with the GIL held, and Python does not release it in between. The same
holds for incrementing the shield: where Python may release the GIL, as at the entry of a function, it also
raises an exception that is set.

At the end of its job, the thread removes an exception that was not raised.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import sys
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from .._elixir.client import call_soon
from .request import Cancelled, current

try:
    # `queue` only re-exports these.
    from _queue import Empty, SimpleQueue
except ImportError:
    # Another implementation of Python.
    from queue import Empty, SimpleQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import Context

    from .request import Request

    # The kind of a frame, and its body.
    Answer = tuple[int, Sequence[bytes | memoryview]]

# Seconds without work after which a thread ends.
_IDLE = 5.0
# Seconds between two looks at a request that has been cancelled.
_FIRST_LOOK = 0.05
_LONGEST_PAUSE = 0.5


class _Raised(Cancelled):
    """`Cancelled` as raised in a thread: Python is given the class, and makes the object."""

    __module__ = "snex"

    def __init__(self) -> None:
        super().__init__()
        current.get().noticed = True


_Raised.__name__ = _Raised.__qualname__ = Cancelled.__name__


class Job:
    """One request in a worker thread."""

    def __init__(
        self,
        request: Request,
        context: Context,
        work: Callable[[], Answer],
        end: Callable[[Answer | None], None],
    ) -> None:
        """Run `work()` in `context`, then `end(answer)`, or `end(None)` if it was cancelled meanwhile."""
        self.request = request
        self.end = end
        self._context = context
        self._work = work
        # The CANCEL frames that are answered once the thread has noticed.
        self.probes: list[int] = []
        # When the thread was last asked to end; whether its cleanup has taken too long, so that only its end counts;
        # and its event loop whose tasks were cancelled.
        self.asked = 0.0
        self.overdue = False
        self.cancelled_loop: asyncio.AbstractEventLoop | None = None
        # A stream is not interrupted at first: it checks after each item.
        self._is_polite = request.stop is not None
        self._exception_set = False

    def run(self) -> Answer | None:
        """Do the work. In the worker thread."""
        answer = None
        self.request.thread = threading.get_ident()
        # `Cancelled` may be raised after the code's own handlers.
        with suppress(BaseException):
            answer = self._context.run(self._user_code)
        if self._exception_set:
            self._take_back()
        return answer

    def _take_back(self) -> None:
        import ctypes

        if set_exception := _exception_setter():
            set_exception(self.request.thread, ctypes.py_object())

    def _user_code(self) -> Answer:
        request = self.request
        request.shield = 0
        try:
            request.checkpoint()
            return self._work()
        finally:
            request.shield = 1

    def ask(self) -> None:
        """Ask the thread to end its work. On the event loop's thread."""
        request = self.request
        again = self.asked != 0.0
        self.asked = monotonic()
        request.noticed = False
        if self._is_polite:
            return
        loop = _running_loop(request.thread)
        if loop is None:
            self.overdue = again
            self.interrupt()
        else:
            call_soon(loop, lambda: self._cancel_tasks(loop))

    @property
    def responds(self) -> bool:
        """Whether the thread has noticed that it was cancelled, and may still take its time to clean up."""
        return self.request.noticed and not self.overdue

    def _cancel_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.cancelled_loop is loop:
            # The tasks may clean up for any time, as long as they don't block.
            self.request.noticed = True
            return
        self.cancelled_loop = loop
        # Nothing may be raised in the cleanup that follows.
        self.request.interrupted = False
        for task in asyncio.all_tasks(loop):
            self.request.noticed = True
            task.cancel()

    def interrupt(self) -> None:
        """Raise `Cancelled` in the thread. On the event loop's thread."""
        if self._is_polite:
            self._is_polite = False
            self.asked = 0.0
            self.ask()
            return
        request = self.request
        thread = request.thread
        set_exception = _exception_setter() or _set_nothing
        request.interrupted = False
        self._exception_set = True
        # See the top of this file: nothing may come between these two lines.
        if not request.shield:
            set_exception(thread, _Raised)
        else:
            request.interrupted = True
            return
        request.interrupted = set_exception is _set_nothing
        wake = request.wake
        if wake is not None:
            wake()
        loop = _running_loop(thread)
        if loop is not None:
            # Nothing could be raised in the thread, but meanwhile it has begun to run this loop, whose tasks can be cancelled.
            call_soon(loop, (lambda: self._cancel_tasks(loop)) if request.interrupted else _nothing)


class Threads:
    """The worker threads of an interpreter. On the event loop's thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, release: Callable[[Job], None]) -> None:
        """Begin without threads; `release(job)` answers the probes of a job."""
        self._loop = loop
        self._release = release
        self._idle: list[_Worker] = []
        # Jobs that were asked to end, but have not ended.
        self._asked: set[Job] = set()
        self._numbers = itertools.count(1)

    def start(self, job: Job) -> None:
        """Run a job in a thread.

        Raises:
            RuntimeError: when no thread can be started.
        """
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _Worker(next(self._numbers), self._idle)
            worker.start()
        worker.jobs.put(job)

    def end_idle(self) -> None:
        """End the idle threads, and wait for that."""
        with suppress(IndexError):
            while True:
                worker = self._idle.pop()
                worker.jobs.put(None)
                worker.join()

    def cancel(self, job: Job) -> None:
        """Cancel a job, repeatedly until it ends."""
        if not job.asked:
            job.ask()
            self._asked.add(job)
            self._loop.call_later(_FIRST_LOOK, self._look, job, _FIRST_LOOK)

    def look(self) -> bool:
        """Look at the jobs that are being cancelled. Returns whether there are any."""
        for job in list(self._asked):
            self._look_at(job)
        return bool(self._asked)

    def _look_at(self, job: Job) -> None:
        request = job.request
        if request.ended or job.responds:
            self._release(job)
        if request.ended:
            self._asked.discard(job)
        elif not request.noticed:
            job.interrupt()
        elif monotonic() - job.asked >= request.cleanup_timeout:
            job.ask()

    def _look(self, job: Job, pause: float) -> None:
        self._look_at(job)
        if not job.request.ended:
            pause = min(2 * pause, _LONGEST_PAUSE)
            self._loop.call_later(pause, self._look, job, pause)


class _Worker(threading.Thread):
    """A worker thread. The process does not wait for it."""

    def __init__(self, number: int, idle: list[_Worker]) -> None:
        super().__init__(name=f"snex-{number}", daemon=True)
        # `None` ends the thread.
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._idle = idle

    def run(self) -> None:
        while True:
            try:
                job = self.jobs.get(timeout=_IDLE)
            except Empty:
                try:
                    self._idle.remove(self)
                except ValueError:
                    # It was given a job at this very moment.
                    job = self.jobs.get()
                else:
                    return
            if job is None:
                return
            answer = job.run()
            end = job.end
            # Before the answer, because the next request may follow that immediately.
            del job
            self._idle.append(self)
            end(answer)
            del end, answer


def _running_loop(thread: int) -> asyncio.AbstractEventLoop | None:
    """Return the event loop that a thread runs."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - the only way to another thread's stack
    while frame is not None:
        if frame.f_code.co_name in {"run_forever", "run"}:
            names = frame.f_locals
            this = names.get("self", names.get("loop"))
            # An `asyncio.Runner` has a loop; a loop that is not written in Python has no frame of its own.
            loop = this if isinstance(this, asyncio.AbstractEventLoop) else _loop_of(this)
            if loop is not None and loop.is_running():
                return loop
        frame = frame.f_back
    return None


def _loop_of(runner: object) -> asyncio.AbstractEventLoop | None:
    if type(runner).__module__ != "asyncio.runners":
        return None
    loop = getattr(runner, "_loop", None)
    return loop if isinstance(loop, asyncio.AbstractEventLoop) else None


def _nothing() -> None:
    pass


def _set_nothing(_thread: int, _kind: object) -> int:
    """Do nothing: the thread notices when it is next in our code."""
    return 0


@functools.cache
def _exception_setter() -> Callable[[int, object], int] | None:
    """Return the C function that sets or removes the asynchronous exception of a thread.

    None if there is none, as in PyPy.
    """
    import ctypes

    try:
        setter = ctypes.PyDLL(None).PyThreadState_SetAsyncExc
    except (AttributeError, OSError):
        return None
    setter.argtypes = (ctypes.c_ulong, ctypes.py_object)
    return setter
