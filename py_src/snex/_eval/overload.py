"""Decides whether a call that has waited can still be done before its caller gives up.

Under overload, every call waits nearly as long as its caller does. If each of them were begun anyway,
each would be interrupted shortly before its end, and none would ever be answered. So a call is refused
if less time is left than calls like it have lately taken; then the next one has more.

Only a call that has waited is refused. A call whose timeout was too short from the start is begun: it may
take less time now, and otherwise nothing would ever show that.
"""

from __future__ import annotations

import time
from functools import partial

_NANOSECONDS = 1e9
# As in RFC 6298, which estimates round trips.
_MEAN_GAIN = 1 / 8
_DEVIATION_GAIN = 1 / 4
_DEVIATIONS = 2
# A call that has waited for less than this part of its time is begun in any case: estimates are no more precise than that.
_LITTLE = 0.1


# `now()` returns the seconds of the clock that the VM uses for deadlines.
now = partial(time.clock_gettime, time.CLOCK_MONOTONIC)


class Durations:
    """How long calls have lately taken, in seconds."""

    __slots__ = ("_deviation", "_mean", "likely")

    def __init__(self) -> None:
        """Begin without durations."""
        self._mean = 0.0
        self._deviation = 0.0
        # A time that the next call will hardly exceed; 0 if unknown.
        self.likely = 0.0

    def add(self, took: float) -> None:
        """Take a completed call into account."""
        if not self.likely:
            self._mean = mean = took
            self._deviation = deviation = took / 4
        else:
            mean = self._mean
            deviation = self._deviation
            error = took - mean
            self._mean = mean = mean + _MEAN_GAIN * error
            self._deviation = deviation = deviation + _DEVIATION_GAIN * (abs(error) - deviation)
        self.likely = mean + _DEVIATIONS * deviation

    def add_interrupted(self, took: float) -> None:
        """Take an interrupted call into account, which would have taken longer."""
        if took > self._mean:
            self.add(took)


def refusal(until: int, timeout: int, likely: float, begin: float) -> str | None:
    """Return why a call should not begin now, or None if it should.

    Args:
        until: when its caller gives up, in nanoseconds.
        timeout: how long its caller waits altogether, in nanoseconds.
        likely: how long it will probably take.
        begin: the present time.

    >>> refusal(10_000_000_000, 1_000_000_000, 0.1, 9.5) is None
    True
    >>> refusal(10_000_000_000, 1_000_000_000, 0.1, 9.95)
    'the call has waited 950 of its 1000 ms, and calls like it have lately taken 100 ms'
    >>> refusal(10_000_000_000, 1_000_000_000, 0.999, 9.002) is None
    True
    """
    left = until / _NANOSECONDS - begin
    if left >= likely:
        return None
    whole = timeout / _NANOSECONDS
    if likely > whole or whole - left < _LITTLE * whole:
        return None
    return (
        f"the call has waited {(whole - left) * 1000:.0f} of its {whole * 1000:.0f} ms, "
        f"and calls like it have lately taken {likely * 1000:.0f} ms"
    )
