"""Runs the code of EVAL frames and answers them.

Code that does not await runs at once, in the callback that read it; other code becomes a task. In
either case whatever the code raises, `SystemExit` included, is the answer to that one request.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

from . import _frame
from ._code import Program, compile_code
from ._envs import EnvError, Envs
from ._etf import encode
from ._traceback import error_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Request = tuple[int | None, str | None, str | None, int | None, dict[str, object] | None]
    Write = Callable[[int, int, Sequence[bytes | memoryview]], None]


class Runner:
    """Evaluations in progress, on the event loop's thread only.

    `ending` is set once the interpreter goes down: from then on an exception in user code is a part
    of the end, and nobody's answer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, envs: Envs, write: Write) -> None:
        """Answer through `write(kind, id, parts)`."""
        self._loop = loop
        self._envs = envs
        self._write = write
        # Tasks are kept here until they are done: the loop itself holds them only weakly.
        # Who is in here has not been answered.
        self._tasks: dict[int, asyncio.Task[None] | None] = {}
        self.ending = False

    def eval(self, request: int, fields: Request) -> None:
        """Run the code of a request, or start to."""
        try:
            env_id, source, file, line, variables = fields
            env = self._envs.get(env_id)
            if variables:
                env.update(variables)
            program = compile_code(source or "", file, line or 1)
        except BaseException as error:  # noqa: BLE001 - the compiler raises all sorts of things
            self.fail(request, error)
            return
        if program.is_async:
            self._tasks[request] = None
            task = self._loop.create_task(self._run_async(request, program, env))
            # A task factory of the user's may have run it to its end already.
            if request in self._tasks:
                self._tasks[request] = task
                task.add_done_callback(lambda _: self._done(request))
        else:
            try:
                # A context of its own, as a task would have.
                value = contextvars.copy_context().run(program.bind(env))
                parts = encode(value)
            except BaseException as error:  # noqa: BLE001 - also SystemExit and KeyboardInterrupt
                self.fail(request, error)
            else:
                self._write(_frame.RESULT, request, parts)

    async def _run_async(self, request: int, program: Program, env: dict[str, Any]) -> None:
        try:
            value = await program.bind(env)()
            parts = encode(value)
        except BaseException as error:  # noqa: BLE001 - also SystemExit and CancelledError
            # A request that was cancelled has nobody waiting for the answer.
            if request in self._tasks:
                del self._tasks[request]
                self.fail(request, error)
        else:
            if request in self._tasks:
                del self._tasks[request]
                self._write(_frame.RESULT, request, parts)

    def _done(self, request: int) -> None:
        """Answer for a task that other code has cancelled before its first step."""
        if request in self._tasks:
            del self._tasks[request]
            if not self.ending:
                self.fail(request, asyncio.CancelledError())

    def cancel(self, request: int) -> None:
        """Cancel a request that is still under way. It is not answered any more."""
        task = self._tasks.pop(request, None)
        if task is not None:
            _abandoned.add(task)
            task.add_done_callback(_abandoned.discard)
            task.cancel()

    def fail(self, request: int, error: BaseException) -> None:
        """Answer a request with an error."""
        if self.ending:
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
        self._write(_frame.ERROR, request, encode(fields))


# Cancelled tasks that have not come to their end yet.
_abandoned: set[asyncio.Task[None]] = set()
