"""Threads that C code started: their names, and the libraries whose code they run."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PROC = "/proc/self"
# The bytes of a thread's stack that are searched.
_STACK = 8192
_WORD = 8
# Libraries in which any thread waits, or which start any thread.
_COMMON = (
    "libc.",
    "libc-",
    "libpthread",
    "ld-",
    "libstdc++",
    "libgcc",
    "libpython",
    "python",
    "pypy",
    "libpypy",
)


# Threads that their library starts again in a copy: those of the allocator jemalloc, and of Arrow's pools.
_RESTARTED_NAMES = frozenset({"jemalloc_bg_thd"})
_RESTARTED_LIBRARIES = ("libarrow.",)


def lost(threads: Iterable[int]) -> list[int]:
    """Return the threads that nothing starts again after a fork."""
    left = [thread for thread in threads if _name(thread) not in _RESTARTED_NAMES]
    if not left:
        return []
    libraries = _libraries()
    return [
        thread
        for thread in left
        if not (_library(thread, libraries) or "").startswith(_RESTARTED_LIBRARIES)
    ]


def describe(threads: Iterable[int]) -> list[str]:
    """Return descriptions of these threads; equal ones are counted."""
    libraries = _libraries()
    counts: Counter[str] = Counter()
    for thread in threads:
        library = _library(thread, libraries)
        counts[f"{_name(thread)} ({library})" if library else _name(thread)] += 1
    return [name if count == 1 else f"{count} of {name}" for name, count in counts.items()]


def _name(thread: int) -> str:
    try:
        with open(f"{_PROC}/task/{thread}/comm") as file:  # noqa: PTH123 - as everywhere at the start
            return file.read().strip()
    except OSError:
        return f"thread {thread}"


def _libraries() -> list[tuple[int, int, str]]:
    """Return the ranges of code in memory: the start, the end, and the file name of each."""
    found = []
    try:
        with open(f"{_PROC}/maps") as file:  # noqa: PTH123 - as above
            for line in file:
                fields = line.split(maxsplit=5)
                if len(fields) == 6 and "x" in fields[1] and fields[5].startswith("/"):  # noqa: PLR2004
                    begin, _, end = fields[0].partition("-")
                    name = os.path.basename(fields[5].strip())  # noqa: PTH119 - as above
                    found.append((int(begin, 16), int(end, 16), name))
    except OSError:
        return []
    return found


def _library(thread: int, libraries: list[tuple[int, int, str]]) -> str | None:
    """Return the library whose code a thread runs, found by the return addresses on its stack."""
    try:
        with open(f"{_PROC}/task/{thread}/syscall") as file:  # noqa: PTH123 - as above
            stack = int(file.read().split()[-2], 16)
        with open(f"{_PROC}/mem", "rb", buffering=0) as memory:  # noqa: PTH123 - as above
            memory.seek(stack)
            content = memory.read(_STACK)
    except (OSError, ValueError, IndexError, OverflowError):
        # It is running right now, or the system does not tell.
        return None
    for place in range(0, len(content) - _WORD + 1, _WORD):
        address = int.from_bytes(content[place : place + _WORD], "little")
        for begin, end, name in libraries:
            if begin <= address < end and not name.startswith(_COMMON):
                return name
    return None
