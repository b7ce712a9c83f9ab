"""Objects that the garbage collector has to find.

CPython frees most of them at once. PyPy finalizes what an object refers to in a later collection
than the object. Now and then its compiler also keeps what it has seen while it recorded a loop,
until that loop goes on, and the loop may be one of pytest's, around the test: whatever a test wants
to be gone is used in a thread of its own.
"""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from .vm import VM, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_IN_AN_INTERPRETER = """
import asyncio, gc

async def collect():
    while True:
        gc.collect()
        await asyncio.sleep(0.01)

collecting = asyncio.create_task(collect())
"""


def in_a_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own, and return its result when the thread has ended."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def collect_until(gone: Callable[[], bool]) -> None:
    """Collect garbage until something is gone."""

    def collected() -> bool:
        gc.collect()
        return gone()

    wait_until(collected)


def keep_collecting(vm: VM) -> None:
    """Have an interpreter collect garbage from now on."""
    vm.run(_IN_AN_INTERPRETER)
