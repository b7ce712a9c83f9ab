"""Waiting for the VM on the event loop's own thread: `call_sync`, `send_sync` and callbacks.

The event loop is blocked meanwhile, so the wait itself reads and writes the wire. Answers go to their
waiters, as always. Of the other frames, those that concern the wait are handled immediately: CANCEL,
and requests that were caused by code that waits here. An Elixir function that Python calls may itself
call Python; such a request runs right here, on top of the stack, and the one below continues when it is
done. All others go to the event loop's queue, in order, and run when the loop runs again.

Waits form a stack. Requests know the one that caused them, so that cancelling a request also
interrupts those that run on top of it on its behalf.
"""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import sys
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from .._wire import frame
from .depth import Depth, check_recursion
from .request import OUTSIDE, Cancelled, current, running_task
from .wait import new_selector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._elixir.client import Client, Until
    from .._wire.body import Body
    from .._wire.reader import FrameReader
    from .._wire.sinks import Sink
    from .._wire.writer import FrameWriter
    from .prints import Printer
    from .request import Request
    from .runner import Runner

    # The kind of a frame, its request, flags, body and buffers.
    Work = Callable[[int, Request, int, Body, Sequence[Sink]], None]

_REQUESTS = frozenset({frame.EVAL, frame.INVOKE, frame.MAP, frame.MAKE_ENV})
# Seconds between two checks of what is being cancelled.
_PAUSE = 0.05
# The levels of the recursion limit that a wait takes before the code of a request on top of it runs.
_FRAMES = 24

GONE = "the connection to the VM is closed"


