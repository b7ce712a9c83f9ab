"""How large what is sent to the VM may be: the option `limits: [reply: bytes]`."""

from __future__ import annotations

import asyncio
import logging
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from support.etf import A, decode
from support.memory import needs_tracing, tracing
from support.vm import CALL_RESULT, SEND, VM, PythonError, text

from snex import Atom, DistinctAtom, Term, set_custom_encoder
from snex._elixir.logging import LoggingHandler
from snex._etf.encoder import encode, encode_pure, set_reply_limit
from snex._wire import frame
from snex._wire.frame import SPARE, FrameError, Limit, TooLargeError
from snex._wire.stream import read_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGE = 70_000
CALL, LOG = 0x85, 0x8A


@pytest.fixture(autouse=True)
def _usual_limit() -> Iterator[None]:
    yield
    set_reply_limit(2 << 30)


class Other:
    pass


encoders = pytest.mark.parametrize("encoder", [encode, encode_pure])


@encoders
@pytest.mark.parametrize(
    "value",
    [
        None,
        2**70,
        2**3000,
        "x" * LARGE,
        "é" * LARGE,
        b"x" * LARGE,
        bytearray(LARGE),
        memoryview(bytes(LARGE)).cast("I"),
        memoryview(bytes(2 * LARGE))[::2],
        Term(b"\x83m\x00\x01\x11\x70" + bytes(LARGE)),
        [],
        list(range(1000)),
        [1.5, 2.5] * 100,
        ["é" * 20] * 50,
        [None, True, "a", b"b", Atom("c"), 300, 1e300, 2**40, -1] * 20,
        ("x" * 300, [b"x" * LARGE, {"key": ["x" * LARGE] * 9}], "y"),
        [b"x" * LARGE] * 9,
        {str(n): n for n in range(200)},
        [{"id": 1, "name": "x", "k" * 40: 2}] * 40,
        {1: {1, 2}, b"1": frozenset({"a", b"b"}), (1, "z" * 99): None},
        {("x" * LARGE, 1): 1},
        set(range(50)),
        [[[[]]]] * 30,
        {DistinctAtom("a"): Atom("b" * 200)},
        [Other(), Other()],
    ],
)
def test_a_value_of_just_the_limit_is_sent_and_no_larger_one(
    encoder: Callable[..., Any], value: object
) -> None:
    set_custom_encoder(lambda _: ["other"] * 5)
    size = len(b"".join(encoder(value)))
    set_reply_limit(size)
    whole = b"".join(encoder(value))
    assert len(whole) == size
    for smaller in sorted({0, size // 3, size // 2, size - 1}):
        set_reply_limit(smaller)
        with pytest.raises(ValueError, match="too large for Elixir: at least ") as caught:
            encoder(value)
        words = str(caught.value).split()
        at_least, limit = (
            int(words[words.index("least") + 1]),
            int(words[words.index("is") + 1].strip(",")),
        )
        assert limit == smaller < at_least <= size
        assert "limits: [reply: bytes]" in str(caught.value)
        assert b"".join(encoder(value, size - smaller)) == whole
        with pytest.raises(TooLargeError):
            encoder(value, size - smaller - 1)


@encoders
def test_handles_count_with_their_numbers(encoder: Callable[..., Any]) -> None:
    value = [Other() for _ in range(100)]
    parts = encoder(value, auto=True)
    size = len(b"".join(parts)) + 8 * len(value)
    set_reply_limit(size)
    assert encoder(value, auto=True) == parts
    set_reply_limit(size - 1)
    with pytest.raises(TooLargeError, match=f"at least {size} bytes"):
        encoder(value, auto=True)


@encoders
@needs_tracing
@pytest.mark.parametrize(
    "value",
    [
        ["x" * 60_000] * 20_000,
        [["x" * 1000, 1]] * 200_000,
        ["x" * 1_000_000] * 1000,
        [2**2000] * 1_000_000,
        {"x" * 100_000_000},
        [{b"x" * 1000, n} for n in range(100_000)],
        {(n, "x" * 2000): 1 for n in range(200_000)},
    ],
    ids=["strings", "lists", "large strings", "numbers", "one string", "sets", "keys"],
)
def test_what_is_far_too_large_is_not_built_up(encoder: Callable[..., Any], value: object) -> None:
    set_reply_limit(1_000_000)
    with tracing() as peak, pytest.raises(TooLargeError):
        encoder(value)
    # One leaf may be encoded as a whole, and what is counted at a time.
    assert peak[0] < 150_000_000


def test_the_error_survives_pickling() -> None:
    set_reply_limit(1)
    with pytest.raises(TooLargeError) as caught:
        encode("text")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.fixture
def limited() -> Iterator[VM]:
    with VM(hello={"reply_limit": 1000}) as vm:
        vm.ready()
        yield vm


@pytest.mark.parametrize(
    "code", ["return 'x' * 1000", "import asyncio\nawait asyncio.sleep(0)\nreturn list(range(500))"]
)
def test_a_result_that_is_too_large_is_an_error_of_that_call(limited: VM, code: str) -> None:
    for thread in (False, True):
        with pytest.raises(PythonError, match="and the limit is 1000") as caught:
            limited.run(code, thread=thread)
        assert caught.value.fields["code"] == "python_runtime_error"
    assert limited.run("return 'x' * 990") == b"x" * 990


def test_messages_and_calls_that_are_too_large_are_errors_where_they_are_made(limited: VM) -> None:
    tried = """
    failed = []
    for request in (
        lambda: snex.send(1, 'x' * 1000),
        lambda: snex.cast('m', 'f', ['x' * 1000]),
        lambda: snex.call('m', 'f', [range(1000), 'x' * 1000][1:]),
    ):
        try:
            await request()
        except ValueError as error:
            failed.append('the limit is 1000' in str(error))
    await snex.send(1, 'small')
    return failed
    """
    request = limited.eval("if True:" + tried)
    number, body = limited.expect(SEND)
    assert decode(body) == (1, b"small")
    limited.send(CALL_RESULT, number, pickle.dumps(None))
    assert limited.reply(request) == [True, True, True]


def test_an_error_arrives_even_if_it_is_larger_than_the_limit(limited: VM) -> None:
    with pytest.raises(PythonError) as caught:
        limited.run("raise ValueError('x' * 100_000)")
    assert caught.value.fields["reason"] == "x" * 100_000


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError('é' * 3_000_000)",
        "error = ValueError('é' * 1100)\nerror.__notes__ = ['é' * 3_000_000] * 9\nraise error",
        "raise type('é' * 3_000_000, (Exception,), {})('é' * 1100)",
        "try:\n  raise ValueError('z' * 3_000_000)\nexcept ValueError:\n  raise ValueError('é' * 1100)",
    ],
)
def test_of_an_error_that_is_too_large_the_beginning_arrives(limited: VM, code: str) -> None:
    with pytest.raises(PythonError) as caught:
        limited.run(code)
    fields = caught.value.fields
    assert fields["reason"] == "é" * 1000 + "..."
    assert fields["exception"]["module"] in {"builtins", "__main__"}
    assert limited.run("return 1") == 1


