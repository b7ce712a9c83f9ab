"""The end of an interpreter that has run out of memory.

Once a request has failed with a `MemoryError` under a limit, hardly anything works any more, and what
fails next may be a part of ours. So Python answers that request and ends, for its supervisor to start
another. What it takes to do so is set aside.
"""

from __future__ import annotations

import builtins
from contextlib import suppress
from typing import Any

from ._etf.encoder import encode

# For Elixir, this status means that memory ran out.
EXIT_MEMORY = 79
# Came with Python 3.11.
_GROUP: Any = getattr(builtins, "BaseExceptionGroup", ())
_RESERVE = 8 * 1024 * 1024

# Of a request for whose error there is no memory.
ANSWER = b"".join(
    encode(
        {
            "code": "python_runtime_error",
            "reason": "",
            "traceback": ["MemoryError\n"],
            "exception": {"type": "MemoryError", "module": "builtins", "notes": [], "cause": None},
        }
    )
)


class Memory:
    """What is set aside, and whether Python is to end."""

    ends = False
    reserve: bytearray | None = None


def prepare(*, ends: bool) -> None:
    """Set memory aside. `ends`: a request that fails for want of memory is the last."""
    Memory.ends = ends
    with suppress(MemoryError):
        Memory.reserve = bytearray(_RESERVE) if ends else None


def is_exhausted(error: BaseException | None) -> bool:
    """Return whether an exception says that there is no memory. What is set aside is free then."""
    if isinstance(error, MemoryError) or (
        isinstance(error, _GROUP) and error.subgroup(MemoryError) is not None
    ):
        Memory.reserve = None
        return True
    return False
