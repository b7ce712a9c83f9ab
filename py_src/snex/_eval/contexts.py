"""The context variables of environments.

A call runs in a copy of its environment's context. When it ends, the environment gets the variables that
it set: later calls see them, concurrent calls do not.

The context of `decimal` is an object in a context variable, and is changed in place. Each call
gets a copy of it, as if it were a plain value.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .request import current, set_current

if TYPE_CHECKING:
    from contextvars import Context, ContextVar

    from .request import Request

_modules = sys.modules
_MISSING = object()
# The context variable of `decimal`, once `decimal` has been imported.
_decimal: ContextVar[Any] | None = None


def enter(request: Request) -> None:
    """Make the running context, which is a fresh copy, that of a request."""
    set_current(request)
    if "decimal" in _modules:
        variable = _decimal or _find_decimal()
        if variable is not None and (shared := variable.get(None)) is not None:
            variable.set(shared.copy())


def _find_decimal() -> ContextVar[Any] | None:
    """Return the variable of `decimal`, which is recognized by its value."""
    global _decimal  # noqa: PLW0603 - found once
    from contextvars import Context, copy_context

    def look() -> ContextVar[Any] | None:
        get = getattr(_modules["decimal"], "getcontext", None)
        # Another thread may be importing it now.
        mine = get() if get is not None else _MISSING
        return next((v for v, value in copy_context().items() if value is mine), None)

    _decimal = Context().run(look)
    return _decimal


def merge(latest: Context, changed: Context, base: Context | None = None) -> Context:
    """Return `latest` with the variables of `changed`: all, or only those that differ from `base`."""
    result = latest.copy()
    for variable, value in changed.items():
        before = _MISSING if base is None else base.get(variable, _MISSING)
        if variable is not current and not _same(variable, before, value):
            result.run(variable.set, value)
    return result


def _same(variable: ContextVar[Any], before: object, value: object) -> bool:
    if variable is _decimal and before is not _MISSING:
        # Compared by its settings: each call has a copy, and almost every operation sets a flag in it.
        return _settings(before) == _settings(value)
    return before is value


def _settings(context: Any) -> tuple[object, ...]:  # noqa: ANN401 - a `decimal.Context`
    return (
        context.prec,
        context.rounding,
        context.Emin,
        context.Emax,
        context.capitals,
        context.clamp,
        context.traps,
    )
