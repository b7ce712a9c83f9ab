from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import struct
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.etf import decode
from support.vm import BUFFERS, DROP, ERROR, EVAL, RESULT, VM, place

from snex._wire import arena as arenas
from snex._wire import outbound
from snex._wire.arena import Inbound
from snex._wire.body import IN_SLOT
from snex._wire.frame import FrameError
from snex._wire.mappings import address_of
from snex._wire.outbound import MOST, PLACE, WORTH, Outbound
from snex._wire.sinks import PICKLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="the system has no memory files"
)

SIZE = 1 << 26
BYTES, STR, BYTEARRAY, VIEW, MEMORY = range(5)
SLOTS = 0x8F
TAKEN, FREE = 0, 1


def memory_file() -> int:
    fd = os.memfd_create("test")
    os.ftruncate(fd, SIZE)
    return fd


def pages(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def reports_of(body: bytes) -> list[tuple[int, int]]:
    return list(struct.iter_unpack("<BQ", body))


class Bench:
    """An arena towards Python, and what the VM is told of it."""

    def __init__(self) -> None:
        self.fd = memory_file()
        self.loop = asyncio.new_event_loop()
        self.reports: list[tuple[int, int]] = []
        self.arena = Inbound(self.fd, SIZE, self.loop, self._report)

    def _report(self, reports: bytes) -> None:
        self.reports += reports_of(reports)

    def put(self, kind: int, offset: int, data: bytes) -> Any:
        os.pwrite(self.fd, data, offset)
        return self.arena.sink(kind, struct.pack("<Q", offset), len(data))

    def turn(self) -> list[tuple[int, int]]:
        """Let the loop do what is due, and return the reports."""
        for _ in range(5):
            # PyPy finalizes one object of a chain after the other.
            gc.collect()
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        reports, self.reports = self.reports, []
        return reports


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.loop.close()
    os.close(bench.fd)


@pytest.mark.parametrize("kind", [BYTES, BYTEARRAY])
def test_what_is_copied_frees_its_slot_at_once(bench: Bench, kind: int) -> None:
    data = bytes(range(256)) * 20_000
    sink = bench.put(kind, 65536, data)
    value = sink.finish()
    assert type(value) is (bytes if kind == BYTES else bytearray)
    assert value == data
    assert bench.turn() == [(FREE, 65536)]
    assert sink.finish() is value
    assert bench.turn() == []


def test_text_that_is_none_is_an_error_and_its_slot_is_free(bench: Bench) -> None:
    sink = bench.put(STR, 0, b"\xff" * 10)
    with pytest.raises(UnicodeDecodeError):
        sink.finish()
    assert bench.turn() == [(FREE, 0)]
    assert bench.put(STR, 0, "käse".encode()).finish() == "käse"


def test_a_view_is_read_only_and_frees_its_slot_when_nobody_looks_at_it(bench: Bench) -> None:
    view = bench.put(VIEW, 65536, b"0123456789" * 1000).finish()
    part = view[10:20]
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    del view
    assert bench.turn() == []
    assert bytes(part) == b"0123456789"
    del part
    assert bench.turn() == [(FREE, 65536)]


def test_memory_of_an_array_can_be_written_to_and_the_slot_does_not_change(bench: Bench) -> None:
    memory = bench.put(MEMORY, 65536, b"0123456789" * 1000).finish()
    assert type(memory) is memoryview
    memory[:3] = b"abc"
    assert bytes(memory[:5]) == b"abc34"
    assert os.pread(bench.fd, 5, 65536) == b"01234"
    del memory
    assert bench.turn() == [(FREE, 65536)]


@pytest.mark.parametrize("kind", [BYTES, VIEW, MEMORY])
@pytest.mark.parametrize("lead", [8, 56])
def test_a_buffer_may_begin_a_little_after_its_slot(bench: Bench, kind: int, lead: int) -> None:
    value = bench.put(kind, 65536 + lead, b"0123456789" * 1000).finish()
    assert bytes(value) == b"0123456789" * 1000
    del value
    assert bench.turn() == [(FREE, 65536 + lead)]


def test_a_buffer_that_nobody_finishes_frees_its_slot(bench: Bench) -> None:
    sink = bench.put(VIEW, 0, b"x")
    del sink
    assert bench.turn() == [(FREE, 0)]


def test_slots_that_other_threads_drop_are_told_of_together(bench: Bench) -> None:
    views = [bench.put(VIEW, n * 65536, b"x").finish() for n in range(10)]

    def drop() -> None:
        while views:
            views.pop()
        gc.collect()

    thread = threading.Thread(target=drop)
    thread.start()
    thread.join()
    assert sorted(bench.turn()) == [(FREE, n * 65536) for n in range(10)]


def test_what_cannot_be_mapped_is_copied(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(arenas, "_map", refuse)
    view = bench.put(VIEW, 0, b"x" * 1000).finish()
    assert view.readonly
    assert bytes(view) == b"x" * 1000
    assert bench.turn() == [(FREE, 0)]


def test_mappings_do_not_use_up_descriptors(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arenas, "_MAPPINGS", 3)
    before = descriptors()
    views = [bench.put(VIEW, n * 65536, b"x").finish() for n in range(20)]
    assert descriptors() <= before + 3
    assert [bytes(view) for view in views] == [b"x"] * 20
    del views
    assert sorted(bench.turn()) == [(FREE, n * 65536) for n in range(20)]


def test_a_place_that_is_not_in_the_arena_is_refused(bench: Bench) -> None:
    for offset, length in [(SIZE, 1), (0, SIZE + 1), (1 << 63, 1), (SIZE - 1, 2)]:
        with pytest.raises(
            FrameError, match=f"at offset {offset} reaches beyond the shared memory of"
        ):
            bench.arena.sink(VIEW, struct.pack("<Q", offset), length)


@pytest.fixture
def out() -> Iterator[tuple[Outbound, int, asyncio.AbstractEventLoop]]:
    fd = memory_file()
    loop = asyncio.new_event_loop()
    yield Outbound(fd, SIZE, loop), fd, loop
    loop.close()
    os.close(fd)


def test_bodies_lie_side_by_side_until_the_vm_has_read_them(out: Any) -> None:
    arena, fd, _loop = out
    first = PLACE.unpack(arena.put([b"a" * 10, memoryview(b"b" * 100_000)], 100_010))
    second = PLACE.unpack(arena.put([b"c"], 1))
    assert (first, second) == ((0, 100_010), (131072, 1))
    assert os.pread(fd, 11, 0) == b"aaaaaaaaaab"
    assert os.pread(fd, 2, 131072) == b"c\0"
    arena.drop([(0, 1)])
    assert PLACE.unpack(arena.put([b"d"], 1)) == (0, 1)
    # What the VM never got is nothing to give back.
    arena.drop([(1 << 40, 1)])


@pytest.mark.parametrize("misplaced", [0, 1, 24, 63])
def test_a_large_part_lies_in_the_place_of_a_cache_line_that_it_comes_from(
    out: Any, misplaced: int
) -> None:
    arena, fd, _loop = out
    memory = bytearray(3 << 20)
    address = address_of(memoryview(memory))
    if address is None:
        pytest.skip("nobody can tell where a value lies in memory")
    skip = (misplaced - address) % 64
    # With its lead, the body does not fit into 2 MiB.
    part = memoryview(memory)[skip : skip + (2 << 20) - 4]
    part[:] = b"x" * len(part)
    places = []
    for _ in range(2):
        offset, length = PLACE.unpack(arena.put([b"head", part], 2 << 20))
        assert (offset + 4) % 64 == misplaced
        assert length == 2 << 20
        assert os.pread(fd, length + 1, offset) == b"head" + bytes(part) + b"\0"
        places.append(offset)
    # Neither begins in the other's slot, and both are given back by the offset that the VM was told.
    assert places[1] - places[0] == (2 << 20) + 65536
    arena.drop([(offset, 1) for offset in places])
    assert PLACE.unpack(arena.put([b"x"], 1)) == (0, 1)
    assert arena._used == {0: 65536}


def test_what_cannot_be_written_to_lies_at_the_beginning_of_its_slot(out: Any) -> None:
    arena, _fd, _loop = out
    assert address_of(b"x" * (2 << 20)) is None
    assert PLACE.unpack(arena.put([b"head", b"x" * (2 << 20)], (2 << 20) + 4))[0] == 0


def test_only_memory_that_has_never_been_used_gets_large_pages(
    out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena, _fd, _loop = out
    asked = []
    monkeypatch.setattr(outbound, "use_large_pages", lambda *range_: asked.append(range_[1:]))
    body = [b"x" * (5 << 20)]
    arena.put([b"y" * 65536], 65536)
    arena.put(body, 5 << 20)
    arena.drop([(65536, 1)])
    # The same memory once more, and then beyond its end.
    arena.put([b"x" * (3 << 20)], 3 << 20)
    arena.put(body, 5 << 20)
    end = 65536 + (5 << 20)
    assert asked[:2] == [(0, 65536), (65536, end)]
    # Nothing is fresh: the end lies before the start.
    assert asked[2][0] >= asked[2][1]
    assert asked[3] == (end, 65536 + (8 << 20))


def test_what_has_no_room_goes_through_the_pipe(out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arena, _fd, _loop = out
    assert arena.put([b""], SIZE + 1) is None
    monkeypatch.setattr(outbound, "WAITING", 3 * 65536)
    places = [arena.put([b"x"], 65536) for _ in range(4)]
    assert places[3] is None
    assert None not in places[:3]


def test_without_memory_the_body_goes_through_the_pipe(
    out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena, _fd, _loop = out

    def refuse(*_: object) -> int:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        assert arena.put([b"x"], 1) is None
    assert PLACE.unpack(arena.put([b"x"], 1)) == (0, 1)


def test_memory_goes_back_when_nobody_needs_it(out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arena, fd, loop = out
    monkeypatch.setattr(outbound, "_IDLE", 0)
    arena.put([b"x" * 100_000], 100_000)
    arena.put([b"y" * 100_000], 100_000)
    arena.drop([(0, 1)])
    loop.run_until_complete(asyncio.sleep(0.01))
    assert pages(fd) >= 200_000
    arena.drop([(131072, 1)])
    for _ in range(1000):
        loop.run_until_complete(asyncio.sleep(0.01))
        if not pages(fd):
            break
    assert pages(fd) == 0


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


def value(there: Sharing) -> Any:
    return decode(there.vm.expect(RESULT)[1])


def test_values_travel_both_ways(sharing: Callable[[], Sharing]) -> None:
    there = sharing()
    assert there.vm.ready()["shared"] is True
    data = bytes(range(256)) * 2000
    there.eval("y = x; return len(x), bytes(x[:3])", VIEW, data, 65536)
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(TAKEN, 65536)]
    assert value(there) == (len(data), b"\0\1\2")
    there.vm.eval("import gc; del x, y; [gc.collect() for _ in range(5)]")
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(FREE, 65536)]
    there.vm.expect(RESULT)
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
    sharing: Callable[[], Sharing], lead: int
) -> None:
    there = sharing()
    there.vm.ready()
    there.eval_in_slot("return x == list(range(100_000)), y", LARGE, b"buffer", 65536 + lead)
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(TAKEN, 65536 + lead)]
    # Of PyPy, the garbage collector has to find it.
    there.vm.eval("import gc; [gc.collect() for _ in range(5)]")
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(FREE, 65536 + lead)]
    assert value(there) == (True, b"buffer")


def test_a_pickle_that_cannot_be_mapped_is_copied(sharing: Callable[[], Sharing]) -> None:
    there = sharing()
    there.vm.ready()
    there.vm.eval("from snex._wire import arena\narena._MAPPINGS = 0")
    there.vm.expect(RESULT)
    there.eval_in_slot("return x == list(range(100_000)), y", LARGE, b"buffer")
    assert value(there) == (True, b"buffer")


def test_a_pickle_for_which_there_is_no_memory_is_an_error_of_that_request(
    sharing: Callable[[], Sharing],
) -> None:
    there = sharing()
    there.vm.ready()
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


def test_the_place_of_a_value_that_is_wrong_is_found_in_a_slot_too(
    sharing: Callable[[], Sharing],
) -> None:
    there = sharing()
    there.vm.ready()
    number = there.eval_in_slot("return 1", LARGE, b"\xff\xfe", kind=STR)
    got, body = there.vm.expect(ERROR)
    assert got == number
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
    sharing: Callable[[], Sharing], entries: list[tuple[int, int]], rest: bytes, reason: bytes
) -> None:
    there = sharing()
    there.vm.ready()
    table = struct.pack("<I", len(entries)) + b"".join(struct.pack("<BQ", *e) for e in entries)
    there.vm.send(EVAL, 7, table + rest, BUFFERS)
    assert there.vm.process.wait(60) == 70
    assert there.vm.process.stderr is not None
    assert reason in there.vm.process.stderr.read()


