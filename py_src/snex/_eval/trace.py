"""Trace context, if `opentelemetry` is loaded: from the caller in Elixir, and with calls back to Elixir.

It travels as a `traceparent` of the W3C, https://www.w3.org/TR/trace-context/. Without
`opentelemetry`, nothing is imported and nothing is done.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

_modules = sys.modules


def current() -> str | None:
    """Return the current span as a `traceparent`; None if there is none."""
    trace: Any = _modules.get("opentelemetry.trace")
    if trace is None:
        return None
    # An error in `opentelemetry` must not fail the call.
    with suppress(Exception):
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            # Version 00 has only one flag: sampled.
            return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags & 1:02x}"
    return None


def call(traceparent: str | None, function: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
    """Call a function within the span."""
    if traceparent is None:
        return function()
    with _attached(traceparent):
        return function()


async def wait(traceparent: str | None, awaitable: Awaitable[Any]) -> Any:  # noqa: ANN401 - as above
    """Await something within the span."""
    if traceparent is None:
        return await awaitable
    with _attached(traceparent):
        return await awaitable


@contextmanager
def _attached(traceparent: str) -> Iterator[None]:
    context: Any = _modules.get("opentelemetry.context")
    token = None
    if context is not None:
        with suppress(Exception):
            from opentelemetry.trace.propagation.tracecontext import (  # type: ignore[import-not-found,unused-ignore]
                TraceContextTextMapPropagator,
            )

            carrier = {"traceparent": traceparent}
            token = context.attach(TraceContextTextMapPropagator().extract(carrier))
    try:
        yield
    finally:
        if token is not None:
            # Otherwise the environment would keep the span for its next call.
            context.detach(token)
