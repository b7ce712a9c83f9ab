"""Whether too much waits to be written, and who waits for that to change."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Pressure:
    """The part of a writer that its users look at, on any thread.

    `full` says that nobody should add anything now, `broken` that nobody reads any more.
    """

    def __init__(self, *, full: bool) -> None:
        """Begin, with or without room."""
        self.full = full
        self.broken = False
        # Changed by single operations only.
        self._waiters: deque[Callable[[], None]] = deque()

    def when_drained(self, wake: Callable[[], None]) -> bool:
        """Have `wake` called, on any thread, once there is room. Returns False if there is now.

        It may be called in either case: who finds room at once may have been seen waiting.
        """
        self._waiters.append(wake)
        if self.full:
            return True
        self.forget(wake)
        return False

    def forget(self, wake: Callable[[], None]) -> None:
        """Take back `when_drained`."""
        with suppress(ValueError):
            self._waiters.remove(wake)

    def _wake_all(self) -> None:
        while self._waiters and not self.full:
            with suppress(IndexError):
                self._waiters.popleft()()
