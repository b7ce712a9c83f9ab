"""The whole task: reads a request, writes an answer, both as JSON files."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import sys
import sysconfig
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import stubs
from .attempt import attempt, text
from .docs import Converter
from .members import Describer
from .selection import Selection

if TYPE_CHECKING:
    import types


def main(request: str, answer: str) -> None:
    """Answer a request, and exit without running the exit handlers of modules."""
    asked = json.loads(Path(request).read_text("utf-8"))
    # Modules may print, read and warn.
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(10_000)
    try:
        found = _answer(asked)
    except BaseException:  # noqa: BLE001 - the VM is to know, whatever it was
        found = {"error": traceback.format_exc()}
    Path(answer).write_text(json.dumps(found), "utf-8")
    sys.stdout.flush()
    os._exit(0)


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        module = importlib.import_module(asked["module"])
    except BaseException:  # noqa: BLE001 - a module may also exit
        return {"error": _traceback()}
    tools = asked["tools"]
    if tools is not None:
        stubs.look_in(tools)
    docs = Converter(tools)
    selection = Selection(asked["only"], asked["except"])
    main_module = Describer(module, docs, selection).describe()
    modules, failed = [main_module], []
    for name in _submodules(module, asked["submodules"]):
        full = f"{asked['module']}.{name}"
        try:
            submodule = importlib.import_module(full)
        except BaseException:  # noqa: BLE001 - as above
            failed.append([full, _traceback()])
            continue
        modules.append(Describer(submodule, docs, selection.below(name)).describe())
    return {
        "modules": modules,
        "failed": failed,
        "unknown": selection.unknown(modules),
        "plain_docs": tools is not None and docs.parse is None,
        "files": _own_files([one["name"] for one in modules]),
        "python": platform.python_version(),
    }


def _submodules(module: types.ModuleType, asked: bool | list[str]) -> list[str]:
    if isinstance(asked, list):
        return asked
    folders = getattr(module, "__path__", None)
    if not asked or folders is None:
        return []
    names = [one.name for one in pkgutil.iter_modules(folders)]
    return sorted(
        name for name in names if not name.startswith("_") and name not in ("tests", "conftest")
    )


def _own_files(names: list[str]) -> list[str]:
    """Return the files of packages that no lock file covers: those in the user's folders."""
    roots = {name.partition(".")[0] for name in names}
    paths = sysconfig.get_paths()
    locked = [
        os.path.realpath(paths[name]) + os.sep
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
    ]
    found = set()
    for name, module in list(sys.modules.items()):
        file = text(attempt(getattr, module, "__file__", default=None))
        if file is not None and name.partition(".")[0] in roots:
            real = os.path.realpath(file)
            if not any(real.startswith(folder) for folder in locked) and Path(real).is_file():
                found.add(real)
    return sorted(found)


def _traceback() -> str:
    """Return Python's traceback of the exception, from the first frame that is neither ours nor the importer's."""
    kind, error, frames = sys.exc_info()
    ours = (__file__, importlib.__file__)
    while frames is not None and (
        frames.tb_frame.f_code.co_filename in ours
        or frames.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        frames = frames.tb_next
    lines = attempt(traceback.format_exception, kind, error, frames, default=[str(kind)])
    return text("".join(lines)) or ""
