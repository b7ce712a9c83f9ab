"""User code to something that runs.

The code becomes the body of a function called `<module>`, so that `return` is the real one and
`await` is allowed, and then that function is made to behave like a module again:

- every name that it binds is declared `global`, and so lives in the environment. Which names these
  are is what the compiler says of the function without the declaration;
- the flags that give a function its own namespace are taken away, so that `locals()`, `exec` and
  `vars()` at the top level see the environment.

Differences from a module: annotations of variables at the top level are not evaluated, and a
docstring is not stored.
"""

from __future__ import annotations

import _ast
import sys
import warnings
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from ._pypy import CO_COROUTINE, PYPY, detach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NO_FILE = "<Snex.Code>"
_NAME = "<module>"
_INSIDE = "<module>.<locals>."
_ONLY_AST = 0x400
_CO_OPTIMIZED = 0x1
_CO_NEWLOCALS = 0x2

# The cache is bounded both ways: many small pieces of code, or a few generated giants.
_MAX_ENTRIES = 512
_MAX_CHARACTERS = 8 * 1024 * 1024
# Of its first line in the file. Each line before it costs a byte, and a moment of the parser's.
_MAX_LINE = 1_000_000

# Marks the constant through which a code object knows its source; see `source_of`.
_SOURCE_MARK = "<Snex.Code source>"

_FUNCTIONS = (_ast.FunctionDef, _ast.AsyncFunctionDef)
_COMPREHENSIONS = (_ast.ListComp, _ast.SetComp, _ast.DictComp)


class Program:
    """Compiled code, to be run in any number of environments."""

    __slots__ = ("code", "is_async")

    def __init__(self, code: CodeType) -> None:
        """Wrap the code object of the function that stands for the module."""
        self.code = code
        self.is_async = bool(code.co_flags & CO_COROUTINE)

    def bind(self, env: dict[str, Any]) -> Callable[[], Any]:
        """Return a function that runs the code in `env`; a coroutine function if `is_async`."""
        return FunctionType(self.code, env)


_cache: dict[tuple[str, str | None, int], Program] = {}
_characters = 0


def compile_code(source: str, file: str | None, line: int) -> Program:
    r"""Compile `source`, whose first line is line `line` of `file`; cached.

    Raises:
        SyntaxError: with the place in `file`.
        ValueError: for a line that no file has.

    >>> env = {}
    >>> compile_code("x = 20\nif x: return x + 1", None, 1).bind(env)()
    21
    >>> env["x"]
    20
    """
    global _characters  # noqa: PLW0603 - belongs to the cache
    key = (source, file, line)
    program = _cache.pop(key, None)
    if program is None:
        if line > _MAX_LINE:
            msg = f"code cannot begin in line {line}: {_MAX_LINE} is the last"
            raise ValueError(msg)
        try:
            program = _compile(source, file or NO_FILE, max(line, 1))
        except SyntaxError as error:
            # The compiler would look for the line in the file, which may say something else.
            error.text = _line(source, (error.lineno or 0) - max(line, 1))
            raise
        _characters += len(source)
        while _cache and (len(_cache) >= _MAX_ENTRIES or _characters > _MAX_CHARACTERS):
            oldest = next(iter(_cache))
            del _cache[oldest]
            _characters -= len(oldest[0])
    # Last in the dict is last used.
    _cache[key] = program
    return program


def source_of(code: CodeType) -> tuple[str, int] | None:
    """Return the source that `code` was compiled from here, and the number of its first line."""
    last = code.co_consts[-1] if code.co_consts else None
    if type(last) is tuple and len(last) == 3 and last[0] == _SOURCE_MARK:  # noqa: PLR2004
        return last[1], last[2]
    return None


