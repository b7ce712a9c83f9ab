"""Runs the code of EVAL frames and answers them.

Code that does not await runs at once, in the callback that read it; other code becomes a task. In
either case whatever the code raises, `SystemExit` included, is the answer to that one request.

A request that the VM has cancelled is not answered: CANCELLED answers the CANCEL frame, once for
each, when the work has come to its end.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING

from . import _frame
from ._code import Program, compile_code
from ._contexts import enter
from ._encoder import encode
from ._envs import EnvError
from ._fork import end_of, in_child
from ._request import Request
from ._traceback import error_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import Context

    from ._envs import Env, Envs
    from ._signals import Interrupts

    Fields = tuple[int | None, str | None, str | None, int | None, dict[str, object] | None]
    Write = Callable[[int, Request, Sequence[bytes | memoryview]], None]


class Runner:
    """Evaluations in progress, on the event loop's thread only.

    `ending` is set once the interpreter goes down: from then on an exception in user code is a part
    of the end, and nobody's answer.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        envs: Envs,
        interrupts: Interrupts,
        write: Write,
    ) -> None:
        """Answer through `write(kind, request, parts)`."""
        self._loop = loop
        self._envs = envs
        self._interrupts = interrupts
        self._wanted = interrupts.wanted
        self._write = write
        # Requests whose tasks are under way. The loop itself holds tasks only weakly.
        self._running: dict[int, Request] = {}
        self.ending = False

    def eval(self, request: Request, fields: Fields) -> None:
        """Run the code of a request, or start to, in a copy of its environment's context."""
        if request.number in self._wanted:
            # Interrupted before it began; its CANCEL is on the way.
            request.ended = True
            return
        try:
            env = self._envs.get(fields[0])
        except BaseException as error:  # noqa: BLE001 - also fields that are none
            self.fail(request, error)
            return
        request.names = env.names
        before = env.context
        context = before.copy()
        if context.run(self._eval, request, env, fields):
            env.keep(before, context)

    def _eval(self, request: Request, env: Env, fields: Fields) -> bool:
        """Run the code of a request, or start to. Returns whether it has come to its end."""
        enter(request)
        try:
            _, source, file, line, variables = fields
            if variables:
                env.names.update(variables)
            program = compile_code(source or "", file, line or 1)
            if program.is_async:
                self._start(request, program, env)
                return False
            parts = encode(program.bind(env.names)())
        except BaseException as error:  # noqa: BLE001 - also SystemExit and KeyboardInterrupt
            self.fail(request, error)
        else:
            self.succeed(request, parts)
        return True

    def _start(self, request: Request, program: Program, env: Env) -> None:
        number = request.number
        self._running[number] = request
        coroutine = self._run(request, program, env, env.context)
        try:
            task = self._loop.create_task(coroutine)
        except BaseException:
            # From a task factory of the user's.
            coroutine.close()
            self._running.pop(number, None)
            raise
        # Such a factory may also have run it to its end already.
        if number in self._running:
            request.task = task
            task.add_done_callback(lambda _: self._done(request))

    async def _run(self, request: Request, program: Program, env: Env, before: Context) -> None:
        try:
            parts = encode(await program.bind(env.names)())
        except BaseException as error:  # noqa: BLE001 - also SystemExit and CancelledError
            if not self._was_cancelled(request):
                self.fail(request, error)
        else:
            if not self._was_cancelled(request):
                self.succeed(request, parts)
        # The task's own copy.
        env.keep(before, copy_context())

    def _was_cancelled(self, request: Request) -> bool:
        """Take a request that has come to its end out of the table, and say CANCELLED for it."""
        self._running.pop(request.number, None)
        if not request.cancels:
            return False
        request.ended = True
        for _ in range(request.cancels):
            self._cancelled(request.number)
        return True

    def _done(self, request: Request) -> None:
        """Answer for a task that has been cancelled before its first step."""
        # It knows the request through its callback, and the request knows it.
        request.task = None
        if request.number in self._running and not self._was_cancelled(request):
            self.fail(request, asyncio.CancelledError())

    def cancel(self, number: int) -> None:
        """Cancel a request if it is still under way. It is not answered any more."""
        request = self._running.get(number)
        if request is None or request.task is None:
            self._cancelled(number)
        else:
            request.cancels += 1
            # What it does when it awaits next, and cleans up, is not to be interrupted for what is past.
            request.interrupted = False
            request.task.cancel()

    def _cancelled(self, number: int) -> None:
        self._interrupts.settled(number)
        # Nothing that is printed needs to come before it, and a VM that waits for it to know
        # whether this interpreter is stuck should not wait for readers of output.
        self._write(_frame.CANCELLED, Request(number), ())

    def succeed(self, request: Request, parts: Sequence[bytes | memoryview]) -> None:
        """Answer a request with its result."""
        request.ended = True
        if request.number not in self._wanted:
            self._write(_frame.RESULT, request, parts)

    def fail(self, request: Request, error: BaseException) -> None:
        """Answer a request with an error."""
        if in_child():
            end_of(request, error)
            return
        if self.ending or request.number in self._wanted:
            request.ended = True
            return
        if isinstance(error, EnvError):
            fields: dict[str, object] = {
                "code": error.code,
                "reason": str(error),
                "traceback": [],
                "exception": None,
            }
        else:
            fields = error_fields(error)
        # From here on nothing interrupts it; `error_fields` runs user code.
        request.ended = True
        if request.number not in self._wanted:
            self._write(_frame.ERROR, request, encode(fields))
