"""What PyPy does in another way, and what we do about it."""

from __future__ import annotations

import sys
from types import CellType, CodeType, FunctionType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

CO_COROUTINE = 0x80
PYPY = sys.implementation.name == "pypy"


class _NotRunError(BaseException):
    """Ends a call before its first instruction."""


def detach(code: CodeType) -> None:
    """Keep PyPy from tying `code`, and all code within, to the first environment that it runs in.

    There a code object refers to the globals of its first call, for ever: with code that is cached,
    an environment would stay alive after it was dropped. So the first call is one of ours, which has
    other globals and ends before anything runs.

    What remains: a call of a method remembers the method that it called last.
    """
    for const in code.co_consts:
        if isinstance(const, CodeType):
            detach(const)

    def refuse(frame: FrameType, _event: str, _argument: object) -> None:
        # A signal handler may run here as well.
        if frame.f_code is code:
            raise _NotRunError

    cells = tuple(CellType() for _ in code.co_freevars)
    function = FunctionType(code, {}, None, None, cells or None)
    before = sys.gettrace()
    sys.settrace(refuse)
    try:
        made = function()
    except (_NotRunError, TypeError):
        # A function that needs arguments has got its globals by now, too.
        return
    finally:
        sys.settrace(before)
    # Something that begins later. Only a coroutine minds being dropped before.
    if code.co_flags & CO_COROUTINE:
        made.close()
