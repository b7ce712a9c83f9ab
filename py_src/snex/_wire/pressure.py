"""Back-pressure of a writer: whether too much waits to be written, and who waits for room."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Pressure:
    """The part of a writer that its users see, on any thread.

    While `full` is set, nobody should write. `broken` is set once nobody reads any more.
    """

    def __init__(self, *, full: bool) -> None:
        """Begin, with or without room."""
        self.full = full
        self.broken = False
        # In order of arrival. Only changed by single operations, each of which takes constant time.
        self._waiters: OrderedDict[Callable[[], None], None] = OrderedDict()

    def when_drained(self, wake: Callable[[], None]) -> bool:
        """Have `wake` called, on any thread, once there is room. Returns False if there is room already.

        Even then `wake` may be called, by a thread that has seen it among the waiters.
        """
        self._waiters[wake] = None
        if self.full:
            return True
        self.forget(wake)
        return False

    def forget(self, wake: Callable[[], None]) -> None:
        """Take back `when_drained`."""
        self._waiters.pop(wake, None)

    def _wake_all(self) -> None:
        while self._waiters and not self.full:
            try:
                wake, _ = self._waiters.popitem(last=False)
            except KeyError:
                # Another thread has woken the last one.
                return
            wake()
