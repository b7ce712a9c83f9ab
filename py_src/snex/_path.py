"""Where modules are looked for while an interpreter starts.

This package imports only from its own folder and from the standard library, whatever lies in the
working directory and in the folders of `PYTHONPATH`. It imports everything at the start. User code
then finds modules as in any program run with `-m`, except those that are already loaded.
"""

# ruff: noqa: PTH109, PTH120 - `pathlib` would have to be imported

import os
import sys

PACKAGE = os.path.dirname(os.path.dirname(__file__))
_LIBRARY = os.path.dirname(os.__file__)


class _Before:
    path: list[str] = []  # noqa: RUF012 - replaced, never changed
    dont_write_bytecode = False


def narrow() -> None:
    """Look for modules nowhere else, until `widen`."""
    _Before.path = path = sys.path[:]
    _Before.dont_write_bytecode = sys.dont_write_bytecode
    # Keep the bytecode: compiling this package takes longer than the rest of a start.
    sys.dont_write_bytecode = False
    if _LIBRARY not in path:
        # The standard library is elsewhere, for example in an archive.
        return
    # The user's folders come before the standard library. A `.pth` file may have imported from there.
    users = path[: path.index(_LIBRARY)]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        folder = os.path.dirname(file.removesuffix("/__init__.py"))
        if name in sys.stdlib_module_names and folder in users:
            del sys.modules[name]
    own = [entry for entry in path if entry == _LIBRARY or entry.endswith("/lib-dynload")]
    sys.path[:] = [PACKAGE, *own]


def widen() -> None:
    """Look where Python usually does: first in the working directory, unless an option forbids that."""
    sys.dont_write_bytecode = _Before.dont_write_bytecode
    path = _Before.path
    if path[:1] == [PACKAGE] and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        # The entry of our script becomes that of the working directory.
        try:
            path[0] = os.getcwd()
        except OSError:
            del path[0]
    if PACKAGE not in path:
        path.insert(1, PACKAGE)
    sys.path[:] = dict.fromkeys(path)
