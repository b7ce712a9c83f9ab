"""How many requests can lie on top of each other on the event loop's thread.

Each level takes 1 to 10 KiB of the thread's stack for what is ours, and whatever user code takes; beyond the end of the stack
the process would crash. Where the system says how much of the stack has been used at most (Linux), that decides, otherwise the
number of levels.
"""

from __future__ import annotations

import os

# Levels that are no reason to look.
_FEW = 16
# Look again after so many.
_STEP = 8
_MOST = 10_000
_DEEP = "calls between Elixir and Python are nested too deeply: {} wait on the event loop's thread"
# Bytes of the stack for each level where nothing better is known.
_ASSUMED = 32 * 1024


def _nested(levels: int) -> tuple[object, ...]:
    outer: tuple[object, ...] = ()
    for _ in range(levels):
        outer = (outer,)
    return outer


# What waits, and what begins a request, must not run out of recursion half-way. Calls of C functions within each other are what
# counts, from Python 3.12 on apart from those of Python functions.
_NESTED = _nested(40)
_AS_DEEP = _nested(40)


def check_recursion() -> None:
    """Raise `RecursionError` if there is too little left for code of ours."""
    # The fastest function that calls itself in C.
    _NESTED.__eq__(_AS_DEEP)


class Depth:
    """The levels of one thread."""

    def __init__(self) -> None:
        """Begin without any."""
        # Not at every interpreter's start.
        import resource

        size, _ = resource.getrlimit(resource.RLIMIT_STACK)
        unlimited = size == resource.RLIM_INFINITY
        self.levels = 0
        # Bytes of the stack that may be used: some are left for user code.
        self._room = 0 if unlimited else size - size // 4
        self._counted = _MOST if unlimited else min(size // _ASSUMED, _MOST)
        # The most that has been used, now and when there were few levels.
        self._used = self._used_before = 0

    def check(self) -> None:
        """Raise `RecursionError` if there is no room for one more."""
        if not self._has_room():
            raise RecursionError(_DEEP.format(self.levels))

    def _has_room(self) -> bool:
        levels = self.levels
        if levels < _FEW:
            return True
        if levels % _STEP == 0:
            self._used = _most_used()
            if levels == _FEW:
                self._used_before = self._used
        if not self._room or not self._used:
            return levels < self._counted
        if self._used >= self._room and self._used == self._used_before:
            # Something else has used that much, earlier.
            return levels < self._counted
        return self._used < self._room and levels < _MOST


def _most_used() -> int:
    """Return how many bytes of the main thread's stack have been used at most; 0 where that is unknown."""
    try:
        status = os.open("/proc/self/status", os.O_RDONLY)
    except OSError:
        return 0
    try:
        lines = os.read(status, 64 * 1024).splitlines()
    finally:
        os.close(status)
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"VmStk:")), 0)
