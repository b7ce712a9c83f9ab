"""The end of an interpreter that has run out of memory.

Once a request has failed with a `MemoryError` under a limit, hardly anything works any more, and our own
code may fail next. So Python answers that request and ends, and its supervisor starts another. The memory
for that is reserved at the start.
"""

from __future__ import annotations

import builtins
from contextlib import suppress
from typing import Any

from ._etf.encoder import encode

# For Elixir, this status means that memory ran out.
EXIT_MEMORY = 79
# New in Python 3.11.
_GROUP: Any = getattr(builtins, "BaseExceptionGroup", ())
_RESERVE = 8 * 1024 * 1024

# The answer to a request for whose error there is no memory.
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
    """The reserve, and whether Python ends when memory runs out."""

    ends = False
    reserve: bytearray | None = None


def prepare(*, ends: bool) -> None:
    """Reserve memory. `ends` says that a request that fails for lack of memory is the last one."""
    Memory.ends = ends
    with suppress(MemoryError):
        Memory.reserve = bytearray(_RESERVE) if ends else None


def is_exhausted(error: BaseException | None) -> bool:
    """Return whether an exception says that there is no memory. If so, the reserve is freed."""
    if isinstance(error, MemoryError) or (
        isinstance(error, _GROUP) and error.subgroup(MemoryError) is not None
    ):
        Memory.reserve = None
        return True
    return False
