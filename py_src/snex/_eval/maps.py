"""Maps: requests that call a function once for each element, the MAP frames; see `docs/protocol.md`.

The calls are made one after the other, until a slice of time is over or the results are worth a frame. The answer tells
the VM how many calls were made, and the VM sends the other elements again. So a map keeps others waiting no longer than
a slice and one call, and no result waits for many slow calls.
"""

from __future__ import annotations

import struct
from itertools import islice
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from .._etf.encoder import encode, encode_item, frozen
from .._etf.handles import WithHandles, keep
from .._fork import in_child
from .._memory import ANSWER, is_exhausted
from .._wire import frame
from . import trace
from .batch import joined
from .contexts import enter
from .invocation import function_for, is_awaitable, resolve
from .overload import Durations
from .runner import NESTED, RUNNING, Continuation, Encoded, fields_of
from .traceback import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from .envs import Env, Envs
    from .request import Request
    from .runner import Fields, How, Requested, Runner, Work, WorkOf

    Parts = Sequence[bytes | memoryview]
    # Yields awaitables, and gets their results.
    Steps = Generator[Any, object, None]

# Seconds, and bytes, after which the answer is sent.
_SLICE = 0.005
_ENOUGH = 256 * 1024
# The most calls between two looks at the clock; the first comes after one call.
_FEW = 64
# The VM never sends so many elements.
_MANY = 0x7FFF_FFFF
# Small immutable results are encoded together with those that follow. All others are encoded immediately, because the next call
# may change them.
_SCALARS = frozenset({type(None), bool, int, float})
_TEXTS = frozenset({str, bytes})
_SHORT = 1024
# The most bytes of an error that is sent unshortened.
_LONG = 64 * 1024

_HEAD = struct.Struct(">3sBi")
_LIST = struct.Struct(">BI")
_NIL = b"j"

_DONE: Any = object()


class Maps:
    """The maps of one interpreter. On the event loop's thread."""

    def __init__(self, runner: Runner, envs: Envs) -> None:
        """Let `runner` run the requests."""
        self._runner = runner
        self._env_of = envs.look_at

    def begin(self, request: Request, flags: int, fields: Fields) -> None:
        """Make the calls of a request, or start to."""

        def work_of(fields: Fields) -> Requested:
            results = Results(self._runner, request, flags)
            traceparent = fields[6] if len(fields) > 6 else None  # noqa: PLR2004 - the last ones may be left out
            return Calls(fields, results), None, None, traceparent

        how: How = (self._env_of, work_of)
        # The other flags apply to each result.
        self._runner.begin(how, request, flags & frame.THREAD, fields, self._start)

    def refuse(self, request: Request, error: BaseException) -> None:
        """Answer a request that cannot be loaded: no calls were made, and fewer elements may be loadable."""
        results = Results(self._runner, request, 0)
        try:
            results.fail(error)
        except BaseException as end:  # noqa: BLE001 - it has been cancelled
            self._runner.fail(request, end)
        else:
            self._runner.succeed(request, results.answer(0))

    def _start(
        self, request: Request, env: Env, fields: Fields, flags: int, work_of: WorkOf
    ) -> Work | None:
        """Make the calls, or start to. Returns the work that must run in a thread, if any."""
        enter(request)
        try:
            work, _, _, request.traceparent = work_of(fields)
            if flags & frame.THREAD:
                return work
            result = trace.call(request.traceparent, work.bind(env.names))
            if is_awaitable(result):
                self._runner.start(request, result, env, 0)
                return None
        except BaseException as error:  # noqa: BLE001 - what has ended the request
            self._runner.fail(request, error)
        else:
            self._runner.succeed(request, result.parts)
        return None


# It calls user code.
RUNNING.add(Maps._start.__code__)  # noqa: SLF001 - of this module


class Calls:
    """The calls of one request, to be run like an `Invocation`."""

    is_async = False
    is_call = True
    # Required of work, but not used: their duration is not measured.
    durations = Durations()

    def __init__(self, fields: Fields, results: Results) -> None:
        """Prepare the calls of a request's body."""
        env_id, self._root, self._path, (self._elements, self._unpack), self._keywords = fields[:5]
        self._copies = env_id is None
        self._results = results
        self._begin = 0.0

    def bind(self, names: dict[str, Any]) -> Callable[[], Any]:
        """Return a function that makes the calls. If one must be awaited, it returns an awaitable for that one and the rest."""
        self._names = names
        return self._run

    def _run(self) -> Encoded | Continuation:
        steps = self._steps()
        awaitable = next(steps, _DONE)
        while awaitable is not _DONE:
            if not self._results.request.is_nested:
                return Continuation(self._await(steps, awaitable), awaitable)
            if isinstance(awaitable, CoroutineType):
                awaitable.close()
            awaitable = _throw(steps, RuntimeError(NESTED))
        return self._answer()

    async def _await(self, steps: Steps, awaitable: Any) -> Encoded:  # noqa: ANN401 - of any type
        while awaitable is not _DONE:
            try:
                value = await awaitable
            except BaseException as error:  # noqa: BLE001 - of that call
                awaitable = _throw(steps, error)
            else:
                awaitable = _send(steps, value)
        return self._answer()

    def _answer(self) -> Encoded:
        """Return the answer, with the number of calls that would fit into a slice."""
        results = self._results
        took = monotonic() - self._begin
        fit = results.done
        if not results.is_full and took > 0:
            fit = max(1, min(int(fit * _SLICE / took), _MANY))
        return Encoded(results.answer(fit))

    def _steps(self) -> Steps:
        results = self._results
        try:
            function = function_for(
                resolve(self._root, self._path, self._names), self._names, self._copies
            )
        except BaseException as error:  # noqa: BLE001 - of each call
            for _ in self._elements:
                results.fail(error)
            return
        finally:
            # The time of imports does not count.
            self._begin = monotonic()
        elements = iter(self._elements)
        count = 1
        while not self._is_over():
            yield from self._group(function, islice(elements, count))
            count = min(2 * count, _FEW)

    def _is_over(self) -> bool:
        results = self._results
        return (
            results.done == len(self._elements)
            or results.is_full
            or (results.done > 0 and monotonic() - self._begin >= _SLICE)
        )

    def _group(self, function: Any, elements: Iterator[Any]) -> Steps:  # noqa: ANN401 - the user's
        results = self._results
        # If all results stay in Python, none counts as simple.
        scalars, texts = (_NOTHING, _NOTHING) if results.whole else (_SCALARS, _TEXTS)
        values: list[object] = []
        while not results.is_full:
            try:
                value = call_each(
                    function, elements, self._unpack, self._keywords, scalars, texts, values
                )
                if is_awaitable(value):
                    value = yield value
            except BaseException as error:  # noqa: BLE001 - of this call
                results.extend(values)
                results.fail(error)
            else:
                results.extend(values)
                if value is _DONE:
                    return
                results.add(value)
            values.clear()


