"""Streams: requests whose result is iterated, see `docs/protocol.md`.

The code runs where other code does: on the event loop, or in a worker thread. Its result decides what follows. A task advances
an async iterator; a worker thread of its own advances an ordinary iterator, which may block. Only iterators of Python's
own containers are known not to block.
"""

from __future__ import annotations

import os
import struct
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from .._wire import frame
from . import trace
from .batch import new_batch
from .code import compile_code
from .contexts import enter
from .invocation import is_awaitable
from .iterables import Rest, Whole, is_async, is_harmless
from .producer import Producer
from .runner import NESTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._wire.body import Body
    from .._wire.pressure import Pressure
    from .envs import Env
    from .producer import Send
    from .request import Request
    from .runner import Fields, How, Requested, Runner, Work, WorkOf

_CREDIT = struct.Struct("<I")
# The index of `demand` in a body.
_DEMAND = 7
_DEFAULT_DEMAND = 256


class Streams:
    """The streams of one interpreter. On the event loop's thread."""

    def __init__(
        self, runner: Runner, send: Send, pressure: Callable[[Request], Pressure], most: int
    ) -> None:
        """Send items through `send`; each stream has at most `most` bytes that the consumer has not taken."""
        self._runner = runner
        self._send = send
        self._pressure = pressure
        self._most = most
        # The producing streams, by the numbers of their requests. Changed by single operations, on any thread.
        self._producers: dict[int, Producer] = {}
        os.register_at_fork(after_in_child=self._forked)

    def begin(self, how: How, request: Request, flags: int, fields: Fields) -> None:
        """Run the work of a request, and send the items of its result one by one."""

        def start(
            request: Request, env: Env, fields: Fields, _flags: int, work_of: WorkOf
        ) -> Work | None:
            return self._start(request, env, fields, flags, work_of)

        env_of, work_of = how
        if how is self._runner.eval:
            work_of = _program
        # The flags apply to the items. The answer at their end is an ordinary value.
        self._runner.begin((env_of, work_of), request, 0, fields, start)

    def _start(
        self,
        request: Request,
        env: Env,
        fields: Fields,
        flags: int,
        work_of: WorkOf,
    ) -> Work | None:
        """Run the code, and start a task for its result. Returns the work that must run in a thread, if any."""
        enter(request)
        try:
            work, variables, _, request.traceparent = work_of(fields)
            if variables:
                env.names.update(variables)
            batch = new_batch(fields[_DEMAND] or _DEFAULT_DEMAND, self._most, flags)
            producer = Producer(request, batch, self._send, self._pressure, self._producers)
            if flags & frame.THREAD:
                return Whole(producer, work)
            result = trace.call(request.traceparent, work.bind(env.names))
            waits = is_awaitable(result) and not is_async(result)
            rest = None if waits else _iterate(producer, result, flags, request.is_nested)
            if type(rest) is Rest:
                return rest
            if request.is_nested:
                for each in (rest, result):
                    if isinstance(each, CoroutineType):
                        each.close()
                raise RuntimeError(NESTED)  # noqa: TRY301 - the request's error
            coroutine = _await(producer, result, flags) if waits else rest
            self._runner.start(request, coroutine, env, 0)
        except BaseException as error:  # noqa: BLE001 - also SystemExit and KeyboardInterrupt
            self._runner.fail(request, error)
        return None

    def credit(self, number: int, body: Body) -> None:
        """Take a CREDIT frame. On the event loop's thread, even while that waits.

        Raises:
            struct.error: for an invalid body.
        """
        (count,) = _CREDIT.unpack(body)
        producer = self._producers.get(number)
        if producer is not None:
            producer.credit(count)

    def _forked(self) -> None:
        """End all streams in a forked child, from which nobody takes items."""
        for producer in list(self._producers.values()):
            producer.stop()


def _program(fields: Fields) -> Requested:
    work = compile_code(fields[1] or "", fields[2], fields[3] or 1, True)  # noqa: FBT003 - it may yield
    return work, fields[4], fields[5], fields[6]


def _iterate(producer: Producer, iterable: object, flags: int, in_thread: bool) -> Any:  # noqa: ANN401, FBT001
    """Return a coroutine that iterates over something, or work that does so in a worker thread."""
    if is_async(iterable):
        return producer.produce_async(iterable)
    if not flags & frame.LOOP and (in_thread or not is_harmless(iterable)):
        return Rest(producer, iterable)
    return producer.produce_here(iterable)


async def _await(producer: Producer, awaitable: Any, flags: int) -> Rest | None:  # noqa: ANN401
    rest = _iterate(producer, await awaitable, flags, False)  # noqa: FBT003
    return rest if type(rest) is Rest else await rest
