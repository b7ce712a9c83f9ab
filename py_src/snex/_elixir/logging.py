"""Passes records of Python's `logging` on to Elixir's `Logger`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from .._etf.encoder import encode
from .._etf.terms import Atom
from .._eval.handlers import checkpoint
from .._eval.sources import shown
from .._wire.frame import SPARE, TooLargeError
from .client import current

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Elixir's levels, each with the highest level of Python that becomes it; a level in between becomes the next higher
# one. Elixir has more levels: `notice` is between INFO and WARNING, and two are above CRITICAL.
_LEVELS = (
    (logging.DEBUG, Atom("debug")),
    (logging.INFO, Atom("info")),
    (logging.WARNING - 1, Atom("notice")),
    (logging.WARNING, Atom("warning")),
    (logging.ERROR, Atom("error")),
    (logging.CRITICAL, Atom("critical")),
    (logging.CRITICAL + 9, Atom("alert")),
)
_HIGHEST = Atom("emergency")

_DEFAULTS: dict[Atom, object] = {
    Atom("application"): Atom("snex"),
    Atom("domain"): [Atom("snex"), Atom("python")],
}

_MICROSECONDS = 1_000_000
# Characters that are logged of a text that is too large.
_BEGINNING = 1000


def elixir_level(level: int) -> Atom:
    """Return the level of Elixir's `Logger` for one of Python's.

    >>> [str(elixir_level(level)) for level in (10, 15, 25, 30, 35, 50, 55, 60)]
    ['debug', 'info', 'notice', 'warning', 'error', 'critical', 'alert', 'emergency']
    """
    return next((name for highest, name in _LEVELS if level <= highest), _HIGHEST)


class LoggingHandler(logging.Handler):
    """Passes log records on to Elixir's `Logger`, in order, from any thread.

    The message is the record as formatted by its formatter, including the traceback of an exception. The
    metadata has `file`, `line` and `time` as in `Logger`, `application` (`:snex`), `domain`
    (`[:snex, :python]`) and, if known, `python_logger_name`, `python_log_level`,
    `python_module`, `python_function`, `python_process_id`, `python_process_name`, `python_thread_id`,
    `python_thread_name`, `python_task_name` (of the asyncio task) and `python_exception` (the name of
    the exception's type).

    A call of `Snex.pyeval` returns after `Logger` has received all records of the call. `:allow` does not
    apply to logging: only `Logger` can be reached this way.

    Args:
        level: records below this level are left out, as in any `logging.Handler`.
        default_metadata: metadata of every record; its keys become atoms. It may replace the values of
            `application` and `domain`.
        extra_metadata_keys: which keys of a record's `extra` become metadata.

    >>> about = {"application": "my_app"}
    >>> handler = LoggingHandler(default_metadata=about, extra_metadata_keys={"user"})
    >>> logger = logging.getLogger("my_app.jobs")
    >>> logger.addHandler(handler)
    >>> logger.removeHandler(handler)
    """

    __module__ = "snex"

    def __init__(
        self,
        level: int | str = logging.NOTSET,
        *,
        default_metadata: Mapping[str, object] | None = None,
        extra_metadata_keys: Collection[str] | None = None,
    ) -> None:
        """Prepare the handler; it looks for the connection when something is logged."""
        super().__init__(level)
        default = {Atom(str(key)): value for key, value in (default_metadata or {}).items()}
        self._default = {**_DEFAULTS, **default}
        self._extra = tuple(extra_metadata_keys or ())

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record. Waits while too much data is waiting to be sent."""
        try:
            client = current()
            message = self.format(record)
            metadata = {**self._default, **self._metadata(record)}
            level = elixir_level(record.levelno)
            try:
                parts = encode((level, message, metadata), SPARE)
            except (TypeError, ValueError):
                # A single value that cannot be encoded is no reason to lose the rest.
                metadata = {key: _encodable(value) for key, value in metadata.items()}
                parts = encode((level, _encodable(message), metadata), SPARE)
            client.log(parts)
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - `logging` has a method for these
            self.handleError(record)
        # Outside of the `try`: an exception of a signal handler is not ours.
        checkpoint()

    def _metadata(self, record: logging.LogRecord) -> dict[Atom, object]:
        fields = vars(record)
        known: dict[str, Any] = {
            # A charlist, as Elixir's own `Logger` has it.
            "file": [ord(character) for character in shown(record.pathname)],
            "line": record.lineno,
            "time": round(record.created * _MICROSECONDS),
            "python_logger_name": record.name,
            "python_log_level": record.levelname,
            "python_module": record.module,
            "python_function": record.funcName,
            "python_process_id": record.process,
            "python_process_name": record.processName,
            "python_thread_id": record.thread,
            "python_thread_name": record.threadName,
            "python_task_name": fields.get("taskName") or _task_name(),
            "python_exception": _exception_name(record),
        }
        metadata: dict[Atom, object] = {
            Atom(key): value for key, value in known.items() if value is not None
        }
        metadata.update((Atom(key), fields[key]) for key in self._extra if key in fields)
        return metadata


def _exception_name(record: logging.LogRecord) -> str | None:
    # None, or three times None if there was no exception.
    kind = record.exc_info[0] if record.exc_info else None
    return kind.__name__ if kind is not None else None


def _task_name() -> str | None:
    # Since Python 3.12, records have it.
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    return task.get_name() if task is not None else None


def _encodable(value: object) -> object:
    try:
        encode(value, SPARE)
    except TooLargeError as error:
        text = value if isinstance(value, str) else repr(value)
        return f"{_encodable(text[:_BEGINNING])}... ({error})"
    except (TypeError, ValueError):
        return repr(value).encode("utf-8", "backslashreplace").decode()
    return value