class Waits:
    """The waits of one interpreter. On the event loop's thread, except `wake`."""

    def __init__(  # noqa: PLR0913 - made in one place, by the interpreter
        self,
        loop: asyncio.AbstractEventLoop,
        reader: FrameReader,
        writer: FrameWriter,
        printer: Printer | None,
        runner: Runner,
        work: Work,
    ) -> None:
        """Prepare; `work` begins a request."""
        self._loop = loop
        self._reader = reader
        self._writer = writer
        self._printer = printer
        self._writers = [writer] if printer is None else [writer, printer.writer]
        self._runner = runner
        self._work = work
        self._context = copy_context()
        self.client: Client | None = None
        # Calls that wait here, by number, each with the request whose code waits; outermost first.
        self.calls: dict[int, Request] = {}
        # Requests that must run on top.
        self._due: deque[tuple[int, Request, int, Body, Sequence[Sink]]] = deque()
        # The number of frames in the event loop's queue that came during a wait.
        self._kept = 0
        # Made for the first request on top.
        self._depth: Depth | None = None
        # Cancelled requests whose frames wait in the event loop's queue, where they will be skipped.
        self.unwanted: set[int] = set()
        self.ended = False
        # Made for the first wait.
        self._selector: selectors.BaseSelector | None = None
        self._wake_fd = self._woken_fd = -1
        self._woken = False
        for each in self._writers:
            each.on_backlog = self.wake

    @staticmethod
    def begin() -> None:
        """Make room for our own calls on the stack.

        Raises:
            RecursionError: if there is no room.
        """
        check_recursion()
        sys.setrecursionlimit(sys.getrecursionlimit() + _FRAMES)

    @staticmethod
    def end() -> None:
        """Undo `begin`."""
        # Relative, because user code may have set another limit.
        with suppress(RecursionError):
            sys.setrecursionlimit(max(sys.getrecursionlimit() - _FRAMES, _FRAMES))

    def may_wait(self) -> bool:
        """Return whether a wait is possible here: not in the middle of reading or writing.

        A `__del__` or a signal handler may run anywhere.
        """
        return (
            not self._reader.is_busy
            and (self._printer is None or not self._printer.is_busy_here())
            and not any(writer.is_busy_here() for writer in self._writers)
        )

    def make_room(self) -> None:
        """Wait while too much waits to be written."""
        request = current.get()
        while self._writer.full:
            self._check_end()
            self._writer.pump()
            self._check_cancelled(request)
            if self._writer.full:
                # Not forever: another thread may write everything before this one sleeps.
                self._sleep(_PAUSE)

    def wait(self, number: int, answers: Until | Sequence[object]) -> None:
        """Return when `answers` is true: the answer to call `number` has come, or what it waits for has changed.

        Raises:
            Cancelled: if the request whose code waits is cancelled.
            RuntimeError: when the VM is gone.
        """
        request = current.get()
        if self._selector is None:
            self._set_up()
        # Code that runs on top may wait for the same stream.
        below = self.calls.get(number)
        self.calls[number] = request
        try:
            # Whether the last chunk has more frames.
            more = self._reader.has_more
            while True:
                if answers and not self._is_due_for_streams():
                    break
                if more:
                    more = self._turn()
                    if answers and not self._is_due_for_streams():
                        break
                self._check_end()
                cleaning = self._check_cancelled(request)
                if self._due:
                    self._run(*self._due.popleft())
                    more = True
                elif not more:
                    # Frames that were read already wait while too much waits to be written.
                    brief = cleaning or self._reader.has_more or self._runner.look()
                    self._sleep(_PAUSE if brief else None)
                    more = True
        finally:
            if below is None:
                del self.calls[number]
            else:
                self.calls[number] = below
            if self._due and not self.calls:
                self._leave_to_loop()

    def _is_due_for_streams(self) -> bool:
        """Return whether the next items of a stream may depend on a request that should run on top.

        If code on this thread waits for those items, the event loop would run the request too late.
        """
        return bool(self._due) and any(work[1].cause & frame.SOURCE for work in self._due)

    def _set_up(self) -> None:
        self._woken_fd, self._wake_fd = os.pipe()
        for fd in (self._woken_fd, self._wake_fd):
            os.set_blocking(fd, False)
        selector = new_selector()
        selector.register(self._reader.fd, selectors.EVENT_READ)
        selector.register(self._woken_fd, selectors.EVENT_READ)
        self._selector = selector

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that it has opened, -1 in place of those that it has not."""
        selector: Any = self._selector
        own = selector.fileno() if hasattr(selector, "fileno") else -1
        return self._woken_fd, self._wake_fd, own

    def wake(self) -> None:
        """Have the wait check what is to be written. From any thread."""
        if self.calls:
            with suppress(OSError):
                os.write(self._wake_fd, b"\0")
            # After the byte: otherwise the waiter might reset the flag before there is a byte to read.
            self._woken = True

    def _turn(self) -> bool:
        """Write and read once. Returns whether there is more to read at once."""
        for writer in self._writers:
            if writer.backlog:
                writer.pump()
        if self._writer.full:
            # Do not read, as the event loop does not either: new work would only add to what waits.
            return False
        self._reader.resume()
        # In this context, the callbacks that it schedules belong to no request.
        return self._context.copy().run(self._reader.turn)

    def _sleep(self, seconds: float | None) -> None:
        # A signal handler may raise in here: nothing of ours is half done.
        full = [writer.fd for writer in self._writers if writer.backlog]
        if full or self._selector is None:
            poll = select.poll()
            for fd in full:
                poll.register(fd, select.POLLOUT)
            if not self._writer.full:
                poll.register(self._reader.fd, select.POLLIN)
            if self._selector is not None:
                poll.register(self._woken_fd, select.POLLIN)
            poll.poll(None if seconds is None else seconds * 1000)
        else:
            self._selector.select(seconds)
        if self._woken:
            self._woken = False
            with suppress(OSError):
                os.read(self._woken_fd, 4096)

    def _check_end(self) -> None:
        if self.ended or self._writer.broken:
            raise RuntimeError(GONE)

    def _check_cancelled(self, request: Request) -> bool:
        """Raise `Cancelled` if the request was cancelled. Returns whether it cleans up."""
        if request.ended or not self._runner.is_unwanted(request):
            return False
        request.interrupted = False
        if request.interrupt(running_task()):
            raise Cancelled
        return True

    def take(
        self, kind: int, request: Request, flags: int, body: Body, sinks: Sequence[Sink]
    ) -> None:
        """Take a frame that came while the thread waits."""
        if kind == frame.CANCEL:
            self._cancel(request.number)
        elif kind in _REQUESTS and self._is_caused_here(request):
            request.is_nested = True
            self._due.append((kind, request, flags, body, sinks))
        elif kind == frame.DROP and not self._kept:
            # No request in the queue can need what it frees.
            self._due.append((kind, request, flags, body, sinks))
        else:
            self._kept += 1
            self._loop.call_soon(self._work_kept, kind, request, flags, body, sinks)

    def _work_kept(
        self, kind: int, request: Request, flags: int, body: Body, sinks: Sequence[Sink]
    ) -> None:
        self._kept -= 1
        self._work(kind, request, flags, body, sinks)

    def _is_caused_here(self, request: Request) -> bool:
        """Return whether code that waits here caused a request, and note which request's code it was."""
        cause, first = request.cause, True
        waiting = self.calls.values()
        while cause:
            by = self.calls.get(cause)
            is_here = by is not None
            if by is None and self.client is not None:
                by = self.client.requester(cause)
                is_here = by is not None and by is not OUTSIDE and by in waiting
            if by is None:
                return False
            if first:
                request.parent = None if by is OUTSIDE else by
                first = False
            if is_here:
                return True
            cause = by.cause
        return False

    def _cancel(self, number: int) -> None:
        waiting = next((r for r in self.calls.values() if r.number == number), None)
        if not self._runner.cancel(number, waiting):
            # It may not have begun yet, or may have ended long ago.
            self.unwanted.add(number)
            self._loop.call_soon(self.unwanted.discard, number)

    def _leave_to_loop(self) -> None:
        """Move requests that came too late to run here to the event loop's queue."""
        while self._due:
            work = self._due.popleft()
            if work[0] == frame.DROP:
                # Immediately: later requests are in the queue already, and must not see what it drops.
                self._run(*work)
                continue
            work[1].is_nested = False
            self._kept += 1
            self._loop.call_soon(self._work_kept, *work, context=self._context.copy())

    def _run(
        self, kind: int, request: Request, flags: int, body: Body, sinks: Sequence[Sink]
    ) -> None:
        """Run a request on top of the waiting one."""
        depth = self._depth
        if depth is None:
            depth = self._depth = Depth()
        if kind in _REQUESTS:
            try:
                check_recursion()
                depth.check()
            except RecursionError as error:
                self._runner.fail(request, error)
                return
        # As when the event loop calls us, no task is current.
        task: Any = running_task()
        if task is not None:
            asyncio.tasks._leave_task(self._loop, task)  # noqa: SLF001 - undone below
        depth.levels += 1
        try:
            self._work(kind, request, flags, body, sinks)
        finally:
            depth.levels -= 1
            if task is not None:
                asyncio.tasks._enter_task(self._loop, task)  # noqa: SLF001 - as above