def test_of_a_name_that_is_too_large_the_beginning_is_shown(limited: VM) -> None:
    with pytest.raises(PythonError, match="nnn[.]{3}$") as caught:
        limited.make_env(1, [(0, 1, ["n" * 3_000_000])], {})
    assert caught.value.fields["code"] == "env_key_not_found"


def test_what_is_logged_is_shortened() -> None:
    events: list[Any] = []

    class Client:
        def log(self, parts: Any) -> None:
            events.append([text(part) for part in decode(b"".join(parts))])

    from snex._elixir import client

    client.use(Client())  # type: ignore[arg-type]
    try:
        set_reply_limit(100)
        logger = logging.getLogger("snex.too_large")
        logger.propagate = False
        logger.addHandler(LoggingHandler(extra_metadata_keys={"more"}))
        logger.warning("x" * 3_000_000, extra={"more": ["y"] * 1_000_000})
        logger.warning("not %s", "much")
    finally:
        client.use(None)
    (_, message, metadata), (_, small, _) = events
    assert message.startswith("x" * 1000 + "... (too large for Elixir")
    more = metadata[A("more")]
    assert more.startswith("['y', 'y'")
    assert len(more) < 1500
    assert small == "not much"


def test_what_a_served_process_sends_is_refused_before_it_is_read() -> None:
    async def main() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(frame.encode_header(LOG, 0, 1001))
        with pytest.raises(FrameError, match="0x8a has 1001 bytes, more than the limit of 1000"):
            await read_frame(reader, frame.SERVING, 1000)
        reader.feed_data(frame.encode_header(CALL, 7, 1000) + bytes(1000))
        assert await read_frame(reader, frame.SERVING, 1000) == (CALL, 0, 7, bytes(1000))

    asyncio.run(main())


SERVED = """
import asyncio, os, socket, sys, threading
from snex._wire import frame
ours, theirs = socket.socketpair()
theirs.sendall(frame.encode_header(frame.CALL, 1, {length}))
try:
    await snex.io_loop_for_connection(*await asyncio.open_connection(sock=ours))
except frame.FrameError as error:
    hello = __import__("pickle").loads(theirs.recv(1 << 16)[20:])
    return str(error), hello["reply_limit"]
"""


def test_the_interpreter_tells_a_served_process_and_holds_it_to_it(limited: VM) -> None:
    error, limit = limited.run(SERVED.format(length=1000 + SPARE + 1))
    assert f"has {1000 + SPARE + 1} bytes".encode() in error
    assert limit == 1000


def test_a_served_process_keeps_to_it() -> None:
    from snex._elixir import serve

    hello = {"protocol": 4, "version": "1", "map_set": (b"t\0\0\0\2", b"j"), "reply_limit": 77}
    from snex._etf.encoder import Settings

    before = Settings.set_head, Settings.set_member
    try:
        serve._greeted(pickle.dumps(hello))
        assert Limit.reply == 77
    finally:
        Settings.set_head, Settings.set_member = before
