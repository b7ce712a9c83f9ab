"""Homes of large buffers: filled piece by piece, by the extension and without it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.memory import needs_tracing, tracing

from snex._wire import sinks
from snex._wire.sinks import SINKS, BytesSink, MemorySink, PickleSink, Sink, StrSink, ViewSink

needs_room = pytest.mark.skipif(
    sinks._room is None, reason="the extension is not beside the sources"
)
both_homes = pytest.mark.usefixtures("_homes")
TYPES = {
    BytesSink: bytes,
    StrSink: str,
    Sink: bytearray,
    ViewSink: memoryview,
    MemorySink: bytearray,
    PickleSink: memoryview,
}


@pytest.fixture(params=["room", "growing"])
def _homes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "growing":
        monkeypatch.setattr(sinks, "_room", None)
    elif sinks._room is None:
        pytest.skip("the extension is not beside the sources")


@both_homes
@pytest.mark.parametrize("kind", SINKS)
def test_a_sink_is_filled_in_pieces(kind: type[Sink], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "AHEAD", 1000)
    content = bytes(i % 100 for i in range(5500))
    sink = kind(len(content))
    for start in range(0, len(content), 700):
        sink.put(memoryview(content)[start : start + 700])
    assert sink.content() == content
    result = sink.finish()
    assert type(result) is TYPES[kind]
    assert result == (content.decode() if kind is StrSink else content)


@both_homes
@pytest.mark.parametrize("kind", SINKS)
def test_an_empty_sink_finishes(kind: type[Sink]) -> None:
    result = kind(0).finish()
    assert type(result) is TYPES[kind]
    assert result == ("" if kind is StrSink else b"")


@both_homes
def test_what_is_no_text_is_refused_with_its_place() -> None:
    sink = StrSink(3)
    sink.put(memoryview(b"a\xffb"))
    for _ in range(2):
        with pytest.raises(UnicodeDecodeError, match="position 1"):
            sink.finish()


@both_homes
@pytest.mark.parametrize("kind", SINKS)
def test_a_sink_takes_no_memory_before_its_first_byte(kind: type[Sink]) -> None:
    many = [kind(2**40) for _ in range(100_000)]
    assert many[0].filled == 0


@both_homes
@pytest.mark.parametrize("kind", SINKS)
def test_the_content_of_a_sink_lives_on_without_it(kind: type[Sink]) -> None:
    sink = kind(100_000)
    sink.put(memoryview(b"x" * 100_000))
    content = sink.content()
    del sink
    others = [bytearray(b"y" * 100_000) for _ in range(10)]
    assert content == b"x" * 100_000
    assert len(others) == 10


@both_homes
@needs_tracing
@pytest.mark.parametrize("kind", SINKS)
def test_a_sink_that_is_never_filled_gives_its_memory_back(kind: type[Sink]) -> None:
    with tracing() as peak:
        for _ in range(20):
            kind(1_000_000).put(memoryview(b"x"))
    assert peak[0] < 3_000_000


@needs_room
def test_a_room_is_handed_out_once() -> None:
    assert sinks._room is not None
    room = sinks._room(10, False)  # noqa: FBT003 - as the extension wants it
    with room.view(3) as view:
        assert len(view) == 7
        assert not view.readonly
    assert len(room.finish()) == 10
    for again in (room.finish, lambda: room.view(0)):
        with pytest.raises(RuntimeError, match="has been handed out"):
            again()


@needs_room
def test_more_than_there_is_is_an_error() -> None:
    assert sinks._room is not None
    with pytest.raises((MemoryError, OverflowError)):
        sinks._room(2**62, False)  # noqa: FBT003 - as the extension wants it
    with pytest.raises(OverflowError):
        sinks._room(2**64, True)  # noqa: FBT003 - as the extension wants it


THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@needs_room
@pytest.mark.skipif(
    not THP.exists() or "[never]" in THP.read_text(), reason="the system has no large pages to give"
)
def test_a_large_one_asks_for_large_pages() -> None:
    size = 64 << 20
    sink = BytesSink(size)
    sink.put(memoryview(b"x"))
    sink.advance(size - 1)
    value = sink.finish()
    assert isinstance(value, bytes)
    middle = id(value) + sys.getsizeof(b"") + size // 2
    flags = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(" ", 1)[0]
        if "-" in first:
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= middle < end
        elif first == "VmFlags:" and inside:
            flags = line.split()[1:]
    # proc(5): "hg", huge page advise flag.
    assert flags is not None
    assert "hg" in flags
