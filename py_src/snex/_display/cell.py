"""A notebook cell: the names that it reads and binds, and its results."""

from __future__ import annotations

import ast
import os
import sys
from typing import TYPE_CHECKING, Any

from .._etf.handles import keep
from .._eval.code import compile_code, has_value
from .._eval.sources import NO_FILE
from .representation import is_rich, represent, take_open_figures

if TYPE_CHECKING:
    from collections.abc import Callable

    Outcome = tuple[object, dict[str, object], list[bytes]]

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def names(source: str, file: str = "<Snex.Code>", line: int = 1) -> dict[str, Any]:
    """Return the names that code reads, in any of its scopes, those that it assigns at its top level, and whether it ends with a value.

    Raises:
        SyntaxError: with the place in `file`.

    >>> names("y = [x for x in xs]")
    {'reads': ['x', 'xs'], 'binds': ['y'], 'has_value': False}
    """
    # Not `ast.parse`, whose frame would be in the traceback of a syntax error.
    text = "\n" * (line - 1) + source
    module: Any = compile(text, file, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    reads: dict[str, None] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Load, ast.Del)):
            reads[node.id] = None
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            reads[node.target.id] = None
    binds: dict[str, None] = {}
    _find_bound(module, binds)
    return {"reads": list(reads), "binds": list(binds), "has_value": has_value(module.body, text)}


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
            # The variables of a comprehension are local to it, but `:=` binds outside of it.
            for part in (child.iter, *child.ifs):
                _find_bound(part, bound)
        else:
            _find_bound(child, bound)


def run(
    source: str,
    file: str | None,
    line: int,
    variables: dict[str, Any],
    show: Callable[[Any, Any, Any], object],
) -> Any:  # noqa: ANN401 - the outcome, or an awaitable of it
    """Run a cell in the environment of the call.

    Returns the value of the final expression, the names that the cell has bound, and pictures of the figures that are open. `show` is what
    `display` calls.
    """
    os.environ.setdefault("MPLBACKEND", "Agg")
    binds = names(source, file or NO_FILE, max(line, 1))["binds"]
    program = compile_code(source, file, line, is_cell=True)
    env = sys.modules["__main__"].__dict__
    env.update(variables, display=_Display(show))
    result = program.bind(env)()
    return _awaited(result, env, binds) if program.is_async else _outcome(result, env, binds)


async def _awaited(coroutine: Any, env: dict[str, Any], binds: list[str]) -> Outcome:  # noqa: ANN401
    return _outcome(await coroutine, env, binds)


def _outcome(value: object, env: dict[str, Any], binds: list[str]) -> Outcome:
    bound = {name: _for_elixir(env[name]) for name in binds if name in env}
    return _for_elixir(value), bound, take_open_figures(value)


def _for_elixir(value: object) -> object:
    return keep(value) if is_rich(value) else value


class _Display:
    """The function `display` of a cell."""

    def __init__(self, show: Callable[[Any, Any, Any], object]) -> None:
        self._show = show

    def __call__(self, *objects: object) -> None:
        """Show objects below the cell, while it runs."""
        for obj in objects:
            mime, data = represent(obj)
            self._show(mime, data, keep(obj))