def _compile(source: str, file: str, line: int) -> Program:
    # Empty lines in front are the simplest way to have every position right, also in the errors of
    # the parser.
    text = "\n" * (line - 1) + source if line > 1 else source
    module: Any = compile(text, file, "exec", _ONLY_AST, dont_inherit=True)
    futures, body = _split_futures(module.body)
    top = _TopLevel(file)
    body = top.rewrite(body)
    is_async = (
        top.check(body) if "await" in source or "async" in source or "yield" in source else False
    )
    bound = _bound_names(_function(futures, body, is_async=is_async), file)
    if bound:
        body = [_at_start(_ast.Global(names=bound)), *body]
    code = _inner(
        compile(_function(futures, body, is_async=is_async), file, "exec", dont_inherit=True)
    )
    code = _as_module(_with_source(code, (_SOURCE_MARK, source, line)))
    if PYPY:
        detach(code)
    return Program(code)


def _line(source: str, index: int) -> str | None:
    lines = source.splitlines()
    return lines[index] if 0 <= index < len(lines) else None


def _split_futures(body: list[Any]) -> tuple[list[Any], list[Any]]:
    """Separate the `__future__` imports, which must stay first in a module."""
    start = 1 if body and _is_docstring(body[0]) else 0
    end = start
    while (
        end < len(body)
        and isinstance(body[end], _ast.ImportFrom)
        and body[end].module == "__future__"
    ):
        end += 1
    return body[start:end], body[end:]


def _is_docstring(node: Any) -> bool:  # noqa: ANN401 - nodes of every kind
    return (
        isinstance(node, _ast.Expr)
        and isinstance(node.value, _ast.Constant)
        and isinstance(node.value.value, str)
    )


def _at_start(node: Any) -> Any:  # noqa: ANN401 - nodes of every kind
    node.lineno = node.end_lineno = 1
    node.col_offset = node.end_col_offset = 0
    return node


def _function(futures: list[Any], body: list[Any], *, is_async: bool) -> Any:  # noqa: ANN401
    arguments = _ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    kind: Any = _ast.AsyncFunctionDef if is_async else _ast.FunctionDef
    fields = {
        "name": _NAME,
        "args": arguments,
        "body": body or [_at_start(_ast.Pass())],
        "decorator_list": [],
    }
    if sys.version_info >= (3, 12):
        fields["type_params"] = []
    return _ast.Module(body=[*futures, _at_start(kind(**fields))], type_ignores=[])


def _inner(code: CodeType) -> CodeType:
    return next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == _NAME)


def _bound_names(function: Any, file: str) -> list[str]:  # noqa: ANN401 - a node
    with warnings.catch_warnings():
        # The second compilation gives the same ones.
        warnings.simplefilter("ignore")
        code = _inner(compile(function, file, "exec", dont_inherit=True))
    return [name for name in (*code.co_varnames, *code.co_cellvars) if name.isidentifier()]


def _with_source(code: CodeType, source: tuple[str, str, int]) -> CodeType:
    """Attach the source to a code object and to all those within.

    As a constant, so that it lives exactly as long as the code, on every implementation.
    """
    consts = [_with_source(c, source) if isinstance(c, CodeType) else c for c in code.co_consts]
    changes: dict[str, Any] = {}
    # A lambda can't be declared global, and would tell of the function that it is in.
    if sys.version_info >= (3, 11):
        changes["co_qualname"] = code.co_qualname.removeprefix(_INSIDE)
    else:
        consts = [c.removeprefix(_INSIDE) if isinstance(c, str) else c for c in consts]
    return code.replace(co_consts=(*consts, source), **changes)


def _as_module(code: CodeType) -> CodeType:
    """Have the code use the environment as its namespace, as `exec` would.

    Nothing is lost by it: with every bound name declared global there are no local variables, but
    for those of inlined comprehensions, which the compiler then hides from `locals()` by itself.
    """
    return code.replace(co_flags=code.co_flags & ~(_CO_OPTIMIZED | _CO_NEWLOCALS))


