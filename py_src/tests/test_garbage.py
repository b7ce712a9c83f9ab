"""Bytes that no VM of ours sends: what the parsers make of them, and what a real interpreter does."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.vm import (
    AUTO,
    BUFFERS,
    DROP,
    ERROR,
    EVAL,
    HEADER,
    INVOKE,
    MAKE_ENV,
    OBJECT,
    PATIENCE,
    RESULT,
    THREAD,
    VM,
    dumps,
    frame,
    place,
    with_buffers,
)

from snex._wire.body import IN_SLOT, RECORD, join, split
from snex._wire.frame import HEADER_SIZE, INCOMING, MAP, FrameError, parse_header
from snex._wire.sinks import AHEAD

if TYPE_CHECKING:
    from collections.abc import Iterator

# Interpreters that get garbage; each is started for it.
EXAMPLES = int(os.environ.get("SNEX_GARBAGE", "25"))
# Bytes that an interpreter may take beyond what one takes that gets none: far less than any lie. Some
# fill what they reserve, and collect garbage late.
MAX_MORE = 4 * AHEAD

lengths = st.one_of(
    st.integers(0, 300),
    st.sampled_from([2**16, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1]),
)
bodies = st.binary(max_size=300)
texts = st.text("x.\0é", max_size=5)
leaves = st.none() | st.booleans() | st.integers() | texts | st.binary(max_size=9)
values = leaves | st.lists(leaves, max_size=3) | st.dictionaries(texts, leaves, max_size=3)
# Bytes of each arena.
SHARED_MEMORY = 1 << 20
# What the VM sends, by the kind of frame.
REQUESTS: dict[int, tuple[object, ...]] = {
    EVAL: (0, "return x", "file", 1, {"x": 1}, 5, "traceparent"),
    MAKE_ENV: (7, [(0, 1, ["x"])], {"x": 1}),
    INVOKE: (0, "math", "sqrt", (4,), {}, 5, "traceparent"),
    MAP: (None, "math", "sqrt", ([4, 9], False), {}, 5, "traceparent"),
}


@st.composite
def requests(draw: st.DrawFn, kind: int) -> bytes:
    """Draw the body of a request, with anything in the place of some of its fields."""

    def changed(fields: tuple[object, ...]) -> tuple[object, ...]:
        some = list(fields)
        for index, field in enumerate(fields):
            if type(field) is tuple and draw(st.booleans()):
                some[index] = changed(field)
        if draw(st.booleans()) and some:
            some[draw(st.integers(0, len(some) - 1))] = draw(values)
        return tuple(some[: draw(st.one_of(st.just(len(some)), st.integers(0, len(some))))])

    return dumps(changed(REQUESTS[kind]))


records = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)), max_size=4
).map(lambda drawn: b"".join(RECORD.pack(*record) for record in drawn))


def bodies_of(kind: int) -> st.SearchStrategy[bytes]:
    """Return what draws the body of a frame that is right, or nearly."""
    if kind in REQUESTS:
        return requests(kind)
    return records if kind == DROP else values.map(pickle.dumps)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """Draw a body with a table of buffers that may say anything."""
    types = st.integers(0, 5) | st.integers(IN_SLOT, IN_SLOT + 5)
    entries = draw(st.lists(st.tuples(types, lengths), max_size=4))
    count = draw(st.one_of(st.just(len(entries)), st.integers(0, 2**32 - 1)))
    table = b"".join(struct.pack("<BQ", *entry) for entry in entries)
    return struct.pack("<I", count) + table + draw(bodies)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Draw a frame that is wrong somewhere, or not."""
    kind = draw(st.one_of(st.sampled_from(sorted(INCOMING)), st.integers(0, 255)))
    flags = draw(st.sampled_from([0, 0, BUFFERS, BUFFERS, 2, 0x20, 0x80, 255]))
    body = draw(tables() if flags == BUFFERS else bodies | bodies_of(kind))
    length = draw(st.one_of(st.just(len(body)), st.just(len(body)), lengths))
    number, cause = draw(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)))
    return HEADER.pack(b"SX", kind, flags, number, length, cause) + body


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Draw frames, changed and cut."""
    data = bytearray(b"".join(draw(st.lists(st.one_of(frames(), bodies), min_size=1, max_size=4))))
    if data:
        for at, byte in draw(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3)):
            data[at % len(data)] = byte
    return bytes(data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))])


@given(st.one_of(st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE), frames()))
def test_a_header_is_read_or_refused(data: bytes) -> None:
    try:
        kind, flags, _number, _length, _cause = parse_header(data)
    except FrameError:
        pass
    else:
        assert data[:2] == b"SX"
        assert kind in INCOMING
        assert not flags & ~0x6F


@given(st.one_of(bodies, tables()))
def test_a_table_of_buffers_fits_or_is_refused(body: bytes) -> None:
    try:
        pickled, sinks = split(body)
    except FrameError:
        pass
    else:
        assert b"".join(join(pickled, sinks)) == body


def run(garbage: bytes) -> tuple[int, str, int]:
    """Return how an interpreter ends that gets garbage: status, last words, most bytes in memory."""
    arenas = [os.memfd_create("test") for _ in range(2)]
    with contextlib.ExitStack() as stack:
        for arena in arenas:
            stack.callback(os.close, arena)
            os.ftruncate(arena, SHARED_MEMORY)
        shared = tuple((arena, SHARED_MEMORY) for arena in arenas)
        vm = stack.enter_context(VM(hello={"shared": shared}, pass_fds=tuple(arenas)))
        assert vm.ready()["shared"] is True
        assert vm.run("return 1") == 1
        # One that does not end by itself is not waited for.
        watchdog = threading.Timer(PATIENCE, vm.process.kill)
        watchdog.start()
        with contextlib.suppress(BrokenPipeError):
            os.write(vm.out_fd, garbage)
        vm.hang_up()
        errors = vm.errors()
        _, status, usage = os.wait4(vm.process.pid, 0)
        watchdog.cancel()
        vm.process.returncode = os.waitstatus_to_exitcode(status)
        return vm.process.returncode, errors, usage.ru_maxrss * 1024


@pytest.fixture(scope="module")
def usual() -> int:
    status, errors, memory = run(b"")
    assert (status, errors) == (0, "")
    return memory


def check(garbage: bytes, usual: int) -> tuple[int, str]:
    status, errors, memory = run(garbage)
    assert status in {0, 70}
    if status == 70:
        # One line, and nothing behind it.
        assert errors.startswith("snex: invalid input: ")
        assert errors.count("\n") == 1
        assert "Traceback" not in errors
        assert len(errors) < 1000
    else:
        assert errors == ""
    assert memory - usual < MAX_MORE
    return status, errors


@pytest.mark.skipif(sys.platform != "linux", reason="bytes in memory are counted in other units")
class TestAnInterpreter:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize="SNEX_GARBAGE" not in os.environ,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
    )
    @given(garbage=streams())
    def test_ends_with_one_clear_line_or_in_good_order(self, usual: int, garbage: bytes) -> None:
        check(garbage, usual)

    @pytest.mark.parametrize(
        ("garbage", "named"),
        [
            (HEADER.pack(b"SX", 0x83, 0, 1, 0, 0), "0x83"),
            (HEADER.pack(b"SX", 0, 0, 1, 2**63, 0), "0x00"),
            (HEADER.pack(b"SX", EVAL, 0xFF, 1, 2**63, 0), "0xff"),
            (HEADER.pack(b"XS", EVAL, 0, 1, 0, 0), "XS"),
            (frame(EVAL, 1, b"", BUFFERS), "0 bytes"),
            (frame(EVAL, 1, b"\xff\xff\xff\xff", BUFFERS), "4294967295"),
            (frame(EVAL, 1, struct.pack("<IBQ", 1, 0, 2**63), BUFFERS), "table of 1"),
            (frame(EVAL, 1, struct.pack("<IBQ", 1, 255, 0), BUFFERS), "table of 1"),
            (frame(EVAL, 1, struct.pack("<IBQQ", 1, IN_SLOT | 3, 1, 1 << 20), BUFFERS), "1048576"),
            (frame(EVAL, 1, struct.pack("<IBQQ", 1, IN_SLOT | 2, 1 << 20, 1), BUFFERS), "1048576"),
            (frame(EVAL, 1, struct.pack("<IBQ", 1, IN_SLOT, 1), BUFFERS), "table of 1"),
            (frame(EVAL, 1, with_buffers([place()], [(0, b"")]), BUFFERS) + b"?", "?"),
        ],
    )
    def test_names_what_it_has_seen(self, usual: int, garbage: bytes, named: str) -> None:
        status, errors = check(garbage, usual)
        assert status == 70
        assert named in errors

    @pytest.mark.parametrize("length", [1, 2**20, 2**31, 2**40, 2**63, 2**64 - 1])
    @pytest.mark.parametrize("flags", [0, BUFFERS])
    def test_believes_no_length(self, usual: int, length: int, flags: int) -> None:
        # Two buffers that claim to be as long as can be.
        table = struct.pack("<IBQBQ", 2, 0, length, 2, 2**64 - 1 - length)
        body = table[: length - 1] if flags else b""
        check(HEADER.pack(b"SX", EVAL, flags, 1, length, 0) + body, usual)


@pytest.fixture(scope="module")
def one() -> Iterator[VM]:
    with VM() as vm:
        vm.ready()
        yield vm


@pytest.mark.parametrize("kind", sorted(REQUESTS))
@settings(
    max_examples=4 * EXAMPLES,
    deadline=None,
    derandomize="SNEX_GARBAGE" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_request_is_answered_whatever_its_fields_are(one: VM, kind: int, data: Any) -> None:
    flags = data.draw(st.sampled_from([0, THREAD, AUTO, OBJECT]))
    number = one.next_id
    one.next_id += 1
    one.send(kind, number, data.draw(requests(kind)), flags)
    while one.read()[:2] not in {(RESULT, number), (ERROR, number)}:
        pass
    assert one.run("return 1") == 1
