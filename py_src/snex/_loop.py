"""The event loop: asyncio's own, with one change."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from ._wait import new_selector

# Callbacks in a row before descriptors and timers are looked at again.
_MAX_ROUND = 64


class EagerLoop(asyncio.SelectorEventLoop):
    """Runs callbacks that were scheduled by callbacks before it polls again.

    A task that is created by a callback, and a task woken by a future, then start without a system
    call in between. The number of callbacks in a row is bounded.
    """

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        this: Any = self
        ready = this._ready  # noqa: SLF001 - as the base class does
        left = _MAX_ROUND
        while ready and left and not this._stopping:  # noqa: SLF001 - as above
            left -= 1
            handle = ready.popleft()
            if not handle._cancelled:  # noqa: SLF001 - as above
                handle._run()  # noqa: SLF001 - as above


def new_loop(*, eager: bool, factory: str = "") -> asyncio.AbstractEventLoop:
    """Return a new event loop; a plain one where asyncio is not built as `EagerLoop` expects.

    Args:
        eager: whether ready callbacks are run before polling again.
        factory: `"module:function"`, of a function that makes the loop instead, for example
            `"uvloop:new_event_loop"`. It needs `add_reader` and `add_writer`.

    Raises:
        RuntimeError: for a factory that is not there or does not make a loop.

    >>> loop = new_loop(eager=True, factory="asyncio:SelectorEventLoop")
    >>> type(loop).__name__
    '_UnixSelectorEventLoop'
    >>> loop.close()
    """
    if factory:
        return _made_by(factory)
    loop: Any = asyncio.SelectorEventLoop(new_selector())
    needed = ("_run_once", "_ready", "_stopping")
    fits = all(hasattr(loop, name) for name in needed) and all(
        hasattr(asyncio.Handle, name) for name in ("_run", "_cancelled")
    )
    if not (eager and fits):
        return loop  # type: ignore[no-any-return]
    loop.close()
    return EagerLoop(new_selector())


def _made_by(factory: str) -> asyncio.AbstractEventLoop:
    module, _, function = factory.partition(":")
    try:
        loop = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        msg = f"SNEX_LOOP_FACTORY: no event loop can be made by {factory!r}, expected 'module:function': {error}"
        raise RuntimeError(msg) from error
    if not isinstance(loop, asyncio.AbstractEventLoop):
        msg = f"SNEX_LOOP_FACTORY: expected {factory!r} to make an event loop, got {loop!r}"
        raise RuntimeError(msg)  # noqa: TRY004 - whoever set it reads one kind of error
    return loop
