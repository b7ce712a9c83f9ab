"""A workaround for what PyPy does differently."""

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
    """Keep PyPy from tying `code`, and all code within, to the first environment in which it runs.

    In PyPy, a code object refers to the globals of its first call forever: because code is cached, an
    environment would stay alive after it was dropped. So we make the first call, with other globals,
    and end it before anything runs.

    One reference remains: the call of a method remembers the method that it called last.
    """
    for const in code.co_consts:
        if isinstance(const, CodeType):
            detach(const)

    def refuse(frame: FrameType, _event: str, _argument: object) -> None:
        # A signal handler may run here, too.
        if frame.f_code is code:
            raise _NotRunError

    cells = tuple(CellType() for _ in code.co_freevars)
    function = FunctionType(code, {}, None, None, cells or None)
    before = sys.gettrace()
    sys.settrace(refuse)
    try:
        made = function()
    except (_NotRunError, TypeError):
        # A function that needs arguments has also got its globals by now.
        return
    finally:
        sys.settrace(before)
    # A generator or coroutine, which does not begin yet. Only a coroutine warns if it is dropped.
    if code.co_flags & CO_COROUTINE:
        made.close()
