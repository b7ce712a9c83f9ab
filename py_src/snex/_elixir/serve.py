"""Other processes that share the interpreter's connection.

A process that user code starts can't use the descriptors of the interpreter. It sends frames over
a pair of streams instead, and the interpreter relays them: bodies unchanged, with numbers of its own.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from .._etf.encoder import Settings, set_reply_limit
from .._version import PROTOCOL, VERSION
from .._wire import frame
from .._wire.body import dumps, join, loads, split
from .._wire.stream import FrameStream, read_first, read_frame
from . import client
from .answers import Answer
from .client import Client, drain, wait_for_room

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .client import Parts

_CLOSED = "the connection to the interpreter is closed"
_CONNECTED = "this process is already connected to the VM"


class _Relay:
    """The interpreter's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._client = client.current()
        self._reader = reader
        self._writer = FrameStream(writer)
        # The calls without an answer: their numbers in the served process, and ours.
        self._calls: dict[int, int] = {}
        self._writer.open()

    async def run(self) -> None:
        """Pass frames on until the other end closes."""
        hello = {
            "protocol": PROTOCOL,
            "version": VERSION,
            "map_set": (Settings.set_head, Settings.set_member),
            "structs": Settings.structs,
            "reply_limit": frame.Limit.reply,
        }
        self._writer.write(frame.HELLO, 0, [dumps(hello)])
        try:
            # A longer frame would end the interpreter.
            most = frame.Limit.reply + frame.SPARE
            while (received := await read_frame(self._reader, frame.SERVING, most)) is not None:
                await self._pass_on(*received)
                # A process that does not read its answers gets no more of them.
                await drain(self._writer)
        finally:
            for number in self._calls.values():
                self._client.forget(number)
            await self._writer.close()

    async def _pass_on(self, kind: int, _flags: int, number: int, body: bytes) -> None:
        if kind == frame.LOG:
            self._client.log([body])
            return
        await self._client.drain()
        if kind == frame.CAST:
            self._client.pass_on(kind, [body])
        else:
            self._calls[number] = 0
            ours = self._client.pass_on(kind, [body], lambda answer: self._answer(number, answer))
            # The answer may have come first.
            if number in self._calls:
                self._calls[number] = ours

    def _answer(self, number: int, answer: Answer | BaseException) -> None:
        # On the thread of the interpreter's own event loop.
        self._calls.pop(number, None)
        if isinstance(answer, Answer):
            # The served process cannot use streams; it gets an error when it loads this.
            self._client.close_streams(answer.body)
            if answer.sinks:
                parts = join(answer.body, answer.sinks)
                self._writer.write(answer.kind, number, parts, frame.BUFFERS)
            else:
                self._writer.write(answer.kind, number, [memoryview(answer.body)])
        # Otherwise the connection to the VM is closed: the interpreter ends, and this connection with it.


async def io_loop_for_connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Connect another process to the VM, until it closes its end of the streams. Called in the interpreter.

    It can be the callback of a server, which then accepts any number of processes. Any process that can
    connect can call Elixir.

    Args:
        reader: the stream from the process, which uses `serve` or `serve_forever`.
        writer: the stream to the process. It is closed at the end.

    Raises:
        RuntimeError: outside of an interpreter.
        FrameError: for garbage on the stream.

    Example:
        ```python
        async with await asyncio.start_unix_server(snex.io_loop_for_connection, path):
            process = await asyncio.create_subprocess_exec("python", "worker.py", path)
            await process.wait()
        ```
    """
    await _Relay(reader, writer).run()


class _Connection:
    """The other process's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if client.is_connected():
            raise RuntimeError(_CONNECTED)
        self._reader = reader
        self._frames = FrameStream(writer)
        self._client = Client(self._frames, self._log, has_objects=False)
        self._ready = asyncio.Event()
        client.use(self._client)
        # Ends when the interpreter closes the connection; cancelled, it sends what is left first.
        self.task = asyncio.ensure_future(self._run())

    async def until_ready(self) -> None:
        """Wait for the interpreter's greeting."""
        ready = asyncio.ensure_future(self._ready.wait())
        try:
            await asyncio.wait([ready, self.task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if not self._ready.is_set():
            await self.task
            raise RuntimeError(_CLOSED)

    async def close(self) -> None:
        """Send what is left and disconnect; raise the error that ended the connection, if any."""
        self.task.cancel()
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.result()

    def _log(self, parts: Parts) -> None:
        frames = self._frames
        if frames.is_here:
            # This thread is the one that makes room.
            frames.write(frame.LOG, 0, parts)
        else:
            wait_for_room(frames)
            frames.write(frame.LOG, 0, parts)
            # The process may end now, and the event loop's thread with it.
            frames.wait_until_sent()

    async def _run(self) -> None:
        try:
            hello = await read_first(self._reader, frame.HELLO)
            if hello is None:
                return
            _greeted(hello)
            self._frames.open()
            self._ready.set()
            while (received := await read_frame(self._reader, frame.SERVED)) is not None:
                kind, flags, number, body = received
                pickled, sinks = split(body) if flags else (body, [])
                self._client.answer(number, Answer(kind, pickled, sinks))
        finally:
            client.use(None, _CLOSED)
            self._client.close()
            await self._frames.close()


@asynccontextmanager
async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Use the VM in this process, which an interpreter has started, within an `async with` block.

    In the block, `send`, `cast`, `call`, their `_sync` variants and `LoggingHandler` work as in an
    interpreter, on any thread. The end of the block waits until everything has been sent, and closes the streams.

    Args:
        reader: the stream from the interpreter, which runs `io_loop_for_connection`.
        writer: the stream to the interpreter.

    Raises:
        RuntimeError: in an interpreter, and in a process that is already connected.
        FrameError: for garbage on the stream.

    Example:
        ```python
        async def main(path):
            async with snex.serve(*await asyncio.open_unix_connection(path)):
                print(await snex.Elixir.Enum.sum([1, 2, 3]))
        ```
    """
    connection = _Connection(reader, writer)
    try:
        await connection.until_ready()
        yield
    finally:
        await connection.close()


async def serve_forever(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    on_ready: Callable[[], object] | None = None,
) -> None:
    """Use the VM in this process, as `serve` does, until the interpreter closes the connection.

    Args:
        reader: the stream from the interpreter, which runs `io_loop_for_connection`.
        writer: the stream to the interpreter.
        on_ready: called once the VM can be used; if it returns an awaitable, that is awaited.

    Raises:
        RuntimeError: in an interpreter, and in a process that is already connected.
        FrameError: for garbage on the stream.

    Example:
        ```python
        async def main(path, connected: threading.Event):
            await snex.serve_forever(
                *await asyncio.open_unix_connection(path), on_ready=connected.set
            )
        ```
    """
    connection = _Connection(reader, writer)
    try:
        await connection.until_ready()
        result = on_ready() if on_ready is not None else None
        if isawaitable(result):
            await result
        await asyncio.wait([connection.task])
    finally:
        await connection.close()


def _greeted(body: bytes) -> None:
    hello: Any = loads(body)  # from the interpreter
    if hello["protocol"] != PROTOCOL:
        msg = (
            f"snex {VERSION} in this process speaks protocol {PROTOCOL}, "
            f"snex {hello['version']} in the interpreter speaks protocol {hello['protocol']}"
        )
        raise frame.FrameError(msg)
    Settings.set_head, Settings.set_member = hello["map_set"]
    Settings.structs = hello.get("structs")
    if "reply_limit" in hello:
        set_reply_limit(hello["reply_limit"])
