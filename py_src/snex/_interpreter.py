"""The interpreter: joins reader, writer, environments, runner and client on one event loop."""

from __future__ import annotations

import asyncio
import contextvars
import os
import struct
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ._elixir import client
from ._elixir.answers import Answer
from ._elixir.client import Client
from ._etf.encoder import encode
from ._etf.handles import WithHandles
from ._eval import main_module, objects, sources, unawaited
from ._eval.contexts import enter
from ._eval.envs import Envs
from ._eval.maps import Maps
from ._eval.prints import Printer, Streams
from ._eval.request import Request
from ._eval.runner import Runner
from ._eval.streams import Streams as ItemStreams
from ._eval.traceback import report
from ._eval.waits import Waits
from ._fork import end_of, in_child, leave
from ._memory import EXIT_MEMORY, Memory, is_exhausted
from ._template import Template
from ._wire import frame
from ._wire.arena import Inbound
from ._wire.body import drops, load, loads, may_contain
from ._wire.outbound import Outbound
from ._wire.reader import FrameReader
from ._wire.writer import FrameWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from ._eval.objects import Objects
    from ._eval.runner import How
    from ._eval.signals import Interrupts
    from ._template import Request as Fork
    from ._wire.body import Body
    from ._wire.sinks import Sink

    # Answers a request that cannot be loaded.
    Fail = Callable[[Request, BaseException], None]

EXIT_GARBAGE = 70
# The most bytes of a request that takes almost no time to load.
_SMALL = 4096
# The opcode with which pickles name a class. The same byte elsewhere in a body does no harm.
_STACK_GLOBAL = 0x93
_FRAME = 0x95
_LONG1 = 0x8A
_INT_SIZES = {ord("K"): 2, ord("M"): 3, ord("J"): 5}
# Kinds of handles.
ENVIRONMENT = 0
OBJECT = 1
SLOT = 2
_ANSWERS = frozenset({frame.CALL_RESULT, frame.CALL_ERROR})
# Kinds for which code may wait, perhaps on this very thread.
_AWAITED = _ANSWERS | {frame.FEED, frame.FEED_END}
# Seconds for tasks to end once the VM is gone. The warden waits longer.
_GRACE = 2.0
# Seconds for the VM to read the output that is not in the pipe yet.
_PRINT_GRACE = 0.5
# Seconds for the VM to read the last answers of an interpreter without memory.
_LAST_GRACE = 2.0


# The templates of a copy, which must not be cleaned up there.
_ancestors: list[Interpreter] = []


