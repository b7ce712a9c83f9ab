"""A cell of a notebook: which names it reads and binds, and what it leaves behind."""

from __future__ import annotations

import ast
import os
import sys
from typing import TYPE_CHECKING, Any

from .._etf.handles import keep
from .representation import is_rich, represent, take_open_figures

if TYPE_CHECKING:
    from collections.abc import Callable

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def names(source: str, file: str = "<Snex.Code>", line: int = 1) -> dict[str, list[str]]:
    """Return the names that code reads, in any of its scopes, and those that it assigns at its top level.

    Raises:
        SyntaxError: with the place in `file`.

    >>> names("y = [x for x in xs]")
    {'reads': ['x', 'xs'], 'binds': ['y']}
    """
    # Not `ast.parse`, which would be in the traceback of code that does not parse.
    text = "\n" * (line - 1) + source
    module: ast.AST = compile(text, file, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    reads: dict[str, None] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Load, ast.Del)):
            reads[node.id] = None
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            reads[node.target.id] = None
    binds: dict[str, None] = {}
    _find_bound(module, binds)
    return {"reads": list(reads), "binds": list(binds)}


def _find_bound(node: ast.AST, bound: dict[str, None]) -> None:
    if isinstance(node, _SCOPES) or (isinstance(node, ast.AnnAssign) and node.value is None):
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        bound[node.id] = None
    elif isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name:
        bound[node.name] = None
    elif isinstance(node, ast.MatchMapping) and node.rest:
        bound[node.rest] = None
    for child in ast.iter_child_nodes(node):
        if isinstance(node, _COMPREHENSIONS) and isinstance(child, ast.comprehension):
            # The variables of a comprehension are its own; `:=` in it binds outside of it.
            for part in (child.iter, *child.ifs):
                _find_bound(part, bound)
        else:
            _find_bound(child, bound)


def prepare(source: str, show: Callable[[Any, Any, Any], object]) -> str:
    r"""Make the environment ready for a cell, and return its code, which returns the value of its final expression.

    A semicolon behind that expression withholds the value. `show` is what `display` calls.

    >>> returning("x = 1\nx + 1")
    'x = 1\nreturn x + 1'
    """
    os.environ.setdefault("MPLBACKEND", "Agg")
    _environment()["display"] = _Display(show)
    return returning(source)


def returning(source: str) -> str:
    """Return the code with `return` before its final expression.

    >>> returning("x;")
    'x;'
    """
    try:
        body = ast.parse(source).body
    except SyntaxError:
        # It is reported when the code runs, with its place.
        return source
    last = body[-1] if body else None
    if not isinstance(last, ast.Expr) or isinstance(last.value, (ast.Yield, ast.YieldFrom)):
        return source
    lines = source.encode().splitlines(keepends=True)
    end = lines[last.end_lineno - 1][last.end_col_offset :] if last.end_lineno else b""
    if end.lstrip().startswith(b";"):
        return source
    # The offset is one in bytes, as the parser counts.
    line = lines[last.lineno - 1]
    lines[last.lineno - 1] = line[: last.col_offset] + b"return " + line[last.col_offset :]
    return b"".join(lines).decode()


def outcome(value: object, binds: list[str]) -> tuple[object, dict[str, object], list[bytes]]:
    """Return the value of a cell, the names that it has bound, and the figures that are open."""
    env = _environment()
    bound = {name: _for_elixir(env[name]) for name in binds if name in env}
    return _for_elixir(value), bound, take_open_figures(value)


def _for_elixir(value: object) -> object:
    return keep(value) if is_rich(value) else value


def _environment() -> dict[str, Any]:
    return sys.modules["__main__"].__dict__


class _Display:
    """The function `display` of a cell."""

    def __init__(self, show: Callable[[Any, Any, Any], object]) -> None:
        self._show = show

    def __call__(self, *objects: object) -> None:
        """Show objects below the cell, while it runs."""
        for obj in objects:
            mime, data = represent(obj)
            self._show(mime, data, keep(obj))
