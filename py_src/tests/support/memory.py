"""How much memory something takes, where Python can tell: `tracemalloc` is CPython's alone."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_tracing = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="needs CPython's tracemalloc"
)

# For code that runs in an interpreter: defines `trace` and `peak`, which tells nothing elsewhere.
TRACING = (
    "try:\n    import tracemalloc\n"
    "except ImportError:\n    trace, peak = lambda: None, lambda: 0\n"
    "else:\n    trace, peak = tracemalloc.start, lambda: tracemalloc.get_traced_memory()[1]\n"
)


@contextmanager
def tracing() -> Iterator[list[int]]:
    """Put the highest number of bytes in use into the list when it ends."""
    import tracemalloc

    peak: list[int] = []
    tracemalloc.start()
    try:
        yield peak
        peak.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
