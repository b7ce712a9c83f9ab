"""`sys.modules["__main__"]`, which is the environment of the code that is running.

There is one module for all environments, because they run interleaved and in threads; each access to it
is an access to the environment's variables. `pickle`, `dataclasses`, `typing` and others look here for
what the code defined.

The environment of the running code is the first of these:

- that of the request, which its tasks, `asyncio.to_thread` and forked children share;
- that of the innermost function on the stack, in a thread whose context is empty;
- that of the code that started the thread, in a thread that only runs a library;
- the root.

Functions that were copied from another environment still use the variables of that one. So a name that
is missing in the first of these is looked up in the others.
"""

from __future__ import annotations

import functools
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .request import current

if TYPE_CHECKING:
    from collections.abc import Iterator

    Names = dict[str, Any]

_NAME = "__main__"
# Attributes of the object itself.
_OWN = frozenset({"__class__", "__dict__"})
_STARTER = "_snex_names"


class _Main(ModuleType):
    """The module. Its own dictionary stays empty; only C code sees that one."""

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401 - whatever the code has defined
        all_names = _all_names()
        mine = next(all_names)
        if name == "__dict__":
            return mine
        if name not in _OWN:
            if name == "__annotations__" and name not in mine:
                annotate = mine.get("__annotate__")
                mine[name] = annotate(1) if callable(annotate) else {}
            if name in mine:
                return mine[name]
            for names in all_names:
                if name in names:
                    return names[name]
        try:
            return super().__getattribute__(name)
        except AttributeError:
            if (hook := mine.get("__getattr__")) is None:
                raise
        return hook(name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in _OWN:
            super().__setattr__(name, value)
        else:
            self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        if self.__dict__.pop(name, self) is self:
            super().__delattr__(name)


_root: Names = {}
# The names of the former `__main__`, whose code is at the bottom of the stack.
_program: Names = {}


def install(root: Names) -> None:
    """Become `sys.modules["__main__"]`, with `root` as the variables of the root environment."""
    global _root, _program  # noqa: PLW0603 - there is one `__main__`
    _root = root
    _program = vars(sys.modules[_NAME])
    sys.modules[_NAME] = _Main(_NAME)
    start = threading.Thread.start

    @functools.wraps(start)
    def start_and_remember(self: threading.Thread) -> None:
        setattr(self, _STARTER, next(_all_names()))
        start(self)

    threading.Thread.start = start_and_remember  # type: ignore[method-assign]


def _all_names() -> Iterator[Names]:
    """Yield the variables of all environments that the running code may refer to, the likeliest first."""
    request = current.get().names
    if request is not None:
        yield request
    frame = sys._getframe(1)  # noqa: SLF001 - the only way to the stack
    while frame is not None:
        names = frame.f_globals
        if names.get("__name__") == _NAME and names is not _program:
            yield names
        frame = frame.f_back  # type: ignore[assignment]
    # Not `current_thread`, which would create an object for a thread that `threading` does not know.
    thread = threading._active.get(threading.get_ident())  # noqa: SLF001
    if (starter := getattr(thread, _STARTER, None)) is not None:
        yield starter
    yield _root
