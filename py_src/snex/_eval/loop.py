"""The event loop: asyncio's own, with two changes."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

from .._fork import in_child, leave
from .wait import new_selector

if TYPE_CHECKING:
    from selectors import BaseSelector

# Callbacks in a row before descriptors and timers are polled again.
_MAX_ROUND = 64


class Loop(asyncio.SelectorEventLoop):
    """Runs callbacks that were scheduled by callbacks before it polls again.

    A task that a callback creates, or that a future wakes, then starts without a system
    call in between. The number of callbacks in a row is bounded; it may be 0.

    A callback may itself run the loop, if user code has patched the loop to allow that (`nest_asyncio`).
    """

    def __init__(self, selector: BaseSelector, max_round: int) -> None:
        """Run up to `max_round` callbacks before polling again."""
        super().__init__(selector)
        self._max_round = max_round

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report an error. In a forked child, it ends the child: since Python 3.14, no task can continue there."""
        if in_child():
            error = context.get("exception")
            # The exception of the code is the context of asyncio's complaint about the loop.
            leave(error.__context__ or error if isinstance(error, RuntimeError) else error)
        super().call_exception_handler(context)

    def _run_once(self) -> None:
        this: Any = self
        ready = this._ready  # noqa: SLF001 - as the base class does
        try:
            super()._run_once()  # type: ignore[misc]
        except IndexError:
            # The base class counts the callbacks before it runs them, but one of them ran the others.
            if ready:
                raise
        left = self._max_round
        while ready and left and not this._stopping:  # noqa: SLF001 - as above
            left -= 1
            handle = ready.popleft()
            if not handle._cancelled:  # noqa: SLF001 - as above
                handle._run()  # noqa: SLF001 - as above


def new_loop(*, eager: bool, factory: str = "") -> asyncio.AbstractEventLoop:
    """Return a new event loop; a plain one if asyncio is not built as `Loop` expects.

    Args:
        eager: whether ready callbacks are run before polling again.
        factory: `"module:function"`, of a function that makes the loop instead, for example
            `"uvloop:new_event_loop"`. It needs `add_reader` and `add_writer`.

    Raises:
        RuntimeError: if the factory does not exist or does not make a loop.

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
    if not fits:
        return loop  # type: ignore[no-any-return]
    loop.close()
    return Loop(new_selector(), _MAX_ROUND if eager else 0)


def _made_by(factory: str) -> asyncio.AbstractEventLoop:
    module, _, function = factory.partition(":")
    try:
        loop = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        msg = f"SNEX_LOOP_FACTORY: {factory!r} cannot make an event loop, expected 'module:function': {error}"
        raise RuntimeError(msg) from error
    if not isinstance(loop, asyncio.AbstractEventLoop):
        msg = f"SNEX_LOOP_FACTORY: expected {factory!r} to make an event loop, got {loop!r}"
        raise RuntimeError(msg)  # noqa: TRY004 - whoever set it reads one kind of error
    return loop
