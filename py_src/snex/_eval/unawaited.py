"""Python's warning about a coroutine that was never awaited, with a line of the user's.

Python warns when such a coroutine is freed, and shows the line that runs at that moment. If the coroutine was in a
variable or a result, that is a line of ours or of asyncio. Python could note where each coroutine is made, but that
would slow down all coroutines of the user. So only calls of Elixir note it; for the user's own coroutine functions,
the warning says where they are defined.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from .sources import recall

if TYPE_CHECKING:
    from types import CodeType

_OURS = __file__.removesuffix("_eval/unawaited.py")

# By file, the warnings that were shown: as with Python's other warnings, each line warns once.
_shown: dict[str, dict[Any, Any]] = {}
_MAX_FILES = 1000


class Origin(NamedTuple):
    """What a coroutine of ours calls, and where it was made."""

    path: str
    # The file name and the line; None if the code is not the user's.
    place: tuple[str, int] | None


def origin_of(coroutine: Any) -> Origin | None:  # noqa: ANN401 - of any type
    """Return where a coroutine that calls Elixir was made; None for any other, and for one that has ended.

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
    # So that `linecache` finds the line.
    recall(code)
    for start, end, line in code.co_lines():
        if start <= at < end and line is not None:
            return code.co_filename, line
    return code.co_filename, code.co_firstlineno


def install() -> None:
    """Replace Python's function that warns."""
    import asyncio

    original = getattr(warnings, "_warn_unawaited_coroutine", None)
    if original is None:
        # It is not documented, so it may be missing.
        return
    # Folders without code of the user's.
    inner = (_OURS, asyncio.__file__.removesuffix("__init__.py"))

    def warn(coroutine: Any) -> None:  # noqa: ANN401 - of any type
        noted = coroutine.cr_origin or ()
        if any(not filename.startswith(_OURS) for filename, _line, _function in noted):
            # User code has Python note where coroutines are made.
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
