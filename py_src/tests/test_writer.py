from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from support.vm import CAST, HEADER, RESULT

from snex._wire.pressure import Pressure
from snex._wire.vectored import writev as real_writev
from snex._wire.writer import FrameWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

Frame = tuple[int, int, bytes]


def parse(data: bytes) -> list[Frame]:
    frames = []
    while data:
        magic, kind, _, number, length, _ = HEADER.unpack_from(data)
        assert magic == b"SX"
        end = HEADER.size + length
        assert len(data) >= end, "a frame is cut short"
        frames.append((kind, number, data[HEADER.size : end]))
        data = data[end:]
    return frames


class Bench:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.in_fd, self.out_fd = os.pipe()
        os.set_blocking(self.out_fd, False)
        self.pressure: list[bool] = []
        self.broken = 0
        self.writer = FrameWriter(
            self.out_fd, self.loop, 100_000, 200_000, self.pressure.append, self._broken
        )

    def _broken(self) -> None:
        self.broken += 1

    def everything(self, expected: int) -> list[Frame]:
        """Let the loop write while another thread reads."""
        data = b""

        def read() -> None:
            nonlocal data
            while len(data) < expected:
                data += os.read(self.in_fd, 1 << 20)
            self.loop.call_soon_threadsafe(self.loop.stop)

        thread = threading.Thread(target=read)
        thread.start()
        self.loop.run_forever()
        thread.join()
        return parse(data)


@pytest.fixture
def bench() -> Iterator[Bench]:
    b = Bench()
    yield b
    b.loop.close()
    os.close(b.out_fd)
    if b.in_fd >= 0:
        os.close(b.in_fd)


def test_a_frame_is_written_at_once_where_there_is_room(bench: Bench) -> None:
    bench.writer.write(RESULT, 5, [b"body"])
    bench.writer.write(RESULT, 6, [b"a", memoryview(b"bc"), b"d"])
    bench.writer.write(RESULT, 7)
    assert parse(os.read(bench.in_fd, 1000)) == [
        (RESULT, 5, b"body"),
        (RESULT, 6, b"abcd"),
        (RESULT, 7, b""),
    ]


def test_what_the_pipe_does_not_take_of_a_small_frame_follows(bench: Bench) -> None:
    # More than the 4,096 bytes that a pipe takes as a whole or not at all, and more than there is room for.
    body = bytes(range(256)) * 48
    count = 0
    while not bench.writer.backlog:
        bench.writer.write(RESULT, count, [body])
        count += 1
    frames = bench.everything(count * (HEADER.size + len(body)))
    assert frames == [(RESULT, i, body) for i in range(count)]


def test_what_the_pipe_does_not_take_follows_in_order(bench: Bench) -> None:
    sizes = [10, 500_000, 3, 70_000, 0, 1_000_000, 17]
    for i, size in enumerate(sizes):
        bench.writer.write(RESULT, i, [bytes([i]) * size])
    many = [b"x" * 1000 for _ in range(200)]
    bench.writer.write(RESULT, 99, many)
    frames = bench.everything(sum(sizes) + 200_000 + 20 * 8)
    assert frames[:-1] == [(RESULT, i, bytes([i]) * size) for i, size in enumerate(sizes)]
    assert frames[-1] == (RESULT, 99, b"x" * 200_000)
    assert bench.pressure == [True, False]


def test_what_changes_after_the_write_is_sent_as_it_was(bench: Bench) -> None:
    data = bytearray(b"a" * 1_000_000)
    bench.writer.write(RESULT, 1, [b"", memoryview(data).toreadonly()])
    data[:] = b"b" * len(data)
    # Nothing is exported: it could even be resized.
    data.clear()
    assert bench.everything(1_000_020) == [(RESULT, 1, b"a" * 1_000_000)]


def test_frames_of_many_threads_do_not_mix(bench: Bench) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(number: int) -> None:
        for i in range(100):
            bench.writer.write(CAST, number * 1000 + i, [bytes([number]) * (i * 50)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    frames = bench.everything(8 * sum(20 + i * 50 for i in range(100)))
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    for number in range(8):
        own = [f for f in frames if f[1] // 1000 == number]
        assert own == [(CAST, number * 1000 + i, bytes([number]) * (i * 50)) for i in range(100)]


def test_a_frame_sent_in_the_middle_of_a_write_comes_whole(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a `__del__` would do it that the collector happens to run there.
    inner = [(RESULT, 2, [b"inner"]), (RESULT, 3, [b"more"])]

    def writev(fd: int, parts: list[bytes]) -> int:
        while inner:
            bench.writer.write(*inner.pop(0))
        return real_writev(fd, parts)

    monkeypatch.setattr("snex._wire.writer.writev", writev)
    bench.writer.write(RESULT, 1, [b"a" * 1_000_000, b"b"])
    assert bench.everything(1_000_000 + 10 + 60) == [
        (RESULT, 1, b"a" * 1_000_000 + b"b"),
        (RESULT, 2, b"inner"),
        (RESULT, 3, b"more"),
    ]


def test_those_who_wait_for_room_are_woken(bench: Bench) -> None:
    woken = threading.Event()
    assert not bench.writer.when_drained(woken.set)
    bench.writer.write(RESULT, 1, [b"x" * 1_000_000])
    assert bench.writer.full
    assert bench.writer.when_drained(woken.set)
    forgotten = threading.Event()
    assert bench.writer.when_drained(forgotten.set)
    bench.writer.forget(forgotten.set)
    bench.everything(1_000_020)
    assert woken.is_set()
    assert not bench.writer.full


def test_giving_up_costs_the_same_however_many_others_wait() -> None:
    compared = 0

    class Waiter:
        def __call__(self) -> None:
            pass

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return self is other

        def __hash__(self) -> int:
            return id(self)

    pressure = Pressure(full=True)
    waiters = [Waiter() for _ in range(1000)]
    for waiter in waiters:
        assert pressure.when_drained(waiter)
    for waiter in reversed(waiters):
        pressure.forget(waiter)
    assert compared < len(waiters)


def test_a_broken_pipe_is_told_once_and_lets_everyone_go(bench: Bench) -> None:
    woken = threading.Event()
    bench.writer.write(RESULT, 1, [b"x" * 1_000_000])
    bench.writer.when_drained(woken.set)
    os.close(bench.in_fd)
    bench.in_fd = -1
    bench.loop.call_later(0.0, bench.loop.stop)
    bench.loop.run_forever()
    bench.writer.write(RESULT, 2, [b"y"])
    assert bench.broken == 1
    assert woken.is_set()
    assert not bench.writer.full
