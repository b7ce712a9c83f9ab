from __future__ import annotations

import asyncio
import gc
import os
import pickle
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.memory import needs_tracing, tracing
from support.vm import BUFFERS, CANCEL, EVAL, frame, place, with_buffers

from snex._wire.body import load
from snex._wire.frame import FrameError
from snex._wire.reader import FrameReader
from snex._wire.sinks import AHEAD, _new_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Bench:
    """A reader on a pipe; everything it says goes to a list."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.out_fd: int
        self.in_fd, self.out_fd = os.pipe()
        os.set_blocking(self.in_fd, False)
        self.frames: list[tuple[int, int, Any]] = []
        self.ends: list[BaseException | None] = []
        self.keep: Callable[[Any, Any], Any] = lambda body, sinks: (bytes(body), list(sinks))
        self.reader = FrameReader(self.in_fd, self.loop, self._frame, self._end)
        self.reader.start()

    def _frame(
        self, kind: int, _flags: int, number: int, _cause: int, body: Any, sinks: Any
    ) -> None:
        self.frames.append((kind, number, self.keep(body, sinks)))

    def _end(self, error: BaseException | None) -> None:
        self.ends.append(error)
        self.loop.stop()

    def write(self, *pieces: bytes) -> None:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(self.out_fd, view) :]

    def write_aside(self, *pieces: bytes, close: bool = True) -> threading.Thread:
        def run() -> None:
            self.write(*pieces)
            if close:
                self.hang_up()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def hang_up(self) -> None:
        os.close(self.out_fd)
        self.out_fd = -1

    def until_end(self) -> None:
        self.loop.call_later(60, self.loop.stop)
        self.loop.run_forever()
        assert self.ends, "no end was seen"

    def close(self) -> None:
        self.reader.stop()
        self.loop.close()
        os.close(self.in_fd)
        if self.out_fd >= 0:
            os.close(self.out_fd)


@pytest.fixture
def bench() -> Iterator[Bench]:
    b = Bench()
    yield b
    b.close()


def test_many_frames_in_one_chunk_come_in_order(bench: Bench) -> None:
    bench.write(b"".join(frame(EVAL, i, b"x" * (i % 5)) for i in range(500)))
    bench.hang_up()
    bench.until_end()
    assert [(n, body) for _, n, (body, _) in bench.frames] == [
        (i, b"x" * (i % 5)) for i in range(500)
    ]
    assert bench.ends == [None]


def test_frames_that_come_byte_by_byte_are_whole(bench: Bench) -> None:
    data = frame(EVAL, 1, b"abc") + frame(CANCEL, 2)
    fields = with_buffers({"a": place()}, [(0, b"xyz")])
    data += frame(EVAL, 3, fields, BUFFERS) + frame(CANCEL, 4)
    bench.keep = lambda body, sinks: load(body, sinks) if sinks else bytes(body)
    seen: list[int] = []

    def feed(position: int = 0) -> None:
        seen.append(len(bench.frames))
        if position == len(data):
            bench.hang_up()
        else:
            os.write(bench.out_fd, data[position : position + 1])
            bench.loop.call_soon(feed, position + 1)

    feed()
    bench.until_end()
    assert bench.frames == [
        (EVAL, 1, b"abc"),
        (CANCEL, 2, b""),
        (EVAL, 3, {"a": b"xyz"}),
        (CANCEL, 4, b""),
    ]
    # None of them has waited for the end.
    assert seen[-1] >= 3


@pytest.mark.parametrize("size", [0, 1, 1000, 65536 - 28, 65536, 100_000, 1_000_000, 3_000_001])
def test_bodies_of_every_size_arrive(bench: Bench, size: int) -> None:
    body = os.urandom(size)
    thread = bench.write_aside(frame(EVAL, 1, body), frame(CANCEL, 2), frame(EVAL, 3, body))
    bench.until_end()
    thread.join()
    assert bench.frames == [(EVAL, 1, (body, [])), (CANCEL, 2, (b"", [])), (EVAL, 3, (body, []))]


@pytest.mark.parametrize("size", [0, 1, 20_000, 70_000, 2_000_000])
@pytest.mark.parametrize("count", [0, 1, 3, 200])
def test_buffers_of_every_type_and_size_arrive(bench: Bench, size: int, count: int) -> None:
    if size * count > 10_000_000:
        size //= 100
    content = b"a" * size
    body = with_buffers([place() for _ in range(count)], [(i % 4, content) for i in range(count)])
    bench.keep = load
    thread = bench.write_aside(frame(EVAL, 1, body, BUFFERS), frame(EVAL, 2, body, BUFFERS))
    bench.until_end()
    thread.join()
    assert [n for _, n, _ in bench.frames] == [1, 2]
    for _, _, value in bench.frames:
        assert len(value) == count
        for i, item in enumerate(value):
            assert type(item) is (bytes, str, bytearray, memoryview)[i % 4]
            assert item == (content.decode() if i % 4 == 1 else content)
            if i % 4 == 3:
                assert item.readonly


def test_a_body_that_is_complete_does_not_wait_for_more(bench: Bench) -> None:
    def stop(*_: Any) -> None:
        bench.loop.stop()

    bench.keep = stop
    body = b"x" * 1_000_000
    for flags, data in ((0, body), (BUFFERS, with_buffers([place()], [(0, body)]))):
        thread = bench.write_aside(frame(EVAL, 1, data, flags), close=False)
        bench.loop.run_forever()
        thread.join()
    assert len(bench.frames) == 2
    assert bench.ends == []


def test_frames_read_at_the_end_of_a_turn_do_not_wait_for_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snex._wire.reader._READS_PER_TURN", 1)
    bench.keep = lambda *_: bench.loop.stop()
    bench.write(frame(EVAL, 1, bytes(65536 - 28)))
    timer = bench.loop.call_later(60, bench.loop.stop)
    bench.loop.run_forever()
    timer.cancel()
    assert len(bench.frames) == 1


def test_timers_and_others_get_their_turn_among_many_frames(bench: Bench) -> None:
    before: list[int] = []
    bench.write(b"".join(frame(CANCEL, i) for i in range(2000)))
    bench.loop.call_soon(
        lambda: bench.loop.call_soon(
            lambda: bench.loop.call_soon(lambda: before.append(len(bench.frames)))
        )
    )
    bench.hang_up()
    bench.until_end()
    assert len(bench.frames) == 2000
    assert before[0] < 2000


def test_a_paused_reader_takes_nothing_and_loses_nothing(bench: Bench) -> None:
    def pause(*_: Any) -> None:
        bench.reader.pause()
        bench.loop.stop()

    bench.keep = pause
    bench.write(b"".join(frame(CANCEL, i) for i in range(100)))
    bench.hang_up()
    for i in range(1, 101):
        bench.loop.run_forever()
        assert len(bench.frames) == i
        bench.reader.resume()
    bench.until_end()


def test_a_receiver_that_fails_does_not_keep_the_next_frames(bench: Bench) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    bench.keep = fail
    failures: list[Any] = []
    bench.loop.set_exception_handler(lambda _, context: failures.append(context))
    bench.write(b"".join(frame(CANCEL, i) for i in range(10)))
    count = 0

    def check() -> None:
        nonlocal count
        count += 1
        if len(failures) == 10 or count == 1000:
            bench.loop.stop()
        else:
            bench.loop.call_soon(check)

    check()
    bench.loop.run_forever()
    assert len(failures) == 10


@pytest.mark.parametrize(
    "garbage", [b"X", b"hello", b"SY" + bytes(30), frame(EVAL, 1, b"", 0x80), frame(0x99, 1)]
)
def test_frames_before_garbage_count_and_none_behind(bench: Bench, garbage: bytes) -> None:
    bench.write(frame(CANCEL, 1) + garbage)
    bench.until_end()
    assert [n for _, n, _ in bench.frames] == [1]
    assert [type(error) for error in bench.ends] == [FrameError]


@needs_tracing
@pytest.mark.parametrize("kind", range(4))
def test_a_large_buffer_takes_its_own_size_and_no_more(bench: Bench, kind: int) -> None:
    size = 64 * 1024 * 1024
    body = with_buffers([place()], [(kind, b"a" * size)])
    sizes = []
    bench.keep = lambda body, sinks: sizes.append(len(load(body, sinks)[0]))  # type: ignore[index]
    piece = frame(EVAL, 1, body, BUFFERS)
    thread = bench.write_aside(piece)
    with tracing() as peak:
        bench.until_end()
    thread.join()
    assert sizes == [size]
    # Text is decoded into another object.
    assert peak[0] < size * (2 if kind == 1 else 1) + 2_000_000


@needs_tracing
def test_a_length_is_not_believed(bench: Bench) -> None:
    lie = 2**31
    bench.write(frame(EVAL, 1, b"")[:12] + struct.pack("<QQ", lie, 0) + b"x")
    bench.hang_up()
    with tracing() as peak:
        bench.until_end()
    assert peak[0] < AHEAD + 2_000_000
    assert bench.frames == []


class Maker:
    """Becomes what the garbage collector is when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return gc.isenabled, ()


