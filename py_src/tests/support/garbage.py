"""Objects that the garbage collector has to find.

CPython frees most of them at once. PyPy finalizes what an object refers to in a later collection
than the object. Its compiler also keeps what a function has used until that function returns, now
and then: whatever a test wants to be gone belongs in a function of its own.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from .vm import VM, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

_IN_AN_INTERPRETER = """
import asyncio, gc

async def collect():
    while True:
        gc.collect()
        await asyncio.sleep(0.01)

collecting = asyncio.create_task(collect())
"""


def collect_until(gone: Callable[[], bool]) -> None:
    """Collect garbage until something is gone."""

    def collected() -> bool:
        gc.collect()
        return gone()

    wait_until(collected)


def keep_collecting(vm: VM) -> None:
    """Have an interpreter collect garbage from now on."""
    vm.run(_IN_AN_INTERPRETER)
