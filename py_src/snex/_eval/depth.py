"""Limits how deeply requests are nested on the event loop's thread.

Each level takes 1 to 10 KiB of the thread's stack for our code, and whatever user code takes; past the end of the stack,
the process would crash. If the system knows the most that has been used of the stack (Linux), that is the limit; otherwise
the number of levels is.
"""

from __future__ import annotations

import os

# Up to this many levels, nothing is checked.
_FEW = 16
# Levels from one check to the next.
_STEP = 8
_MOST = 10_000
_DEEP = "calls between Elixir and Python are nested too deeply: {} wait on the event loop's thread"
# Bytes of the stack that a level is assumed to take if the system does not tell.
_ASSUMED = 32 * 1024


def _nested(levels: int) -> tuple[object, ...]:
    outer: tuple[object, ...] = ()
    for _ in range(levels):
        outer = (outer,)
    return outer


# Code that waits or begins a request must not reach the recursion limit half-way. What counts are nested calls of C functions,
# which have a limit of their own since Python 3.12.
_NESTED = _nested(40)
_AS_DEEP = _nested(40)


def check_recursion() -> None:
    """Raise `RecursionError` if too little of the limit is left for our code."""
    # The fastest C function that calls itself.
    _NESTED.__eq__(_AS_DEEP)


class Depth:
    """The levels of one thread."""

    def __init__(self) -> None:
        """Begin without levels."""
        # Not at every interpreter's start.
        import resource

        size, _ = resource.getrlimit(resource.RLIMIT_STACK)
        unlimited = size == resource.RLIM_INFINITY
        self.levels = 0
        # Bytes of the stack that may be used: a quarter is left for user code.
        self._room = 0 if unlimited else size - size // 4
        self._counted = _MOST if unlimited else min(size // _ASSUMED, _MOST)
        # The most that was used, at the last check and when there were few levels.
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
            # Something else used that much earlier, so the number of levels decides.
            return levels < self._counted
        return self._used < self._room and levels < _MOST


def _most_used() -> int:
    """Return the most bytes of the main thread's stack that have been used; 0 if unknown."""
    try:
        status = os.open("/proc/self/status", os.O_RDONLY)
    except OSError:
        return 0
    try:
        lines = os.read(status, 64 * 1024).splitlines()
    finally:
        os.close(status)
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"VmStk:")), 0)
