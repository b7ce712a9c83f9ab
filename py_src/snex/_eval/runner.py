"""Runs the code of EVAL frames and answers them.

Code that does not await runs immediately, in a callback of the event loop; other code becomes a task. With
`run: :thread`, either runs in a worker thread. Any exception of the code, even `SystemExit`, is the
answer to its request, and affects no other.

A request that the VM has cancelled is not answered. Instead, CANCELLED answers each CANCEL frame when the
work has ended.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from .._elixir.client import call_soon
from .._etf.encoder import encode
from .._etf.handles import keep
from .._fork import end_of, in_child
from .._memory import ANSWER, Memory, is_exhausted
from .._wire import frame
from . import trace
from .code import Program, compile_code
from .contexts import enter
from .envs import EnvError
from .invocation import Invocation, is_awaitable
from .iterables import Rest
from .overload import Durations, now, refusal
from .request import Cancelled, Request
from .threads import Job, Threads
from .traceback import error_fields, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from contextvars import Context
    from typing import TypeAlias

    from .envs import Env, Envs
    from .iterables import InThread
    from .maps import Calls
    from .signals import Interrupts

    # The fields of a request's body, see `docs/protocol.md`.
    Fields = tuple[Any, ...]
    # The deadline of the caller, and how long it waits altogether.
    Time = tuple[int, int]
    Work: TypeAlias = Program | Invocation | InThread | Calls
    # The work, the variables to be set, the time of the caller, and its span.
    Requested = tuple[Work, dict[str, object] | None, Time | None, str | None]
    WorkOf = Callable[[Fields], Requested]
    # Runs the work of a request, or starts it. Returns the work if it must run in a thread.
    Evaluate = Callable[[Request, Env, Fields, int, WorkOf], Work | None]
    # How to find the environment and the work of a request.
    How = tuple[Callable[[int | None], Env], WorkOf]
    Write = Callable[[int, Request, Sequence[bytes | memoryview], int], None]


# Set in the number of a CANCEL frame that only asks whether the request has noticed that it was cancelled.
_PROBE = 1 << 63

NESTED = (
    "code that awaits cannot run here: the event loop is waiting for the Elixir function that called it. "
    "Call it with run: :thread, or await the function in the outer code"
)


class Runner:
    """Evaluations in progress, on the event loop's thread; worker threads only end their requests.

    `ending` is set once the interpreter ends: from then on, an exception in user code is part of the
    end, and not an answer.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        envs: Envs,
        interrupts: Interrupts,
        write: Write,
        exhausted: Callable[[], None],
    ) -> None:
        """Answer through `write(kind, request, parts)`, from any thread.

        `exhausted()` ends an interpreter without memory.
        """
        self._exhausted = exhausted
        self._loop = loop
        self._envs = envs
        self._interrupts = interrupts
        self._wanted = interrupts.wanted
        self._write = write
        # The requests whose tasks or threads are running. The loop itself refers to tasks only weakly.
        self._running: dict[int, Request] = {}
        self._jobs: dict[int, Job] = {}
        self._threads = Threads(loop, self._answer_probes)
        self._thread_ended: asyncio.Future[None] | None = None
        self._durations = Durations()
        self.ending = False
        # How to run code, and how to call the function that a request names. Not partials of `begin`, which would take some of
        # the C stack, which CPython 3.12 limits, at each level of a callback.
        self.eval: How = (envs.get, _program)
        self.invoke: How = (envs.look_at, _invocation)

    def begin(
        self,
        how: How,
        request: Request,
        flags: int,
        fields: Fields,
        evaluate: Evaluate | None = None,
    ) -> None:
        """Run the work of a request, or start it, in a copy of its environment's context.

        `evaluate` does so for work that is not run like code and calls.
        """
        env_of, work_of = how
        if request.number in self._wanted:
            # It was interrupted before it began; its CANCEL frame is on its way.
            request.ended = True
            return
        try:
            env = env_of(fields[0])
        except BaseException as error:  # noqa: BLE001 - also fields that are none
            self.fail(request, error)
            return
        request.names = env.names
        before = env.context
        context = before.copy()
        work = context.run(evaluate or self._eval, request, env, fields, flags, work_of)
        if work is not None:
            # Not within the request's context, which the new thread would keep alive.
            self.start_thread(request, work, env, context, flags)
        elif request.number not in self._running:
            env.keep(before, context)

    def _eval(
        self, request: Request, env: Env, fields: Fields, flags: int, work_of: WorkOf
    ) -> Work | None:
        """Run the code of a request, or start it. Returns the code if it must run in a thread."""
        enter(request)
        try:
            work, variables, time, traceparent = work_of(fields)
            if traceparent is not None:
                request.traceparent = traceparent
            in_thread = flags & frame.THREAD
            begun = now()
            if time is not None and not (in_thread or work.is_async):
                self._check_time(work, time, begun)
            if variables:
                env.names.update(variables)
            if in_thread:
                return work
            if work.is_async:
                self.start(request, work.bind(env.names)(), env, flags)
                return None
            parts = self._run_through(request, work, env, flags, begun)
            if parts is None:
                return None
        except BaseException as error:  # noqa: BLE001 - also SystemExit and KeyboardInterrupt
            self.fail(request, error)
        else:
            self._end(request, frame.RESULT, parts)
        return None

    def start_thread(
        self, request: Request, work: Work, env: Env, context: Context, flags: int
    ) -> None:
        """Run work in a worker thread, within `context`."""
        before = env.context
        after = context

        async def finish(result: Any) -> object:  # noqa: ANN401 - an awaitable
            nonlocal after
            try:
                return await trace.wait(request.traceparent, result)
            finally:
                # Those of the task's own copy.
                after = copy_context()

        def run() -> tuple[int, Sequence[bytes | memoryview]]:
            try:
                result = trace.call(request.traceparent, work.bind(env.names))
                if work.is_async or (work.is_call and is_awaitable(result)):
                    result = asyncio.run(finish(result))
                return frame.RESULT, _encoded(result, flags)
            except BaseException as error:  # noqa: BLE001 - also SystemExit and KeyboardInterrupt
                return frame.ERROR, self._failure(request, error)

        def end(answer: tuple[int, Sequence[bytes | memoryview]] | None) -> None:
            if in_child():
                end_of(request, None)
                return
            # Before the answer, because the next request may follow that immediately.
            call_soon(self._loop, lambda: env.keep(before, after))
            if answer is None:
                answer = frame.ERROR, self._failure(request, Cancelled())
            self._end(request, *answer)
            del self._jobs[request.number]
            # For a CANCEL that has just come. See `cancel`.
            self._say_cancelled(request)
            if self.ending:
                call_soon(self._loop, self._thread_has_ended)

        job = Job(request, context, run, end)
        self._jobs[request.number] = job
        try:
            self._threads.start(job)
        except RuntimeError as error:
            del self._jobs[request.number]
            self.fail(request, error)

    def _check_time(self, work: Work, time: tuple[int, int], begun: float) -> None:
        """Refuse a call that has waited too long to be done in time."""
        # Code that never ran is assumed to take as long as other code.
        likely = work.durations.likely or self._durations.likely
        reason = refusal(*time, likely, begun)
        if reason is not None:
            raise EnvError("overloaded", reason)

    def _run_through(
        self, request: Request, work: Work, env: Env, flags: int, begun: float
    ) -> Sequence[bytes | memoryview] | None:
        """Run code that does not await, and note how long it takes; None for a call whose result must be awaited."""
        try:
            run = work.bind(env.names)
            result = run() if request.traceparent is None else trace.call(request.traceparent, run)
            if work.is_call and is_awaitable(result):
                self.start(request, result, env, flags)
                return None
            parts = _encoded(result, flags) if flags else encode(result)
        except Cancelled:
            work.durations.add_interrupted(now() - begun)
            raise
        except BaseException:
            self._note(work, begun)
            raise
        self._note(work, begun)
        return parts

    def _note(self, work: Work, begun: float) -> None:
        took = now() - begun
        work.durations.add(took)
        self._durations.add(took)

    def start(self, request: Request, awaitable: Any, env: Env, flags: int) -> None:  # noqa: ANN401
        """Await `awaitable` in a task."""
        if request.is_nested:
            # The event loop is blocked.
            if isinstance(awaitable, CoroutineType):
                awaitable.close()
            raise RuntimeError(NESTED)
        number = request.number
        self._running[number] = request
        coroutine = self._run(request, awaitable, env, env.context, flags)
        try:
            task = self._loop.create_task(coroutine)
        except BaseException:
            # A task factory of user code raised it.
            coroutine.close()
            self._running.pop(number, None)
            raise
        # Such a factory may also have run the task to its end already.
        if number in self._running:
            request.task = task
            task.add_done_callback(lambda _: self._done(request, awaitable))

    async def _run(
        self,
        request: Request,
        awaitable: Any,  # noqa: ANN401 - of any type
        env: Env,
        before: Context,
        flags: int,
    ) -> None:
        try:
            if request.traceparent is not None:
                awaitable = trace.wait(request.traceparent, awaitable)
            result = await awaitable
            if type(result) is Rest:
                del self._running[request.number]
                self.start_thread(request, result, env, copy_context(), flags)
                return
            parts = _encoded(result, flags)
        except BaseException as error:  # noqa: BLE001 - also SystemExit and CancelledError
            self.fail(request, error)
        else:
            self.succeed(request, parts)
        # The context of the task is its own copy.
        env.keep(before, copy_context())

    def _done(self, request: Request, awaitable: Any) -> None:  # noqa: ANN401 - of any type
        """Answer for a task that was cancelled before its first step."""
        # Break the cycle: the task refers to the request through its callback.
        request.task = None
        if not request.ended and request.number not in self._jobs:
            if isinstance(awaitable, (CoroutineType, Continuation)):
                # Otherwise Python would warn that it was never awaited.
                awaitable.close()
            self.fail(request, asyncio.CancelledError())

    def look(self) -> bool:
        """Look at threads that are being cancelled. Returns whether there are any."""
        return self._threads.look()

    def is_unwanted(self, request: Request) -> bool:
        """Return whether a request has been cancelled, or one for which it runs."""
        unwanted: Request | None = request
        while unwanted is not None:
            if unwanted.cancels or unwanted.number in self._wanted:
                return True
            unwanted = unwanted.parent
        return False

    def cancel(self, number: int, waiting: Request | None = None) -> bool:
        """Cancel a request if it is still running. It will not be answered any more.

        Returns whether it is running. `waiting` is the request if its code waits on the event loop's thread.
        """
        job = self._jobs.get(number & ~_PROBE)
        if number & _PROBE:
            if job is None or job.responds:
                self._cancelled(number)
            else:
                job.probes.append(number)
            return True
        below = _on_the_stack(number) or waiting
        request = job.request if job is not None else self._running.get(number) or below
        if request is None:
            self._cancelled(number)
            return False
        if not request.cancels:
            request.cancels = deque()
        request.cancels.append(number)
        if request.stop is not None:
            request.stop()
        if job is not None:
            self._threads.cancel(job)
            if number not in self._jobs:
                # Its thread has just ended, perhaps without having seen this.
                self._say_cancelled(request)
            return True
        # An earlier interrupt must not hit the cleanup, which begins when the code awaits next.
        request.interrupted = False
        if below is None:
            request.begin_cleanup()
        if request.task is not None:
            request.task.cancel()
        if below is not None:
            # Its code itself runs the event loop that called us, and waits for that to end.
            self._interrupts.interrupt(below)
        return True

    @property
    def under_way(self) -> int:
        """The number of requests that have tasks or threads."""
        return len(self._running) + len(self._jobs)

    def end_idle_threads(self) -> None:
        """End worker threads that have nothing to do."""
        self._threads.end_idle()

    @property
    def in_threads(self) -> bool:
        """Whether requests run in worker threads."""
        return bool(self._jobs)

    def cancel_threads(self) -> None:
        """Cancel what runs in worker threads, at the end of the interpreter."""
        for job in list(self._jobs.values()):
            if job.request.stop is not None:
                job.request.stop()
            self._threads.cancel(job)

    def _thread_has_ended(self) -> None:
        if self._thread_ended is not None and not self._thread_ended.done():
            self._thread_ended.set_result(None)

    async def threads_ended(self) -> None:
        """Return when nothing runs in worker threads any more."""
        while self._jobs:
            self._thread_ended = self._loop.create_future()
            await self._thread_ended

    def _answer_probes(self, job: Job) -> None:
        while job.probes:
            self._cancelled(job.probes.pop())

    def _say_cancelled(self, request: Request) -> None:
        # A worker thread may be here at the same time; each CANCEL is answered once.
        with suppress(IndexError):
            while request.cancels:
                self._cancelled(request.cancels.pop())

    def _cancelled(self, number: int) -> None:
        self._interrupts.settled(number)
        # It need not follow what was printed. The VM waits for it to know whether this interpreter is
        # stuck, and should not have to wait for readers of output.
        self._write(frame.CANCELLED, Request(number), (), 0)

    def succeed(self, request: Request, parts: Sequence[bytes | memoryview]) -> None:
        """Answer a request with its result."""
        self._end(request, frame.RESULT, parts)

    def fail(self, request: Request, error: BaseException) -> None:
        """Answer a request with an error."""
        self._end(request, frame.ERROR, self._failure(request, error))

    def _failure(self, request: Request, error: BaseException) -> Sequence[bytes | memoryview]:
        if in_child():
            end_of(request, error)
        if self.ending or request.cancels or request.number in self._wanted or in_child():
            # There will be no answer.
            return ()
        request.no_memory = is_exhausted(error)
        try:
            # User code runs here.
            fields = fields_of(error)
            try:
                return encode(fields, frame.SPARE)
            except frame.TooLargeError:
                return encode(shortened(fields), frame.SPARE)
        except MemoryError:
            request.no_memory = True
            return (ANSWER,)
        except BaseException as later:
            if request.ended:
                raise
            # A signal handler raised. From here on it will not.
            request.ended = True
            return self._failure(request, later)

    def _end(self, request: Request, kind: int, parts: Sequence[bytes | memoryview]) -> None:
        if in_child():
            end_of(request, None)
            return
        # From here on, nothing interrupts it.
        request.ended = True
        self._running.pop(request.number, None)
        if request.streams:
            request.end_streams()
        if request.cancels:
            self._say_cancelled(request)
        elif parts and request.number not in self._wanted:
            self._write(kind, request, parts, request.items)
        if request.no_memory and Memory.ends:
            self._exhausted()


