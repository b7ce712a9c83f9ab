from __future__ import annotations

import asyncio
import gc
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.garbage import collect_until, in_a_thread
from support.slots import (
    BYTEARRAY,
    BYTES,
    FREE,
    MEMORY,
    SIZE,
    STR,
    VIEW,
    memory_file,
    needs_memory_files,
    reports_of,
)

from snex._wire import arena as arenas
from snex._wire.arena import Inbound
from snex._wire.frame import FrameError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_memory_files


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


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
        """Collect garbage, let the loop do what is due, and return the reports."""
        for _ in range(5):
            gc.collect()
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        reports, self.reports = self.reports, []
        return reports

    def wait_for(self, *expected: tuple[int, int]) -> None:
        """Collect garbage until these are all the reports."""
        seen: list[tuple[int, int]] = []

        def complete() -> bool:
            seen.extend(self.turn())
            return len(seen) >= len(expected)

        collect_until(complete)
        assert sorted(seen) == list(expected)


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
    def middle() -> memoryview:
        view = bench.put(VIEW, 65536, b"0123456789" * 1000).finish()
        assert view.readonly
        with pytest.raises(TypeError):
            view[0] = 1
        part: memoryview = view[10:20]
        return part

    def look() -> None:
        part = middle()
        assert bench.turn() == []
        assert bytes(part) == b"0123456789"

    in_a_thread(look)
    bench.wait_for((FREE, 65536))


def test_memory_of_an_array_can_be_written_to_and_the_slot_does_not_change(bench: Bench) -> None:
    def write() -> None:
        memory = bench.put(MEMORY, 65536, b"0123456789" * 1000).finish()
        assert type(memory) is memoryview
        memory[:3] = b"abc"
        assert bytes(memory[:5]) == b"abc34"
        assert os.pread(bench.fd, 5, 65536) == b"01234"

    in_a_thread(write)
    bench.wait_for((FREE, 65536))


@pytest.mark.parametrize("kind", [BYTES, VIEW, MEMORY])
@pytest.mark.parametrize("lead", [8, 56])
def test_a_buffer_may_begin_a_little_after_its_slot(bench: Bench, kind: int, lead: int) -> None:
    def use() -> None:
        value = bench.put(kind, 65536 + lead, b"0123456789" * 1000).finish()
        assert bytes(value) == b"0123456789" * 1000

    in_a_thread(use)
    bench.wait_for((FREE, 65536 + lead))


def test_a_buffer_that_nobody_finishes_frees_its_slot(bench: Bench) -> None:
    def receive() -> None:
        bench.put(VIEW, 0, b"x")

    in_a_thread(receive)
    bench.wait_for((FREE, 0))


def test_slots_that_other_threads_drop_are_told_of_together(bench: Bench) -> None:
    views = in_a_thread(lambda: [bench.put(VIEW, n * 65536, b"x").finish() for n in range(10)])

    def drop() -> None:
        while views:
            views.pop()
        gc.collect()

    in_a_thread(drop)
    bench.wait_for(*[(FREE, n * 65536) for n in range(10)])


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

    def use() -> None:
        views = [bench.put(VIEW, n * 65536, b"x").finish() for n in range(20)]
        assert descriptors() <= before + 3
        assert [bytes(view) for view in views] == [b"x"] * 20

    in_a_thread(use)
    bench.wait_for(*[(FREE, n * 65536) for n in range(20)])


def test_a_place_that_is_not_in_the_arena_is_refused(bench: Bench) -> None:
    for offset, length in [(SIZE, 1), (0, SIZE + 1), (1 << 63, 1), (SIZE - 1, 2)]:
        with pytest.raises(
            FrameError, match=f"at offset {offset} reaches beyond the shared memory of"
        ):
            bench.arena.sink(VIEW, struct.pack("<Q", offset), length)
