from __future__ import annotations

import contextlib
import os
import pickle
import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.etf import decode
from support.garbage import keep_collecting
from support.slots import (
    BYTES,
    FREE,
    SIZE,
    STR,
    TAKEN,
    VIEW,
    memory_file,
    needs_memory_files,
    reports_of,
)
from support.vm import BUFFERS, DROP, ERROR, EVAL, RESULT, VM, place

from snex._wire.body import IN_SLOT
from snex._wire.outbound import MOST, PLACE, WORTH
from snex._wire.sinks import PICKLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = needs_memory_files

SLOTS = 0x8F


class Sharing:
    """An interpreter with shared memory, seen from the VM."""

    def __init__(self, vm: VM, to: int, back: int) -> None:
        self.vm = vm
        self.to = to
        self.back = back

    def eval(self, source: str, kind: int, data: bytes, offset: int = 0) -> int:
        """Send code with a buffer `x` in a slot."""
        os.pwrite(self.to, data, offset)
        fields = (0, source, None, 1, {"x": place()})
        pickled = pickle.dumps(fields, 5, buffer_callback=lambda _: None)
        table = struct.pack("<IBQ", 1, kind | IN_SLOT, len(data))
        number = self.vm.next_id
        self.vm.next_id += 1
        self.vm.send(EVAL, number, table + pickled + struct.pack("<Q", offset), BUFFERS)
        return number

    def eval_in_slot(
        self, source: str, value: object, buffer: bytes = b"", offset: int = 0, kind: int = BYTES
    ) -> int:
        """Send code with a value `x` and a buffer `y`; all of the pickle is in a slot."""
        fields = (0, source, None, 1, {"x": value, "y": place()})
        pickled = pickle.dumps(fields, 5, buffer_callback=lambda _: None)
        os.pwrite(self.to, pickled, offset)
        table = struct.pack("<IBQBQ", 2, PICKLE | IN_SLOT, len(pickled), kind, len(buffer))
        number = self.vm.next_id
        self.vm.next_id += 1
        self.vm.send(EVAL, number, table + struct.pack("<Q", offset) + buffer, BUFFERS)
        return number


@pytest.fixture
def sharing() -> Iterator[Callable[[], Any]]:
    with contextlib.ExitStack() as stack:

        def start(size: int = SIZE) -> Sharing:
            to, back = memory_file(), memory_file()
            stack.callback(os.close, to)
            stack.callback(os.close, back)
            hello = {"shared": ((to, size), (back, size))}
            vm = stack.enter_context(VM(hello=hello, pass_fds=(to, back)))
            return Sharing(vm, to, back)

        yield start


@pytest.fixture
def there(sharing: Callable[[], Sharing]) -> Sharing:
    """One that is ready."""
    there = sharing()
    there.vm.ready()
    return there


def value(there: Sharing) -> Any:
    return decode(there.vm.expect(RESULT)[1])


def test_values_travel_both_ways(sharing: Callable[[], Sharing]) -> None:
    there = sharing()
    assert there.vm.ready()["shared"] is True
    data = bytes(range(256)) * 2000
    there.eval("y = x; return len(x), bytes(x[:3])", VIEW, data, 65536)
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(TAKEN, 65536)]
    assert value(there) == (len(data), b"\0\1\2")
    there.vm.run("del x, y")
    keep_collecting(there.vm)
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(FREE, 65536)]
    there.vm.eval(f"return bytes({WORTH})")
    number, body = there.vm.expect(RESULT)
    assert (RESULT, number) in there.vm.frames.shared
    offset, length = PLACE.unpack(body)
    assert os.pread(there.back, length, offset) == b"\x83m" + struct.pack(">I", WORTH) + bytes(
        WORTH
    )
    there.vm.send(DROP, 0, struct.pack("<BQI", 2, offset, 1))
    there.vm.eval(f"return bytes({WORTH - 100})")
    number, body = there.vm.expect(RESULT)
    assert (RESULT, number) not in there.vm.frames.shared
    assert len(body) == WORTH - 94


LARGE = list(range(100_000))


@pytest.mark.parametrize("lead", [0, 44])
def test_a_pickle_is_loaded_where_it_is_and_its_slot_is_free_then(
    there: Sharing, lead: int
) -> None:
    there.eval_in_slot("return x == list(range(100_000)), y", LARGE, b"buffer", 65536 + lead)
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(TAKEN, 65536 + lead)]
    assert value(there) == (True, b"buffer")
    keep_collecting(there.vm)
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(FREE, 65536 + lead)]


def test_a_pickle_that_cannot_be_mapped_is_copied(there: Sharing) -> None:
    there.vm.eval("from snex._wire import arena\narena._MAPPINGS = 0")
    there.vm.expect(RESULT)
    there.eval_in_slot("return x == list(range(100_000)), y", LARGE, b"buffer")
    assert value(there) == (True, b"buffer")