def _program(fields: Fields) -> Requested:
    work = compile_code(fields[1] or "", fields[2], fields[3] or 1)
    count = len(fields)
    return work, fields[4], fields[5] if count > 5 else None, fields[6] if count > 6 else None  # noqa: PLR2004 - the last two may be left out


def _invocation(fields: Fields) -> Requested:
    work = Invocation(fields[1], fields[2], fields[3], fields[4], fields[0] is None)
    count = len(fields)
    return work, None, fields[5] if count > 5 else None, fields[6] if count > 6 else None  # noqa: PLR2004 - as above


class Continuation:
    """A coroutine that continues after an awaitable of the user's. Both are closed if nobody awaits this."""

    __slots__ = ("_coroutine", "_first")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], first: object) -> None:
        """Continue with `coroutine`, which first awaits `first`."""
        self._coroutine = coroutine
        self._first = first

    def __await__(self) -> Any:  # noqa: ANN401 - as of any coroutine
        """Run the coroutine."""
        return self._coroutine.__await__()

    def close(self) -> None:
        """Close both, unrun."""
        self._coroutine.close()
        if isinstance(self._first, CoroutineType):
            self._first.close()


class Encoded:
    """The result of a request, already encoded."""

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        """Answer with these parts."""
        self.parts = parts


def _encoded(result: object, flags: int) -> Sequence[bytes | memoryview]:
    """Encode the result of a request as its flags say."""
    if type(result) is Encoded:
        return result.parts
    if flags & frame.OBJECT:
        return encode(keep(result))
    return encode(result, 0, True) if flags & frame.AUTO else encode(result)  # noqa: FBT003 - as the extension has it


def _on_the_stack(number: int) -> Request | None:
    """Return the request with a number, if its code is on the stack."""
    place: Any = sys._getframe(1)  # noqa: SLF001 - the only way to the stack
    while place is not None:
        if place.f_code in RUNNING:
            request: Request = place.f_locals["request"]
            if request.number == number:
                return request
        place = place.f_back
    return None


# The functions that call user code for a request.
RUNNING = {Runner._eval.__code__, Runner._run.__code__}  # noqa: SLF001 - as above


def fields_of(error: BaseException) -> dict[str, object]:
    """Return the body of an ERROR frame for an error."""
    if isinstance(error, EnvError):
        return {"code": error.code, "reason": str(error), "traceback": [], "exception": None}
    return error_fields(error)
