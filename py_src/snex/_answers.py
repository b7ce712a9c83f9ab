"""Answers of the VM to calls: from a frame to a value, or to the error that it tells of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import _frame
from ._body import load
from ._calls import ElixirError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._body import Body
    from ._sinks import Sink


class Answer(NamedTuple):
    """A frame that answers a call, as it came."""

    kind: int
    body: Body
    sinks: Sequence[Sink]


def outcome(answer: Answer | BaseException) -> tuple[BaseException | None, object]:
    """Return `(None, value)`, or `(error, None)` for an answer that is one or does not load."""
    if isinstance(answer, BaseException):
        return answer, None
    try:
        value = load(answer.body, answer.sinks)
        if answer.kind != _frame.CALL_ERROR:
            return None, value
        fields: Any = value
        return ElixirError(
            str(fields["kind"]), fields["reason"], fields["message"], fields["stacktrace"]
        ), None
    except Exception as error:  # noqa: BLE001 - goes to the caller
        return error, None
    except BaseException as error:  # noqa: BLE001 - asyncio would end the loop with these
        return RuntimeError(f"the result raised {error!r}"), None