class Failing:
    """Can't be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("enabled", [False, True])
def test_the_garbage_collector_rests_while_a_large_value_is_made(
    size: int, *, enabled: bool
) -> None:
    body = pickle.dumps([Maker(), "x" * size])
    if not enabled:
        gc.disable()
    try:
        value: Any = load(body, ())
        assert value[0] is (enabled and size == 10)
        assert gc.isenabled() is enabled
        with pytest.raises(ValueError, match="invalid literal"):
            load(pickle.dumps([Failing(), "x" * size]), ())
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [None, 0, 1, 2, 3])
def test_what_memory_has_no_room_for_is_an_error_of_that_frame_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: int | None
) -> None:
    def no_room(size: int, *, mutable: bool) -> Any:
        if size > 1_000_000:
            raise MemoryError
        return _new_home(size, mutable=mutable)

    monkeypatch.setattr("snex._wire.sinks._new_home", no_room)

    def keep(body: Any, sinks: Any) -> object:
        try:
            return load(body, sinks)
        except MemoryError as error:
            return error

    bench.keep = keep
    long = b"a" * 2_000_000
    if kind is None:
        piece = frame(EVAL, 1, pickle.dumps(long))
    else:
        buffers = [(2, b"b" * 100), (kind, long)]
        piece = frame(EVAL, 1, with_buffers([place(), place()], buffers), BUFFERS)
    behind = frame(EVAL, 2, pickle.dumps("behind"))
    thread = bench.write_aside(piece + behind)
    bench.until_end()
    thread.join()
    [(_, _, error), (_, number, value)] = bench.frames
    assert isinstance(error, MemoryError)
    assert str(error).startswith("not enough memory for 2000")
    assert (number, value) == (2, "behind")
