"""Children that user code forks and lets continue: they end as a script would.

A child shares the descriptors and the event loop's selector with its parent, and touches neither. When the
code that forked ends or raises an exception in the child, the child ends.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from ._eval.request import OUTSIDE, current
from ._eval.traceback import format_error

if TYPE_CHECKING:
    from typing import NoReturn

    from ._eval.request import Request


class _Process:
    is_child = False
    # The request whose code forked.
    request: Request = OUTSIDE


def _note() -> None:
    _Process.is_child = True
    _Process.request = current.get()


os.register_at_fork(after_in_child=_note)


def in_child() -> bool:
    """Return whether this process was forked from an interpreter."""
    return _Process.is_child


def become_copy() -> None:
    """Make this forked process an interpreter with a connection of its own."""
    _Process.is_child = False
    _Process.request = OUTSIDE


def end_of(request: Request, error: BaseException | None) -> None:
    """End a child with the code that forked it. Other requests belong to the parent."""
    if request is _Process.request:
        leave(error)


def leave(error: BaseException | None) -> NoReturn:
    """End a child: with status 0, or print `error` and end as it says."""
    status = 1
    try:
        status = _status(error)
        atexit._run_exitfuncs()  # noqa: SLF001 - as the end of a script does
    except BaseException as problem:  # noqa: BLE001 - nothing of it may get back to the event loop
        with suppress(BaseException):
            _print(problem)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    if isinstance(error, KeyboardInterrupt):
        # So that the parent sees a child that SIGINT has ended.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    os._exit(status)


def _status(error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        _print(error)
        return 1
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)  # noqa: T201 - as Python does
    return 1


def _print(error: BaseException) -> None:
    if sys.excepthook is not sys.__excepthook__:
        sys.excepthook(type(error), error, error.__traceback__)
    else:
        sys.stderr.write("".join(format_error(error)))
