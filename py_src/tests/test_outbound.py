from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest
from support.slots import SIZE, memory_file, needs_memory_files

from snex._wire import outbound
from snex._wire.mappings import address_of
from snex._wire.outbound import PLACE, Outbound

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_memory_files


def pages(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


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
