"""Describes exceptions for the VM.

No exception may cause a failure here, although its `str`, its notes and its chain are user code or the
result of it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .sources import recall, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from traceback import TracebackException
    from types import TracebackType

PYTHON_ERROR = "python_runtime_error"
# The most exceptions of a chain: as many as a person would read. Recursion that fails inside of `except`
# makes chains of hundreds, each with hundreds of frames.
_MAX_CHAIN = 16
# What is kept of an error that is too large: characters of each text, and items of each list.
_MAX_TEXT = 1000
_MAX_LINES = 32
_OURS = __file__.removesuffix("_eval/traceback.py")

_UNPRINTABLE = "<exception str() failed>"


def error_fields(error: BaseException) -> dict[str, object]:
    """Return the body of an ERROR frame for an exception of user code."""
    return {
        "code": PYTHON_ERROR,
        "reason": _text(_str(error)),
        "traceback": [_text(line) for line in format_error(error)],
        "exception": _describe(error, _MAX_CHAIN),
    }


def shortened(value: Any) -> Any:  # noqa: ANN401 - any part of a body
    """Shorten the body of an ERROR frame that is too large to the beginning of each text and of each list.

    >>> shortened({"reason": "x" * 2000, "traceback": []})["reason"][-9:]
    'xxxxxx...'
    """
    if isinstance(value, dict):
        return {key: shortened(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shortened(part) for part in value[:_MAX_LINES]]
    if isinstance(value, bytes):
        return shortened(value[: 4 * _MAX_TEXT].decode(errors="ignore")).encode()
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        return value[:_MAX_TEXT] + "..."
    return value


def format_error(error: BaseException) -> list[str]:
    """Return what `traceback.format_exception` gives, without frames of this package on top.

    Lines of code that came as a string are shown, too.
    """
    try:
        with _ShortChain(error):
            return _format(error)
    except BaseException as problem:  # noqa: BLE001 - anything may come out of a broken exception
        name = type(error).__name__
        return [f"{name}: {_str(error)}\n", f"(no traceback: {type(problem).__name__})\n"]


def report(what: str, error: BaseException) -> None:
    """Print an exception that belongs to no answer to standard error."""
    # `sys.stderr` may be the user's own or `None`, and a signal handler may raise in here.
    with suppress(BaseException):
        sys.stderr.write("".join([f"snex: {what}\n", *format_error(error)]))


def _text(value: str) -> bytes:
    """Encode for the VM, even text with lone surrogates."""
    return value.encode("utf-8", "backslashreplace")


def _str(value: object) -> str:
    try:
        return str(value)
    except BaseException:  # noqa: BLE001 - user code
        return _UNPRINTABLE


def _describe(error: BaseException, depth: int) -> dict[str, object]:
    kind = type(error)
    cause = _next(error)
    return {
        "type": _text(_str(kind.__qualname__)),
        "module": _text(_str(kind.__module__)),
        "notes": [_text(_str(note)) for note in _notes(error)],
        "cause": _describe(cause, depth - 1) if cause is not None and depth else None,
    }


def _notes(error: BaseException) -> list[object]:
    try:
        notes = getattr(error, "__notes__", None)
    except BaseException:  # noqa: BLE001 - user code
        return []
    return notes if type(notes) is list else []


def _next(error: BaseException) -> BaseException | None:
    """Return the exception that led to this one, if a traceback would show it."""
    if error.__cause__ is not None:
        return error.__cause__
    return None if error.__suppress_context__ else error.__context__


class _ShortChain:
    """Cuts off a long chain of exceptions while it is being formatted, and restores it afterwards."""

    def __init__(self, error: BaseException) -> None:
        last: BaseException | None = error
        for _ in range(_MAX_CHAIN):
            last = _next(last) if last is not None else None
        self._last = last

    def __enter__(self) -> None:
        if (last := self._last) is not None:
            self._saved = (last.__cause__, last.__context__, last.__suppress_context__)
            last.__cause__ = last.__context__ = None

    def __exit__(self, *_: object) -> None:
        if (last := self._last) is not None:
            last.__cause__, last.__context__, last.__suppress_context__ = self._saved


def _format(error: BaseException) -> list[str]:
    from traceback import TracebackException

    report = TracebackException(
        type(error), error, error.__traceback__, lookup_lines=False, compact=True
    )
    for part, exception in _pairs(report, error):
        _adapt(part, exception.__traceback__)
    return [shown(text) for text in report.format()]


def _pairs(
    report: TracebackException, error: BaseException
) -> Iterator[tuple[TracebackException, BaseException]]:
    """Pair each part of a report with its exception."""
    todo: list[tuple[Any, Any]] = [(report, error)]
    while todo:
        part, exception = todo.pop()
        if part is None or exception is None:
            continue
        yield part, exception
        todo.append((part.__cause__, exception.__cause__))
        todo.append((part.__context__, exception.__context__))
        todo.extend(
            zip(getattr(part, "exceptions", None) or (), getattr(exception, "exceptions", ()))  # noqa: B905
        )


def _adapt(part: TracebackException, traceback: TracebackType | None) -> None:
    """Drop our own frames from the top, and put the sources of the others into `linecache`."""
    ours = 0
    top = True
    for _ in part.stack:
        if traceback is None:
            break
        code = traceback.tb_frame.f_code
        traceback = traceback.tb_next
        top = top and code.co_filename.startswith(_OURS)
        if top:
            ours += 1
        else:
            recall(code)
    del part.stack[:ours]
