"""Whether a call that has waited can still be done before its caller gives up.

Under overload every call waits nearly as long as its caller does. If each of them were begun all the
same, each would be interrupted shortly before its end, and nothing would ever be answered. So a call
is refused if less time is left than calls like it have lately taken; the next one has more.

Only waiting is a reason. A call whose time would not have been enough from the start is begun: maybe
it takes less this time, and otherwise nobody would ever find out.
"""

from __future__ import annotations

import time
from functools import partial

_NANOSECONDS = 1e9
# As in RFC 6298, which estimates round trips.
_MEAN_GAIN = 1 / 8
_DEVIATION_GAIN = 1 / 4
_DEVIATIONS = 2
# A call that has waited for less of its time is begun in any case: what is known of others is no better than that.
_LITTLE = 0.1


# `now()` returns seconds of the clock by which the VM says when a caller gives up.
now = partial(time.clock_gettime, time.CLOCK_MONOTONIC)


class Durations:
    """How long calls have lately taken, in seconds."""

    __slots__ = ("_deviation", "_mean", "likely")

    def __init__(self) -> None:
        """Begin without any."""
        self._mean = 0.0
        self._deviation = 0.0
        # What the next one will hardly exceed; 0 if nothing is known.
        self.likely = 0.0

    def add(self, took: float) -> None:
        """Take a call into account that has come to its end."""
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
        """Take a call into account that would have taken longer."""
        if took > self._mean:
            self.add(took)


def refusal(until: int, timeout: int, likely: float, begin: float) -> str | None:
    """Return why a call that could begin now is not begun, or None.

    Args:
        until: when its caller gives up, in nanoseconds.
        timeout: how long its caller waits in all, in nanoseconds.
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