def test_a_pickle_for_which_there_is_no_memory_is_an_error_of_that_request(there: Sharing) -> None:
    there.vm.eval(
        "from snex._wire import arena, sinks\n"
        "home = sinks._new_home\n"
        "def small(size, **options):\n"
        "    if size > 100_000: raise MemoryError\n"
        "    return home(size, **options)\n"
        "arena._MAPPINGS, sinks._new_home = 0, small"
    )
    there.vm.expect(RESULT)
    number = there.eval_in_slot("return 1", LARGE)
    there.vm.eval("sinks._new_home = home; return 2")
    got, body = there.vm.expect(ERROR)
    assert got == number
    assert b"MemoryError" in body
    assert value(there) == 2


def test_the_place_of_a_value_that_is_wrong_is_found_in_a_slot_too(there: Sharing) -> None:
    number = there.eval_in_slot("return 1", LARGE, b"\xff\xfe", kind=STR)
    got, body = there.vm.expect(ERROR)
    assert got == number
    assert b"in the variable y; pass bytes as" in body


@pytest.mark.parametrize(
    ("entries", "rest", "reason"),
    [
        ([(PICKLE, 3)], b"\x80\x05N.", b"a pickle in the place of buffer 0 of 1"),
        (
            [(BYTES, 1), (PICKLE | IN_SLOT, 3)],
            b"x" + bytes(8),
            b"a pickle in the place of buffer 1 of 2",
        ),
        (
            [(PICKLE | IN_SLOT, 3)],
            b"N." + bytes(8),
            b"a pickle of 2 bytes, and another one in shared memory",
        ),
    ],
)
def test_a_pickle_in_the_wrong_place_ends_the_interpreter(
    there: Sharing, entries: list[tuple[int, int]], rest: bytes, reason: bytes
) -> None:
    table = struct.pack("<I", len(entries)) + b"".join(struct.pack("<BQ", *e) for e in entries)
    there.vm.send(EVAL, 7, table + rest, BUFFERS)
    assert there.vm.process.wait(60) == 70
    assert there.vm.process.stderr is not None
    assert reason in there.vm.process.stderr.read()


def test_a_large_body_takes_memory_if_the_pipe_would_have_to_copy_it_first(there: Sharing) -> None:
    def takes_memory(value: str) -> bool:
        there.vm.eval(f"return {value}")
        number, body = there.vm.expect(RESULT)
        if (RESULT, number) not in there.vm.frames.shared:
            return False
        offset, length = PLACE.unpack(body)
        assert os.pread(there.back, 5, offset + length - 5) == b"12345"
        there.vm.send(DROP, 0, struct.pack("<BQI", 2, offset, 1))
        return True

    large = f"x' * {MOST} + b'12345"
    assert not takes_memory(f"b'{large}'")
    assert takes_memory(f"bytearray(b'{large}')")
    assert not takes_memory(f"[b'{large}', bytearray({WORTH})]")


def test_descriptors_that_have_not_come_through_are_no_shared_memory(
    sharing: Callable[..., Sharing],
) -> None:
    there = sharing(SIZE + 1)
    assert there.vm.ready()["shared"] is False
    there.vm.eval(f"return bytes({WORTH})")
    assert len(there.vm.expect(RESULT)[1]) == WORTH + 6


def test_programs_that_python_starts_do_not_get_the_descriptors(there: Sharing) -> None:
    there.vm.eval(
        "import os, subprocess\n"
        "return subprocess.run(['ls', '-l', '/proc/self/fd'], capture_output=True, close_fds=False).stdout"
    )
    assert b"memfd" not in value(there)


def test_a_slot_that_is_not_in_the_arena_ends_the_interpreter(there: Sharing) -> None:
    there.eval("return 1", VIEW, b"x", SIZE)
    assert there.vm.process.wait(60) == 70
    assert there.vm.process.stderr is not None
    assert b"shared memory" in there.vm.process.stderr.read()


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="forks are slow, and alike")
def test_a_forked_child_says_nothing_about_slots(there: Sharing) -> None:
    code = (
        "import os\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    del x\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "return bytes(x)"
    )
    there.eval(code, VIEW, b"abc", 65536)
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(TAKEN, 65536)]
    assert value(there) == b"abc"
    there.vm.run("del x")
    keep_collecting(there.vm)
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(FREE, 65536)]


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="others count no references")
def test_a_pickle_that_cannot_be_loaded_leaves_no_slot(there: Sharing) -> None:
    there.vm.eval("import gc; gc.disable()")
    there.vm.expect(RESULT)
    there.eval_in_slot("return 1", LARGE, b"\xff", 65536, kind=STR)
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(TAKEN, 65536)]
    there.vm.expect(ERROR)
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(FREE, 65536)]
