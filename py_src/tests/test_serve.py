"""Processes that an interpreter serves, with a VM that is only a pair of pipes."""

from __future__ import annotations

import asyncio
import pickle
import socket
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest
from support.etf import A, MapSet, decode
from support.vm import BUFFERS, CALL, CALL_ERROR, CALL_RESULT, CAST, VM, place, with_buffers

from snex._elixir.serve import _greeted
from snex._wire import frame
from snex._wire.body import join, load, split
from snex._wire.frame import FrameError
from snex._wire.stream import HIGH, FrameStream, read_frame

if TYPE_CHECKING:
    from pathlib import Path

LOG = 0x8A

CHILD = """
import asyncio, logging, socket, sys, snex

async def main():
    streams = await asyncio.open_connection(sock=socket.socket(fileno=int(sys.argv[1])))
    async with snex.serve(*streams):
        await use()

async def use():
    logging.getLogger().addHandler(snex.LoggingHandler())
    logging.getLogger().setLevel("INFO")
    big, text = await snex.call("Elixir.Big", "value", [{1, 2}])
    assert (len(big), text) == (100_000, "é" * 50_000)
    try:
        await snex.call("Elixir.Bad", "value", [])
    except snex.ElixirError as error:
        assert (error.kind, str(error)) == ("exit", "gone")
    try:
        await snex.call("Elixir.Bad", "value", [snex.keep(object())])
    except TypeError as error:
        assert "cannot stay in a served process" in str(error)
    await asyncio.to_thread(logging.info, "from a thread")
    await snex.cast("Elixir.Last", "words", [])

asyncio.run(main())
"""

FOREVER = """
import asyncio, socket, sys, snex

async def main():
    streams = await asyncio.open_connection(sock=socket.socket(fileno=int(sys.argv[1])))
    await snex.serve_forever(*streams, on_ready=ready)

async def ready():
    assert await snex.call("Elixir.Own", "name", []) == "own"

asyncio.run(main())
"""

PARENT = """
import asyncio, socket, sys
ours, theirs = socket.socketpair()
process = await asyncio.create_subprocess_exec(
    sys.executable, child, str(theirs.fileno()), pass_fds=[theirs.fileno()]
)
theirs.close()
await snex.io_loop_for_connection(*await asyncio.open_connection(sock=ours))
return await process.wait()
"""


def test_calls_of_a_served_process_pass_through_the_interpreter(vm: VM, tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text(textwrap.dedent(CHILD))
    request = vm.eval(PARENT, variables={"child": str(child)})

    number, body = vm.expect(CALL)
    _node, module, _function, [members], _opts = decode(body)
    assert (module, members) == (A("Elixir.Big"), MapSet(frozenset({1, 2})))
    buffers = [(0, bytes(100_000)), (1, ("é" * 50_000).encode())]
    answer = with_buffers((place(), place()), buffers)
    vm.send(CALL_RESULT, number, answer, BUFFERS)

    number, body = vm.expect(CALL)
    assert decode(body)[1] == A("Elixir.Bad")
    fields: dict[str, object] = {
        "kind": "exit",
        "reason": None,
        "message": "gone",
        "stacktrace": [],
    }
    vm.send(CALL_ERROR, number, pickle.dumps(fields))

    _, body = vm.expect(LOG)
    level, message, _metadata = decode(body)
    assert (level, message) == (A("info"), b"from a thread")
    _, body = vm.expect(CAST)
    assert decode(body)[1] == A("Elixir.Last")
    assert vm.reply(request) == 0


def test_a_process_is_served_until_the_interpreter_closes_the_connection(
    vm: VM, tmp_path: Path
) -> None:
    child = tmp_path / "child.py"
    child.write_text(textwrap.dedent(FOREVER))
    closing = PARENT.replace(
        "await snex.io_loop_for_connection(",
        "relay = asyncio.ensure_future(snex.io_loop_for_connection(",
    ).replace("sock=ours))", "sock=ours)))")
    assert closing != PARENT
    vm.run(closing.replace("return await process.wait()", ""), variables={"child": str(child)})
    number, _ = vm.expect(CALL)
    vm.send(CALL_RESULT, number, pickle.dumps("own"))
    vm.run("relay.cancel()")
    assert vm.run("return await process.wait()") == 0


def test_another_protocol_is_refused() -> None:
    with pytest.raises(FrameError, match=r"in the interpreter speaks protocol 99"):
        _greeted(pickle.dumps({"protocol": 99, "version": "9.9"}))


def test_a_body_with_buffers_is_taken_apart_and_joined_again() -> None:
    buffers = [(0, b"bytes"), (1, "tëxt".encode()), (2, b"bytearray"), (3, b"view")]
    body = with_buffers([place() for _ in buffers], buffers)
    pickled, sinks = split(body)
    assert b"".join(join(pickled, sinks)) == body
    value = load(pickled, sinks)
    assert value == [b"bytes", "tëxt", bytearray(b"bytearray"), b"view"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"abc", "no room"),
        (b"\xff\xff\xff\xff", "does not fit"),
        (b"\x01\0\0\0" + b"\x09" + bytes(8), "unknown type 9 in a table of 1 buffers"),
        (b"\x01\0\0\0" + b"\x01" + b"\xff" * 8, r"announces \d+ bytes, but only 0 follow it"),
    ],
)
def test_a_table_of_buffers_that_is_wrong_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        split(body)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\nHost: nowhere", "expected a frame, got b'GET /"),
        (frame.encode_header(frame.EVAL, 1, 0), "unknown frame kind 0x02"),
        (frame.encode_header(frame.CALL, 1, 100) + b"abc", "ended after 3 of 100 bytes"),
        (b"SX", "ended after 0 of 26 bytes"),
    ],
)
def test_garbage_on_a_stream_is_named(data: bytes, why: str) -> None:
    async def main() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        with pytest.raises(FrameError, match=why):
            await read_frame(reader, frame.SERVING)

    asyncio.run(main())


async def _pair() -> tuple[FrameStream, socket.socket, asyncio.StreamWriter]:
    ours, theirs = socket.socketpair()
    _reader, writer = await asyncio.open_connection(sock=ours)
    theirs.settimeout(0)
    stream = FrameStream(writer)
    assert stream.full
    stream.open()
    assert not stream.full
    return stream, theirs, writer


def test_who_writes_waits_while_nobody_reads() -> None:
    async def main() -> None:
        stream, theirs, writer = await _pair()
        stream.write(frame.CAST, 0, [bytes(2 * HIGH)])
        assert stream.full
        room = asyncio.Event()
        assert stream.when_drained(room.set)
        loop = asyncio.get_running_loop()
        left = 2 * HIGH + frame.HEADER_SIZE
        while left:
            left -= len(await loop.sock_recv(theirs, 1 << 20))
        await room.wait()
        assert not stream.full
        await stream.close()
        theirs.close()
        assert writer.is_closing()

    asyncio.run(main())


def test_what_other_threads_send_counts_before_it_gets_there() -> None:
    async def main() -> None:
        stream, theirs, _writer = await _pair()
        # The loop does not run meanwhile.
        thread = threading.Thread(target=stream.write, args=(frame.CAST, 0, [bytes(2 * HIGH)]))
        thread.start()
        thread.join()
        assert stream.full
        theirs.close()
        broken = asyncio.Event()
        assert stream.when_drained(broken.set)
        await broken.wait()
        await stream.close()
        assert stream.broken

    asyncio.run(main())