class Interpreter:
    """Everything of one connection, on the thread of its event loop.

    Order at the end: the reader stops, waiting requests fail, tasks are cancelled and awaited, the
    loop is closed. The descriptors stay open until the process is gone, so that nothing else can
    take their numbers.
    """

    def __init__(  # noqa: PLR0913 - made in one place, by `__main__`
        self,
        loop: asyncio.AbstractEventLoop,
        in_fd: int,
        out_fd: int,
        limits: tuple[int, int],
        *,
        interrupts: Interrupts,
        print_fd: int | None,
        shared: tuple[tuple[int, int], tuple[int, int]] | None = None,
        template: Interpreter | None = None,
    ) -> None:
        """Prepare; all descriptors are non-blocking by now.

        Output is sent on `print_fd`, which may be the same as `out_fd`; with `None`, the standard
        streams stay as they are. `shared` has the descriptor and size of each arena, to us and from us. A
        copy begins with the root environment of its `template`.
        """
        self._loop = loop
        # The context outside of any request; callbacks inherit the context in which they are scheduled.
        self._context = contextvars.copy_context()
        low, high = limits
        inbound, outbound = None, None
        if shared is not None:
            inbound = Inbound(*shared[0], loop, self._report_slots)
            outbound = Outbound(*shared[1], loop)
        self._writer = FrameWriter(
            out_fd, loop, low, high, self._pressure, self._writer_broken, outbound
        )
        self._printer: Printer | None = None
        self._printer_fd = print_fd
        self._interrupt_fd = interrupts.fd
        if print_fd is not None:
            writer = self._writer
            if print_fd != out_fd:
                # Printing code itself waits while too much waits to be written.
                writer = FrameWriter(
                    print_fd, loop, low, high, _ignore, self._writer_broken, outbound
                )
            self._printer = Printer(writer)
        self._reader = FrameReader(in_fd, loop, self._frame, self._input_ended, inbound)
        self._inbound = inbound
        # A copy replaces them by its own.
        self._arenas = [fd for fd, _ in shared or ()]
        self._is_copy = template is not None
        self._envs: Envs = Envs(template._envs.root if template is not None else None)  # noqa: SLF001 - one of us
        self._runner = Runner(loop, self._envs, interrupts, self._answer, self._exhausted)
        self._streams = ItemStreams(self._runner, self._send_items, self._writer_of, high)
        self._maps = Maps(self._runner, self._envs)
        self._works: dict[int, Callable[[Request, int, Body, Sequence[Sink]], None]] = {
            frame.MAP: self._map,
            frame.MAKE_ENV: self._make_env,
            frame.DROP: self._drop,
            frame.CANCEL: self._cancel,
        }
        # How user code is run, without a closure for each request.
        self._hows = {frame.EVAL: self._runner.eval, frame.INVOKE: self._runner.invoke}
        # The tables that take handles back, by kind.
        self._tables: dict[int, Envs | Objects | Outbound] = {
            ENVIRONMENT: self._envs,
            OBJECT: objects.table,
        }
        if outbound is not None:
            self._tables[SLOT] = outbound
        objects.table.later = lambda function: client.call_soon(loop, function)
        self._client = Client(self._writer, self._log)
        self._client.most_bytes = high // 2
        self._waits = Waits(
            loop, self._reader, self._writer, self._printer, self._runner, self._work
        )
        self._waits.client = self._client
        self._client.waits = self._waits
        # Calls that wait on the event loop's thread, and requests that will be skipped in its queue.
        self._waiting = self._waits.calls
        self._unwanted = self._waits.unwanted
        self.status = 0
        # The socket for requests of copies; and in a copy, the request that it was made for.
        self.template: Template | None = None
        self.copied: Fork | None = None
        # Whether the event loop should stop, and whether it has stopped.
        self.ended: bool = False
        self.stopped: bool = False

    def listen_for_forks(self, fd: int) -> None:
        """Fork when the warden asks for it on `fd`."""
        # The program that started us may not have passed it on.
        with suppress(OSError):
            self.template = Template(fd, self._loop, self._runner.end_idle_threads)
            self.template.start()

    def run(self) -> int:
        """Serve until the VM is gone. Returns the exit status.

        Returns in a copy, too, where `copied` is set.
        """
        client.use(self._client)
        if not self._is_copy:
            main_module.install(self._envs.root.names)
            sources.install()
            unawaited.install()
        streams = self._print_as_frames()
        if Memory.ends:
            self._end_on_memory_errors()
        self._reader.start()
        while not self.ended:
            try:
                self._loop.run_forever()
            except BaseException as error:
                # asyncio does not catch SystemExit and KeyboardInterrupt of tasks that outlive their request,
                # and a user's own loop may not catch other exceptions. They end the task, not the
                # interpreter.
                if in_child():
                    leave(error)
                if self._loop.is_closed():
                    raise
                if is_exhausted(error) and Memory.ends:
                    self._exhausted()
                if not self.ended:
                    report(f"a task raised {error!r}", error)
            if self.template is not None and not self.ended:
                self.copied = self.template.serve(self._refusal_to_fork)
                if self.copied is not None:
                    self._become_copy(self.template, self.copied)
                    return 0
        self.stopped = True
        self._shut_down()
        if streams is not None:
            streams.restore()
        return self.status

    def _refusal_to_fork(self) -> str | None:
        views = self._inbound.mapped if self._inbound is not None else 0
        if views:
            # The VM reuses the memory when the template frees it, even if copies still have views of it.
            return (
                f"the template holds {views} large value(s) in memory that it shares with the VM: copy them "
                "(array.copy(), bytes(view)), or start the template with shared_memory: false"
            )
        count = self._runner.under_way
        if not count:
            return None
        calls = "a call" if count == 1 else f"{count} calls"
        return f"the template has {calls} under way, which a copy could not continue"

    def _become_copy(self, template: Template, fork: Fork) -> None:
        """Drop what belongs to the template's connection, and put the copy's own descriptors in its place.

        The event loop shares its descriptors with that of the template. It is neither used nor closed any more, and stays
        until the process ends.
        """
        template.become()
        objects.table.forget()
        for task in asyncio.all_tasks(self._loop):
            # They continue in the template.
            task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001 - as above
        null = os.open(os.devnull, os.O_RDWR)
        numbers = [_number(self._loop, name) for name in ("_selector", "_ssock", "_csock")]
        for fd in (*numbers, *self._waits.descriptors, *self._arenas):
            if fd >= 0:
                os.dup2(null, fd, inheritable=False)
        os.close(null)
        ours = (self._reader.fd, self._writer.fd, 2, 1, self._printer_fd, self._interrupt_fd)
        for fd, number in zip(fork.descriptors, (*ours, *self._arenas), strict=False):
            if number is not None:
                os.dup2(fd, number, inheritable=number in {1, 2})
        for fd in fork.descriptors:
            os.close(fd)
        _ancestors.append(self)

    @property
    def has_arenas(self) -> bool:
        """Whether there is shared memory."""
        return bool(self._arenas)

    def _print_as_frames(self) -> Streams | None:
        printer = self._printer
        if printer is None:
            return None
        streams = Streams(printer)

        def forked() -> None:
            printer.abandon()
            streams.restore()

        os.register_at_fork(after_in_child=forked)
        return streams

    def end(self) -> None:
        """Begin to end, from the event loop's thread or from a signal handler on it."""
        if self.ended:
            return
        self.ended = True
        self._runner.ending = True
        self._waits.ended = True
        if self._printer is not None:
            self._printer.closed = True
        self._loop.stop()
        # From a signal handler, `stop` alone does not wake the loop.
        self._soon(_nothing)

    def _shut_down(self) -> None:
        self._reader.stop()
        self._client.close()
        if self._printer is not None:
            self._printer.close(_PRINT_GRACE)
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._runner.cancel_threads()
        if tasks or self._runner.in_threads:
            self._finish(lambda: self._rest(tasks))
        self._finish(self._close_generators)
        self._loop.close()

    async def _close_generators(self) -> None:
        # A task, because `wait_for` needs a current one, which a patch for nested loops hides on Python 3.14.
        task = self._loop.create_task(self._loop.shutdown_asyncgens())
        await asyncio.wait({task}, timeout=_GRACE)

    async def _rest(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Wait for tasks and worker threads."""
        threads = asyncio.ensure_future(self._runner.threads_ended())
        await asyncio.wait([threads, *tasks], timeout=_GRACE)

    def _finish(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        # At most twice, because a `stop` that came while the loop was not running ends the first run.
        for _ in range(2):
            try:
                self._loop.run_until_complete(work())
            except RuntimeError:
                continue
            except (SystemExit, KeyboardInterrupt, asyncio.TimeoutError):
                pass
            return

    def _input_ended(self, error: BaseException | None) -> None:
        if in_child():
            leave(None)
        if isinstance(error, MemoryError):
            # There is not even enough memory to read the next frame.
            self._exhausted()
        # Nothing that follows garbage is a frame.
        self._reader.stop()
        self.end()
        if error is not None:
            self.status = EXIT_GARBAGE
            print(f"snex: invalid input: {error}", file=sys.stderr)  # noqa: T201

    def _exhausted(self) -> None:
        """End immediately, after sending the finished answers: nothing that needs memory works any more."""
        if in_child():
            leave(MemoryError())
        if threading.current_thread() is not threading.main_thread():
            self._soon(self._exhausted)
            return
        try:
            self._reader.stop()
            self._writer.finish(_LAST_GRACE)
            if self._printer is not None:
                self._printer.close(_LAST_GRACE)
        finally:
            # Whatever failed for lack of memory.
            os._exit(EXIT_MEMORY)

    def _end_on_memory_errors(self) -> None:
        """End, too, when a task, callback or thread for which nobody waits fails for lack of memory."""
        hook = threading.excepthook

        def failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            exhausted = is_exhausted(context.get("exception"))
            loop.default_exception_handler(context)
            if exhausted:
                self._exhausted()

        def thread_failed(args: threading.ExceptHookArgs, /) -> None:
            exhausted = is_exhausted(args.exc_value)
            hook(args)
            if exhausted:
                self._soon(self._exhausted)

        self._loop.set_exception_handler(failed)
        threading.excepthook = thread_failed

    def _writer_broken(self) -> None:
        self._soon(self.end)

    def _pressure(self, full: bool) -> None:  # noqa: FBT001 - the writer's callback
        # While the pipe is full, new work would only add to what waits to be written.
        self._soon(self._reader.pause if full else self._reader.resume)

    def _soon(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, context=self._context)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _answer(
        self, kind: int, request: Request, parts: Sequence[bytes | memoryview], cause: int
    ) -> None:
        if in_child():
            end_of(request, None)
            return
        flags = 0
        if type(parts) is WithHandles:
            try:
                flags, parts = objects.body_of(parts)
            except OSError as error:
                # For instance, memory that cannot be handed over.
                self._runner.fail(request, error)
                return
        if request.printed and self._printer is not None:
            self._printer.answer(kind, flags, request, parts, cause)
        else:
            self._writer.write(kind, request.number, parts, flags, cause)

    def _send_items(
        self, request: Request, parts: Sequence[bytes | memoryview], before: int
    ) -> None:
        self._answer(frame.ITEMS, request, parts, before)

    def _report_slots(self, reports: bytes) -> None:
        self._writer.write(frame.SLOTS, 0, (reports,))

    def _writer_of(self, request: Request) -> FrameWriter:
        """Return the writer for the answer of a request."""
        is_printed = request.printed and self._printer is not None
        return self._printer.writer if is_printed else self._writer  # type: ignore[union-attr]

    def _log(self, parts: Sequence[bytes | memoryview]) -> None:
        if self._printer is not None:
            self._printer.log(parts)
        else:
            self._writer.write(frame.LOG, 0, parts)

    def _frame(  # noqa: PLR0913 - the fields of a frame
        self, kind: int, flags: int, number: int, cause: int, body: Body, sinks: Sequence[Sink]
    ) -> None:
        if kind in _AWAITED:
            hold = objects.table.hold() if may_contain(body, objects.NAME) else None
            take = self._client.answer if kind in _ANSWERS else self._client.feed
            take(number, Answer(kind, body, sinks, hold))
            return
        if kind == frame.CREDIT:
            self._credit(number, body)
            return
        request = Request(number)
        if cause:
            request.cause = cause
        if self._waiting:
            self._waits.take(kind, request, flags, body, sinks)
        else:
            # Never from the reader's callback: if a patch allows it, the code may itself run the event
            # loop, which cannot call that callback again meanwhile. The loop keeps the order.
            self._loop.call_soon(self._work, kind, request, flags, body, sinks)

    def _work(
        self, kind: int, request: Request, flags: int, body: Body, sinks: Sequence[Sink]
    ) -> None:
        if not (self.ended or in_child() or (self._unwanted and self._is_skipped(kind, request))):
            try:
                how = self._hows.get(kind)
                if how is None:
                    self._works[kind](request, flags, body, sinks)
                else:
                    self._begin(how, request, flags, body, sinks)
            except MemoryError:
                # In our own code: there is not even enough memory to begin.
                self._exhausted()

    def _is_skipped(self, kind: int, request: Request) -> bool:
        """Return whether a request was cancelled while it was in the event loop's queue."""
        return kind != frame.CANCEL and request.number in self._unwanted

    def _begin(
        self,
        how: How,
        request: Request,
        flags: int,
        body: Body,
        sinks: Sequence[Sink],
    ) -> None:
        """Begin a request with the fields of its body. If they cannot be loaded, it fails."""
        if sinks or len(body) > _SMALL or _STACK_GLOBAL in body:
            # Loading may take a while, and may run user code.
            fields = self._loaded(request, body, sinks, self._runner.fail)
            if request.ended:
                return
        else:
            try:
                fields = loads(body)  # from the VM, which could run any code anyway
            except BaseException as error:  # noqa: BLE001 - whatever is wrong with it
                self._runner.fail(request, error)
                return
        if flags & frame.STREAM:
            self._streams.begin(how, request, flags, fields)
        else:
            self._runner.begin(how, request, flags, fields)

    def _credit(self, number: int, body: Body) -> None:
        try:
            self._streams.credit(number, body)
        except struct.error as error:
            self._input_ended(frame.FrameError(f"a CREDIT frame cannot be decoded: {error!r}"))
        except MemoryError:
            # There was no memory to put together the items that are due.
            self._exhausted()

    def _cancel(self, request: Request, _flags: int, _body: Body, _sinks: Sequence[Sink]) -> None:
        self._runner.cancel(request.number)

    def _map(self, request: Request, flags: int, body: Body, sinks: Sequence[Sink]) -> None:
        fields = self._loaded(request, body, sinks, self._maps.refuse)
        if not request.ended:
            self._maps.begin(request, flags, fields)

    def _loaded(self, request: Request, body: Body, sinks: Sequence[Sink], fail: Fail) -> Any:  # noqa: ANN401
        return self._envs.root.context.copy().run(self._load, request, body, sinks, fail)

    def _load(self, request: Request, body: Body, sinks: Sequence[Sink], fail: Fail) -> Any:  # noqa: ANN401
        enter(request)
        try:
            if may_contain(body, b"__main__"):
                # Such as an object of a class that the environment's code defined.
                request.names = self._envs.get(_env_id(body)).names
            return load(body, sinks)
        except BaseException as error:  # noqa: BLE001 - constructors of the user's classes
            self._client.close_streams(body)
            fail(request, error)
            return None

    def _drop(self, _request: Request, _flags: int, body: Body, _sinks: Sequence[Sink]) -> None:
        try:
            for kind, counts in drops(body).items():
                self._tables[kind].drop(counts)
        except Exception as error:  # noqa: BLE001 - there is nobody to be told but the VM itself
            self._input_ended(frame.FrameError(f"a DROP frame cannot be decoded: {error!r}"))

    def _make_env(self, request: Request, _flags: int, body: Body, sinks: Sequence[Sink]) -> None:
        self._envs.root.context.copy().run(self._make_env_for, request, body, sinks)

    def _make_env_for(self, request: Request, body: Body, sinks: Sequence[Sink]) -> None:
        enter(request)
        try:
            fields: Any = load(body, sinks)
            env_id, parents, variables = fields
            self._envs.make(env_id, parents, variables or {})
        except BaseException as error:  # noqa: BLE001 - constructors of the user's classes
            self._runner.fail(request, error)
        else:
            self._runner.succeed(request, encode(None))


def _env_id(body: Body) -> int | None:
    """Return the first field of a pickled EVAL request without loading the others."""
    # After PROTO, FRAME (which pickles from the VM do not have) and the MARK of the tuple.
    start = 12 if body[2] == _FRAME else 3
    long = body[start] == _LONG1
    size = 2 + body[start + 1] if long else _INT_SIZES.get(body[start], 1)
    return loads(bytes(body[start : start + size]) + b".")  # type: ignore[no-any-return]


def _number(loop: asyncio.AbstractEventLoop, name: str) -> int:
    """Return a descriptor of an event loop, or -1 if it is unknown."""
    opened: Any = getattr(loop, name, None)
    return opened.fileno() if hasattr(opened, "fileno") else -1


def _nothing() -> None:
    pass


def _ignore(_full: bool) -> None:  # noqa: FBT001 - the writer's callback
    pass
