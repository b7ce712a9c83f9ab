"""Mappings of memory files that Python's own `mmap` cannot make."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

# The size of a large page on most machines. If it is another one, the kernel refuses, and small pages are used.
LARGE_PAGE = 2 * 1024 * 1024

# Constants of `mmap` and `madvise` on Linux, which only recent versions of Python define, or none.
_PROT_NONE = 0
_MAP_FIXED = 0x10
_MADV_COLLAPSE = 25
# MAP_PRIVATE, MAP_ANONYMOUS and MAP_NORESERVE: to reserve addresses without memory.
_ADDRESSES = 0x2 | 0x20 | 0x4000


def make_private(memory: mmap.mmap, fd: int) -> None:
    """Replace a mapping by a private one with the same content, at the same address.

    Raises:
        OSError: if the system refuses.
        ImportError: without `ctypes`.
    """
    import ctypes

    first = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(first)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    _map(address, len(memory), protection, mmap.MAP_PRIVATE | _MAP_FIXED, fd)
    del first


def use_large_pages(fd: int, start: int, stop: int) -> None:
    """Give a range of a file that has no memory yet large pages, as far as they fit and the system has some.

    Memory that is touched for the first time costs a page fault for every 4 KiB, which takes longer than it
    takes to fill them, and unmapping them costs again. Since Linux 6.1, a file in memory gets pages of 2 MiB on
    request, whatever the system's settings prefer (madvise(2), `MADV_COLLAPSE`).

    For the request, the file must be mapped at a multiple of their size. Afterwards the pages stay with the file,
    wherever it is mapped.
    """
    start = _round_up(start)
    length = stop // LARGE_PAGE * LARGE_PAGE - start
    if length <= 0:
        return
    try:
        library = _library()
        around = length + LARGE_PAGE
        reserved = _map(None, around, _PROT_NONE, _ADDRESSES, -1)
        try:
            address = _round_up(reserved)
            _map(address, length, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, fd, start)
            # The kernel only replaces pages that exist, so one is touched in each large page.
            for offset in range(start, start + length, LARGE_PAGE):
                os.pwrite(fd, b"\0", offset)
            # If it fails, the pages stay small.
            library.madvise(address, length, _MADV_COLLAPSE)
        finally:
            library.munmap(reserved, around)
    except (ImportError, AttributeError, OSError):
        return


def address_of(part: bytes | memoryview) -> int | None:
    """Return where a writable part lies in memory; None if it is not writable, or nobody can tell."""
    if memoryview(part).readonly:
        # `ctypes` of PyPy would tell.
        return None
    try:
        import ctypes

        return ctypes.addressof(ctypes.c_char.from_buffer(part))
    except (ImportError, TypeError, ValueError):
        return None


def _round_up(number: int) -> int:
    return -(-number // LARGE_PAGE) * LARGE_PAGE


def _map(  # noqa: PLR0913 - those of mmap(2)
    address: int | None, length: int, protection: int, flags: int, fd: int, offset: int = 0
) -> int:
    import ctypes

    found: int = _library().mmap(address, length, protection, flags, fd, offset)
    if found == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "the memory cannot be mapped")
    return found


def _library() -> Any:  # noqa: ANN401 - of ctypes
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    library.mmap.restype = pointer
    library.mmap.argtypes = [pointer, size, number, number, number, ctypes.c_long]
    library.madvise.argtypes = [pointer, size, number]
    library.munmap.argtypes = [pointer, size]
    return library
