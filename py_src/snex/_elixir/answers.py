"""Answers of the VM to calls: from a frame to a value or an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._wire import frame
from .._wire.body import load
from .calls import ElixirError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._eval.objects import Hold
    from .._wire.body import Body
    from .._wire.sinks import Sink


class Answer:
    """A frame that answers a call, undecoded."""

    __slots__ = ("body", "hold", "kind", "sinks")

    def __init__(
        self, kind: int, body: Body, sinks: Sequence[Sink], hold: Hold | None = None
    ) -> None:
        """Keep the parts. `hold` keeps the objects to which the frame refers."""
        self.hold = hold
        self.kind = kind
        self.body = body
        self.sinks = sinks


def value_of(answer: Answer | BaseException) -> object:
    """Return the value that an answer brings, or raise the error.

    Constructors of user classes run here, so the waiter calls it, in its own context.
    """
    if isinstance(answer, BaseException):
        raise answer
    try:
        value = load(answer.body, answer.sinks)
    except BaseException:
        from .client import current

        current().close_streams(answer.body)
        raise
    finally:
        if answer.hold is not None:
            answer.hold.release()
    if answer.kind != frame.CALL_ERROR:
        return value
    raise _error(value)


def error_of(answer: Answer) -> ElixirError:
    """Return the error that a frame brings."""
    return _error(load(answer.body, answer.sinks))


def _error(fields: Any) -> ElixirError:  # noqa: ANN401 - a dict
    return ElixirError(
        str(fields["kind"]), fields["reason"], fields["message"], fields["stacktrace"]
    )