_NOTHING: frozenset[type] = frozenset()


def call_each(  # noqa: PLR0913 - internal
    function: Any,  # noqa: ANN401 - the user's
    elements: Iterator[Any],
    unpack: bool,  # noqa: FBT001 - internal
    keywords: Mapping[str, object],
    scalars: frozenset[type],
    texts: frozenset[type],
    values: list[object],
) -> Any:  # noqa: ANN401 - whatever it returns
    """Call a user's function with one element after the other, and add simple results to `values`.

    Returns the first result that is not simple, or `_DONE`. In here nothing of ours is half done, so a signal handler may raise.
    """
    add = values.append
    for element in elements:
        if unpack:
            value = function(*element, **keywords)
        elif keywords:
            value = function(element, **keywords)
        else:
            value = function(element)
        kind = type(value)
        if kind in scalars or (kind in texts and len(value) <= _SHORT):
            add(value)
        else:
            return value
    return _DONE


def _send(steps: Steps, value: object) -> Any:  # noqa: ANN401 - what is to be awaited
    try:
        return steps.send(value)
    except StopIteration:
        return _DONE


def _throw(steps: Steps, error: BaseException) -> Any:  # noqa: ANN401 - as above
    try:
        return steps.throw(error)
    except StopIteration:
        return _DONE


class Results:
    """The encoded results of the calls of one request: runs of values, and errors between them."""

    def __init__(self, runner: Runner, request: Request, flags: int) -> None:
        """Encode values as `flags` say."""
        self._runner = runner
        self.request = request
        self._auto = bool(flags & frame.AUTO)
        # Whether all results stay in Python.
        self.whole = bool(flags & frame.OBJECT)
        self._objects: list[object] = []
        # Runs and errors, their number, and the values of the last run, which is still open.
        self._parts: list[bytes | memoryview] = []
        self._count = 0
        self._run: list[bytes | memoryview] = []
        self._length = 0
        self._size = 0
        # How many calls have been made.
        self.done = 0
        # Set when no more calls should be made.
        self.is_full = False

    def extend(self, values: list[object]) -> None:
        """Add simple values."""
        if not values:
            return
        try:
            parts = encode_item(values, self._objects, self._auto)
        except BaseException:  # noqa: BLE001 - it comes again
            for value in values:
                self.add(value)
            return
        self._close_run()
        self._count += 1
        self.done += len(values)
        self._put(self._parts, parts)

    def add(self, value: object) -> None:
        """Add any value. If it cannot be encoded, add an error instead."""
        objects = self._objects
        before = len(objects)
        try:
            parts = encode_item(keep(value) if self.whole else value, objects, self._auto)
        except BaseException as error:  # noqa: BLE001 - also of encoders of the user's
            # Remove the handles in the part that was encoded.
            del objects[before:]
            self.fail(error)
            return
        self._length += 1
        self.done += 1
        self._put(self._run, parts)

    def fail(self, error: BaseException) -> None:
        """Add the error of a call, or raise it if it has ended the request."""
        runner = self._runner
        if in_child() or runner.ending or runner.is_unwanted(self.request):
            raise error
        try:
            encoded = _error(error)
        except MemoryError as later:
            error = later
            encoded = ANSWER[1:]
        self._close_run()
        self._count += 1
        self.done += 1
        self._put(self._parts, [encoded])
        if is_exhausted(error):
            self.request.no_memory = self.is_full = True

    def _put(self, to: list[bytes | memoryview], parts: Parts) -> None:
        self._size += sum(map(len, parts))
        to += parts if len(parts) == 1 else map(frozen, parts)
        if self._size >= _ENOUGH:
            self.is_full = True

    def _close_run(self) -> None:
        if self._length:
            self._parts += [_LIST.pack(108, self._length), *self._run, _NIL]
            self._count += 1
            self._run = []
            self._length = 0

    def answer(self, fit: int) -> Parts:
        """Return the parts of the answer. No results may be added afterwards."""
        self._close_run()
        head = _HEAD.pack(b"\x83h\x02", 98, fit) + _LIST.pack(108, self._count)
        parts = joined([head, *self._parts, _NIL])
        return WithHandles(parts, self._objects) if self._objects else parts


def _error(error: BaseException) -> bytes:
    fields = fields_of(error)
    encoded = b"".join(encode(fields, frame.SPARE))
    if len(encoded) > _LONG:
        encoded = b"".join(encode(shortened(fields), frame.SPARE))
    return encoded[1:]
