"""Waiting for events: a short spin before the sleep, as long as that pays.

Waking a sleeping process takes 20 us or more if the processor must wake, too, which is most of the
time of a small call. Under a steady stream of requests, the next one often comes sooner than that.
So a selector that has lately seen such short waits polls for a moment before it sleeps.

A spin in vain lasts no longer than a few wake-ups would. After each one, more short waits must be
seen before the next spin: twice as many as the last time, up to a limit. A selector whose waits are
long never spins, so an idle interpreter costs nothing. (On spinning for as long as
the sleep would cost: Karlin, Manasse, McGeoch, Owicki, "Competitive randomized algorithms for
nonuniform problems", Algorithmica 11, 1994.)
"""

from __future__ import annotations

import os
import select
import selectors
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selectors import SelectorKey

_yield = getattr(os, "sched_yield", lambda: None)
# Seconds of one spin, unless SNEX_SPIN says otherwise.
_SPIN = 100e-6
# In spins: a shorter wait, including the wake-up, would have been covered by a spin.
_SHORT = 4
_MOST_SHORT_WAITS = 8
# Microseconds.
_MOST = 1000


def spin_pure(descriptor: int, seconds: float) -> bool:
    """Poll a selector's descriptor for some seconds. Returns whether there are events.

    The extension's version does so without the GIL, so that a thread that was just woken can run immediately.
    """
    look = select.poll()
    look.register(descriptor, select.POLLIN)
    end = perf_counter() + seconds
    while perf_counter() < end:
        if look.poll(0):
            return True
        # The sender of the next event may need this processor.
        _yield()
    return False


try:
    from .._etf._native import spin
except ImportError:
    spin = spin_pure


class SpinningSelector(selectors.DefaultSelector):
    """A selector for one event loop that spins for `time` seconds before it sleeps."""

    def __init__(self, time: float = _SPIN) -> None:
        """Prepare; with 0 it always sleeps."""
        super().__init__()
        self._time = time
        # The short waits to be seen before the next spin, and their number after a spin in vain.
        self._left = 1
        self._price = 1

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Wait for events as any selector does."""
        poll = super().select
        if (timeout is not None and timeout <= 0) or not self._time:
            return poll(timeout)
        begin = perf_counter()
        if self._left:
            events = poll(timeout)
            if perf_counter() - begin < _SHORT * self._time:
                self._left -= 1
            return events
        time = self._time if timeout is None else min(timeout, self._time)
        if spin(self.fileno(), time):
            events = poll(0)
            if events:
                self._price = 1
                return events
        self._left = self._price
        self._price = min(2 * self._price, _MOST_SHORT_WAITS)
        return poll(None if timeout is None else max(begin + timeout - perf_counter(), 0))


def new_selector() -> selectors.BaseSelector:
    """Return the selector for the interpreter's event loop.

    `SNEX_SPIN` is the time of a spin in microseconds; 0 disables it. With a single processor there is
    no spin either, because it would keep the sender from running.

    Raises:
        RuntimeError: for a `SNEX_SPIN` that is not a number from 0 to 1000.
    """
    value = os.environ.get("SNEX_SPIN", "")
    microseconds = _number(value) if value else _SPIN * 1e6
    if microseconds is None or not 0 <= microseconds <= _MOST:
        msg = f"SNEX_SPIN: expected microseconds from 0 to {_MOST}, got {value!r}"
        raise RuntimeError(msg)
    return SpinningSelector(microseconds * 1e-6 if _processors() > 1 else 0)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1
