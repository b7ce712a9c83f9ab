"""Python's warning about a coroutine that nobody has awaited, with a place that the user knows.

Python warns when such a coroutine is freed, and takes the line that runs then. Of one in a variable or a result that
is a line of ours, or of asyncio. Python could note where each coroutine is made, but all coroutines of the user's
would become slower. So only calls of Elixir note it; of the user's own coroutine functions, the warning says where
they are defined.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from .sources import recall

if TYPE_CHECKING:
    from types import CodeType

_OURS = __file__.removesuffix("_eval/unawaited.py")

# By file, what has been shown: as with Python's other warnings, each line warns once.
_shown: dict[str, dict[Any, Any]] = {}
_MAX_FILES = 1000


class Origin(NamedTuple):
    """What a coroutine of ours calls, and where it was made. Built only once somebody asks."""

    path: str
    # The name of the file, and the line; None if the code is not the user's.
    place: tuple[str, int] | None


def origin_of(coroutine: Any) -> Origin | None:  # noqa: ANN401 - of any type
    """Return where a coroutine was made that calls Elixir; None of any other, and once it has ended.

    Such a coroutine has noted its caller in the variable `_origin`; see `_elixir/origin.py`.
    """
    frame = getattr(coroutine, "cr_frame", None)
    if frame is None or not frame.f_code.co_filename.startswith(_OURS):
        return None
    names = frame.f_locals
    origin = names.get("_origin")
    if origin is None:
        return None
    if "module" in names:
        path = f"{names['module']}.{names['function']}"
    else:
        path = repr(names["self"]) if "self" in names else f"snex.{frame.f_code.co_name}"
    return Origin(path, _place(*origin))


def _place(code: CodeType, at: int) -> tuple[str, int] | None:
    if code.co_filename.startswith(_OURS):
        return None
    # `linecache` shows the line.
    recall(code)
    for start, end, line in code.co_lines():
        if start <= at < end and line is not None:
            return code.co_filename, line
    return code.co_filename, code.co_firstlineno


def install() -> None:
    """Have Python's warnings ask here."""
    import asyncio

    original = getattr(warnings, "_warn_unawaited_coroutine", None)
    if original is None:
        # Of no documented interface.
        return
    # Where nothing of the user's runs.
    inner = (_OURS, asyncio.__file__.removesuffix("__init__.py"))

    def warn(coroutine: Any) -> None:  # noqa: ANN401 - of any type
        noted = coroutine.cr_origin or ()
        if any(not filename.startswith(_OURS) for filename, _line, _function in noted):
            # Someone asked Python to note where coroutines are made.
            original(coroutine)
            return
        origin = origin_of(coroutine)
        what = f"coroutine '{origin.path if origin else coroutine.__qualname__}'"
        freed_in = sys._getframe(1).f_code  # noqa: SLF001
        if not freed_in.co_filename.startswith(inner):
            text = f"{what} was never awaited"
            warnings.warn(text, RuntimeWarning, stacklevel=2, source=coroutine)
            return
        place = origin.place if origin else None
        if place is None and not coroutine.cr_code.co_filename.startswith(_OURS):
            recall(coroutine.cr_code)
            place = coroutine.cr_code.co_filename, coroutine.cr_code.co_firstlineno
            what += ", defined here,"
        if place is None:
            warnings.warn(f"{what} was never awaited", RuntimeWarning, stacklevel=2)
        else:
            if len(_shown) > _MAX_FILES:
                _shown.clear()
            registry = _shown.setdefault(place[0], {})
            text = f"{what} was never awaited"
            warnings.warn_explicit(text, RuntimeWarning, *place, registry=registry)

    warnings._warn_unawaited_coroutine = warn  # type: ignore[attr-defined]  # noqa: SLF001