def test_a_large_body_takes_memory_if_the_pipe_would_have_to_copy_it_first(
    sharing: Callable[[], Sharing],
) -> None:
    there = sharing()
    there.vm.ready()

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


def test_programs_that_python_starts_do_not_get_the_descriptors(
    sharing: Callable[[], Sharing],
) -> None:
    there = sharing()
    there.vm.ready()
    there.vm.eval(
        "import os, subprocess\n"
        "return subprocess.run(['ls', '-l', '/proc/self/fd'], capture_output=True, close_fds=False).stdout"
    )
    assert b"memfd" not in value(there)


def test_a_slot_that_is_not_in_the_arena_ends_the_interpreter(
    sharing: Callable[[], Sharing],
) -> None:
    there = sharing()
    there.vm.ready()
    there.eval("return 1", VIEW, b"x", SIZE)
    assert there.vm.process.wait(60) == 70
    assert there.vm.process.stderr is not None
    assert b"shared memory" in there.vm.process.stderr.read()


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="forks are slow, and alike")
def test_a_forked_child_says_nothing_about_slots(sharing: Callable[[], Sharing]) -> None:
    there = sharing()
    there.vm.ready()
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
    there.vm.eval("import gc; del x; [gc.collect() for _ in range(5)]")
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(FREE, 65536)]


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="others count no references")
def test_a_pickle_that_cannot_be_loaded_leaves_no_slot(sharing: Callable[[], Sharing]) -> None:
    there = sharing()
    there.vm.ready()
    there.vm.eval("import gc; gc.disable()")
    there.vm.expect(RESULT)
    there.eval_in_slot("return 1", LARGE, b"\xff", 65536, kind=STR)
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(TAKEN, 65536)]
    there.vm.expect(ERROR)
    assert reports_of(there.vm.expect(SLOTS)[1]) == [(FREE, 65536)]
