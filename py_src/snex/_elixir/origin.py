"""Where a call of Elixir was made, for the warning if nobody awaits it.

Python warns when a coroutine that never ran is freed, and by then nothing tells which line made it. So the
coroutine functions that call Elixir note their caller.
"""

from __future__ import annotations

import functools
import sys
from types import MethodType
from typing import TYPE_CHECKING, Any

from .._pypy import PYPY

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from inspect import Signature
    from types import CodeType
    from typing import Concatenate, ParamSpec, TypeVar

    # The code that called, and the offset of its instruction.
    Origin = tuple[CodeType, int] | None

    _P = ParamSpec("_P")
    _T = TypeVar("_T")

_OURS = __file__.removesuffix("_elixir/origin.py")


class _CoroutineFunction(functools.partial[Any]):
    """A coroutine function whose first argument, `origin`, is filled in when it is called.

    It is a `partial` because `inspect.iscoroutinefunction` looks through those; before Python 3.12 it does not
    recognize an ordinary function that returns a coroutine.
    """

    __name__: str
    __qualname__: str

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - of any function
        """Make the coroutine."""
        return self.func(_origin(), *args, **kwargs)

    def __get__(self, instance: object, _owner: type | None = None) -> Any:  # noqa: ANN401 - as above
        """Bind it to an object, as a method."""
        return self if instance is None else MethodType(self, instance)

    @property
    def __signature__(self) -> Signature:
        """The signature without `origin`. Before Python 3.13, `inspect` finds none for a partial with `__get__`."""
        import inspect

        return inspect.signature(functools.partial(self.func, None))

    def __repr__(self) -> str:
        """Show the name."""
        return f"<function {self.__qualname__}>"

    def __reduce__(self) -> str:
        """Copy and pickle by name, as functions."""
        return self.__qualname__


def notes_origin(
    function: Callable[Concatenate[Origin, _P], Coroutine[Any, Any, _T]],
) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """Have calls of a coroutine function note where they are made, as its first argument."""
    noting = functools.update_wrapper(_CoroutineFunction(function, None), function)
    # `inspect` would look there for the signature, which has `origin`.
    del noting.__wrapped__
    return noting


def _origin() -> Origin:
    if PYPY:
        # Where frames are looked at, it compiles nothing.
        return None
    caller = sys._getframe(2)  # noqa: SLF001
    while caller.f_code.co_filename.startswith(_OURS) and caller.f_back is not None:
        caller = caller.f_back
    return caller.f_code, caller.f_lasti