class _TopLevel:
    """Looks at, and adapts, what is at the top level of the code, outside of nested functions."""

    def __init__(self, file: str) -> None:
        self._file = file

    def _error(self, message: str, node: Any) -> SyntaxError:  # noqa: ANN401 - nodes of every kind
        start, end = node.col_offset + 1, node.end_col_offset + 1
        return SyntaxError(message, (self._file, node.lineno, start, None, node.end_lineno, end))

    def rewrite(self, body: list[Any]) -> list[Any]:
        """Return the statements with those replaced that a function does not allow."""
        result = []
        for node in body:
            if isinstance(node, _ast.AnnAssign) and isinstance(node.target, _ast.Name):
                # `global` and an annotation exclude each other.
                if node.value is None:
                    new: Any = _ast.Pass()
                else:
                    new = _ast.Assign(targets=[node.target], value=node.value, type_comment=None)
                result.append(_located(new, node))
            elif isinstance(node, _ast.ImportFrom) and node.names[0].name == "*":
                result.append(_star_import(node))
            elif isinstance(node, _ast.Nonlocal):
                msg = "nonlocal declaration not allowed at module level"
                raise self._error(msg, node)
            else:
                if not isinstance(node, (*_FUNCTIONS, _ast.ClassDef)):
                    for holder in _blocks(node):
                        for field in ("body", "orelse", "finalbody"):
                            block = getattr(holder, field, None)
                            if block:
                                setattr(holder, field, self.rewrite(block))
                result.append(node)
        return result

    def check(self, body: list[Any]) -> bool:
        """Return whether the top level awaits. Refuses `yield`, which a module does not allow."""
        is_async = False
        todo: list[Any] = list(body)
        while todo:
            node = todo.pop()
            if isinstance(node, (_ast.Yield, _ast.YieldFrom)):
                raise self._error("'yield' outside function", node)
            if isinstance(node, (_ast.Await, _ast.AsyncFor, _ast.AsyncWith)):
                is_async = True
            if isinstance(node, _COMPREHENSIONS) and any(g.is_async for g in node.generators):
                is_async = True
            todo.extend(_same_scope(node))
        return is_async


def _located(new: Any, old: Any) -> Any:  # noqa: ANN401 - nodes of every kind
    new.lineno, new.end_lineno = old.lineno, old.end_lineno
    new.col_offset, new.end_col_offset = old.col_offset, old.end_col_offset
    return new


def _blocks(node: Any) -> list[Any]:  # noqa: ANN401 - nodes of every kind
    """Return the nodes that hold the statements of a compound statement."""
    return [node, *getattr(node, "handlers", ()), *getattr(node, "cases", ())]


def _children(node: Any) -> Iterator[Any]:  # noqa: ANN401 - nodes of every kind
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, list):
            yield from (item for item in value if isinstance(item, _ast.AST))
        elif isinstance(value, _ast.AST):
            yield value


def _same_scope(node: Any) -> list[Any]:  # noqa: ANN401 - nodes of every kind
    """Return the parts of a node that belong to the scope that the node is in."""
    if isinstance(node, _FUNCTIONS):
        return [*node.decorator_list, *_children(node.args), *filter(None, [node.returns])]
    if isinstance(node, _ast.ClassDef):
        return [*node.decorator_list, *node.bases, *node.keywords]
    if isinstance(node, _ast.Lambda):
        return [*node.args.defaults, *filter(None, node.args.kw_defaults)]
    if isinstance(node, _ast.GeneratorExp):
        return [node.generators[0].iter]
    return list(_children(node))


def _star_import(node: Any) -> Any:  # noqa: ANN401 - a node
    """Return a call that does what `from module import *` does; a function may not contain that."""
    call = f"__import__('snex._star')._star.import_star({node.module or ''!r}, {node.level})"
    statement: Any = compile(call, NO_FILE, "exec", _ONLY_AST, dont_inherit=True)
    todo = [statement.body[0]]
    while todo:
        part = todo.pop()
        if "lineno" in part._attributes:  # noqa: SLF001 - its documented name
            _located(part, node)
        todo.extend(_children(part))
    return statement.body[0]
