from __future__ import annotations

import mmap
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.slots import needs_memory_files

from snex._wire import mappings
from snex._wire.mappings import LARGE_PAGE, use_large_pages

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_memory_files


@pytest.fixture
def fd() -> Iterator[int]:
    fd = os.memfd_create("test")
    yield fd
    os.close(fd)


def gives_large_pages() -> bool:
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    supported = release is not None and tuple(map(int, release.groups())) >= (6, 1)
    setting = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    return supported and setting.exists() and "[deny]" not in setting.read_text()


def large_pages_of_files() -> int:
    """Return how many bytes of the system's memory files have large pages."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("ShmemHugePages:"))


@pytest.mark.parametrize("size", [1, LARGE_PAGE - 1, LARGE_PAGE, 5 * LARGE_PAGE // 2 + 1])
@pytest.mark.parametrize("advice", [mappings._MADV_COLLAPSE, 999])
def test_a_file_is_as_long_and_as_empty_as_before(
    fd: int, size: int, advice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mappings, "_MADV_COLLAPSE", advice)
    os.ftruncate(fd, size)
    use_large_pages(fd, 0, size)
    assert os.fstat(fd).st_size == size
    assert os.pread(fd, size + 1, 0) == bytes(size)
    with mmap.mmap(fd, size) as mapping:
        mapping[-1:] = b"x"
    assert os.pread(fd, 1, size - 1) == b"x"


@pytest.mark.skipif(not gives_large_pages(), reason="the system gives no large pages")
@pytest.mark.parametrize("start", [0, 20 * LARGE_PAGE - 1])
def test_it_has_large_pages_wherever_they_fit(fd: int, start: int) -> None:
    stop = start + 9 * LARGE_PAGE + 1
    os.ftruncate(fd, stop)
    # Other programs have some too, and the system may have none at hand now and then.
    for _ in range(20):
        before = large_pages_of_files()
        use_large_pages(fd, start, stop)
        if large_pages_of_files() >= before + 9 * LARGE_PAGE:
            assert os.fstat(fd).st_blocks * 512 == 9 * LARGE_PAGE
            return
        os.ftruncate(fd, 0)
        os.ftruncate(fd, stop)
    pytest.fail("no large pages")


@pytest.mark.parametrize("error", [ImportError, AttributeError, OSError])
def test_a_system_without_is_none_the_worse(
    fd: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(mappings, "_map", refuse)
    os.ftruncate(fd, LARGE_PAGE)
    use_large_pages(fd, 0, LARGE_PAGE)
    assert os.pread(fd, LARGE_PAGE, 0) == bytes(LARGE_PAGE)


def test_what_lies_around_a_range_stays_as_it_is(fd: int) -> None:
    os.ftruncate(fd, 4 * LARGE_PAGE)
    os.pwrite(fd, b"x" * 4096, LARGE_PAGE - 4096)
    os.pwrite(fd, b"y", 3 * LARGE_PAGE)
    use_large_pages(fd, LARGE_PAGE - 1, 3 * LARGE_PAGE + 1)
    assert os.pread(fd, 4096, LARGE_PAGE - 4096) == b"x" * 4096
    assert os.pread(fd, 2 * LARGE_PAGE + 1, LARGE_PAGE) == bytes(2 * LARGE_PAGE) + b"y"
    # One page before it, at least one in each large page, and one behind it.
    assert os.fstat(fd).st_blocks * 512 in (4 * 4096, 2 * LARGE_PAGE + 2 * 4096)


def test_no_addresses_are_left(fd: int) -> None:
    def taken() -> int:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return sum("memfd:test" in line or " ---p " in line for line in lines)

    os.ftruncate(fd, 3 * LARGE_PAGE)
    before = taken()
    use_large_pages(fd, 0, 3 * LARGE_PAGE)
    assert taken() == before
