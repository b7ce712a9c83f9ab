"""What PyPy uses instead of system calls has to do the same, on every Python."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from snex._wire import vectored

if TYPE_CHECKING:
    from collections.abc import Iterator

READERS = [vectored.readv, vectored.readv_by_copy]
WRITERS = [vectored.writev, vectored.writev_by_copy]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    fds = os.pipe()
    for fd in fds:
        os.set_blocking(fd, False)
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("writev", WRITERS)
def test_parts_are_written_one_after_the_other(writev: object, pipe: tuple[int, int]) -> None:
    assert callable(writev)
    assert writev(pipe[1], [b"a", memoryview(bytearray(b"bc")), b"", b"d"]) == 4
    assert os.read(pipe[0], 100) == b"abcd"


@pytest.mark.parametrize("writev", WRITERS)
def test_what_the_pipe_does_not_take_is_told(writev: object, pipe: tuple[int, int]) -> None:
    assert callable(writev)
    data = [bytes([i]) * 300_000 for i in range(10)]
    count = writev(pipe[1], data)
    assert 0 < count < 3_000_000
    assert os.read(pipe[0], 4_000_000) == b"".join(data)[:count]


@pytest.mark.parametrize("writev", WRITERS)
def test_a_full_pipe_is_told_as_by_the_system(writev: object, pipe: tuple[int, int]) -> None:
    assert callable(writev)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe[1], bytes(4096))
    with pytest.raises(BlockingIOError):
        writev(pipe[1], [b"a", b"b"])


@pytest.mark.parametrize("readv", READERS)
def test_what_is_there_is_read_in_place(readv: object, pipe: tuple[int, int]) -> None:
    assert callable(readv)
    home = bytearray(10)
    with pytest.raises(BlockingIOError):
        readv(pipe[0], [memoryview(home)])
    os.write(pipe[1], b"abcdef")
    assert readv(pipe[0], [memoryview(home)[2:6]]) == 4
    assert readv(pipe[0], [memoryview(home)[6:]]) == 2
    assert home == b"\0\0abcdef\0\0"
