"""Other processes at the interpreter's connection.

A process that user code starts can't use the descriptors of the interpreter. It speaks frames over
a pair of streams instead, and the interpreter passes them on: bodies are relayed as they are, with
numbers of the interpreter's own.
"""

from __future__ import annotations

import asyncio
import pickle
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from . import _client, _frame
from ._answers import Answer
from ._body import join, split
from ._client import Client, drain, wait_for_room
from ._encoder import Settings
from ._stream import FrameStream, read_frame
from ._version import PROTOCOL, VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from ._client import Parts

# Seconds that a served process has, when its interpreter closes the connection, for what it has
# already sent to arrive.
_GRACE = 1.0

_CLOSED = "the connection to the interpreter is closed"
_CONNECTED = "this process has a connection to the VM already"


class _Relay:
    """The interpreter's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._client = _client.current()
        self._reader = reader
        self._stream = writer
        self._writer = FrameStream(writer)
        # The served process's number of each call that has no answer yet, and ours.
        self._calls: dict[int, int] = {}
        self._writer.open()

    async def run(self) -> None:
        """Pass frames on until the other end closes."""
        hello = {
            "protocol": PROTOCOL,
            "version": VERSION,
            "map_set": (Settings.set_head, Settings.set_member),
        }
        self._writer.write(_frame.HELLO, 0, [pickle.dumps(hello)])
        try:
            while (frame := await read_frame(self._reader, _frame.SERVING)) is not None:
                await self._pass_on(*frame)
                # Whoever does not read answers gets no more of them.
                await drain(self._writer)
        finally:
            for number in self._calls.values():
                self._client.forget(number)
            await self._writer.close()

    async def _pass_on(self, kind: int, _flags: int, number: int, body: bytes) -> None:
        if kind == _frame.LOG:
            self._client.log([body])
            return
        await self._client.drain()
        if kind == _frame.CAST:
            self._client.pass_on(kind, [body])
        else:
            self._calls[number] = 0
            ours = self._client.pass_on(kind, [body], lambda answer: self._answer(number, answer))
            # The answer may have overtaken us.
            if number in self._calls:
                self._calls[number] = ours

    def _answer(self, number: int, answer: Answer | BaseException) -> None:
        # On the thread of the interpreter's own event loop.
        self._calls.pop(number, None)
        if isinstance(answer, Answer):
            if answer.sinks:
                parts = join(answer.body, answer.sinks)
                self._writer.write(answer.kind, number, parts, _frame.BUFFERS)
            else:
                self._writer.write(answer.kind, number, [memoryview(answer.body)])
        # Otherwise the interpreter has closed; it ends, and this connection with it.

    def hang_up(self) -> None:
        """Tell the other end that no more will be answered."""
        if self._stream.can_write_eof() and not self._stream.is_closing():
            self._stream.write_eof()


async def serve_forever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve a process until it closes its end, and close ours.

    Also what `asyncio.start_unix_server` and `asyncio.start_server` call for each connection, so
    `await asyncio.start_unix_server(snex.serve_forever, path)` serves all who connect. Whoever can
    connect can call Elixir.

    Args:
        reader: what the process sends; it uses `io_loop_for_connection`.
        writer: where answers go.

    Raises:
        RuntimeError: outside of an interpreter.
        FrameError: for garbage on the stream.
    """
    await _Relay(reader, writer).run()


@asynccontextmanager
async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Serve a process within an `async with` block.

    At its end the connection is closed, after what the process has sent by then has been passed on.

    Args:
        reader: what the process sends; it uses `io_loop_for_connection`.
        writer: where answers go.

    Raises:
        RuntimeError: outside of an interpreter.
        FrameError: for garbage on the stream.

    Example:
        ```python
        ours, theirs = socket.socketpair()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "worker.py", str(theirs.fileno()), pass_fds=[theirs.fileno()]
        )
        theirs.close()
        async with snex.serve(*await asyncio.open_connection(sock=ours)):
            await process.wait()
        ```
    """
    relay = _Relay(reader, writer)
    task = asyncio.ensure_future(relay.run())
    try:
        yield
    finally:
        relay.hang_up()
        try:
            await asyncio.wait([task], timeout=_GRACE)
        finally:
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


def io_loop_for_connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Coroutine[Any, Any, None]:
    """Connect this process to the interpreter that serves the other end of the streams.

    From the call on, `send`, `cast`, `call`, their `_sync` variants and `LoggingHandler` work in this
    process, on any thread. The coroutine that is returned has to run for that, as a task; it returns when
    the interpreter closes the connection, and closes it when it is cancelled.

    Args:
        reader: what the interpreter sends.
        writer: where requests go.

    Raises:
        RuntimeError: in an interpreter itself, and in a process that has a connection.
        FrameError: from the coroutine, for garbage on the stream.

    Example:
        ```python
        async def main():
            sock = socket.socket(fileno=int(sys.argv[1]))
            streams = await asyncio.open_connection(sock=sock)
            io_loop = asyncio.create_task(snex.io_loop_for_connection(*streams))
            print(await snex.Elixir.Enum.sum([1, 2, 3]))
            io_loop.cancel()
        ```
    """
    if _client.is_connected():
        raise RuntimeError(_CONNECTED)
    frames = FrameStream(writer)

    def log(parts: Parts) -> None:
        if frames.is_here:
            # This thread is the one that makes room.
            frames.write(_frame.LOG, 0, parts)
        else:
            wait_for_room(frames)
            frames.write(_frame.LOG, 0, parts)
            # The process may end next, and the thread of the event loop with it.
            frames.wait_until_sent()

    client = Client(frames, log)
    _client.use(client)
    return _io_loop(reader, frames, client)


async def _io_loop(reader: asyncio.StreamReader, writer: FrameStream, client: Client) -> None:
    try:
        while (frame := await read_frame(reader, _frame.SERVED)) is not None:
            kind, flags, number, body = frame
            if kind == _frame.HELLO:
                _greeted(body)
                writer.open()
            else:
                pickled, sinks = split(body) if flags else (body, [])
                client.answer(number, Answer(kind, pickled, sinks))
    finally:
        _client.use(None, _CLOSED)
        client.close()
        await writer.close()


def _greeted(body: bytes) -> None:
    hello: Any = pickle.loads(body)  # noqa: S301 - from the interpreter
    if hello["protocol"] != PROTOCOL:
        msg = (
            f"snex {VERSION} in this process speaks protocol {PROTOCOL}, "
            f"snex {hello['version']} in the interpreter speaks protocol {hello['protocol']}"
        )
        raise _frame.FrameError(msg)
    Settings.set_head, Settings.set_member = hello["map_set"]
