"""`from module import *` on behalf of user code; see `code`."""

from __future__ import annotations

import sys


def import_star(module: str, level: int) -> None:
    """Import all public names of `module` into the globals of the caller."""
    env = sys._getframe(1).f_globals  # noqa: SLF001 - the only way to the caller's globals
    statement = compile(f"from {'.' * level}{module} import *", __file__, "exec", dont_inherit=True)
    exec(statement, env)  # noqa: S102 - this is what the user wrote
