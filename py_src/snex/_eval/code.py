"""Compiles user code.

The code becomes the body of a function called `<module>`, so that `return` is the real one and
`await` is allowed, and then that function is made to behave like a module again:

- every name that it binds is declared `global`, and so lives in the environment. The compiler finds these
  names in a first compilation, without the declaration;
- the flags that give a function its own namespace are removed, so that `locals()`, `exec` and
  `vars()` at the top level see the environment.

`toplevel` handles the other things that a function cannot do. Two differences from a module remain: `return` and
`await` are allowed, and a name that is declared `global` may be annotated as well.
"""

from __future__ import annotations

import _ast
import sys
import warnings
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from .._pypy import CO_COROUTINE, PYPY, detach
from . import sources
from .overload import Durations
from .toplevel import ONLY_AST, TopLevel, mark_classes

if TYPE_CHECKING:
    from collections.abc import Callable

    from .toplevel import Preface

_NAME = "<module>"
_INSIDE = "<module>.<locals>."
_CO_OPTIMIZED = 0x1
_CO_NEWLOCALS = 0x2

# The cache is bounded both ways: many small pieces of code, or a few generated giants.
_MAX_ENTRIES = 512
_MAX_CHARACTERS = 8 * 1024 * 1024
# The highest number of the code's first line. Each line before it costs a byte, and a little time in the parser.
_MAX_LINE = 1_000_000

# Stands for the decorator of each class; a syntax tree has no place for an object.
_CLASS_MARK = "<Snex.Code class>"


class Program:
    """Compiled code, to be run in any number of environments."""

    __slots__ = ("_preface", "code", "durations", "is_async")

    def __init__(self, code: CodeType, preface: Preface | None) -> None:
        """Wrap the code object of the function that stands for the module."""
        self.code = code
        self._preface = preface
        # How long its runs take, if it does not await.
        self.durations = Durations()
        self.is_async = bool(code.co_flags & CO_COROUTINE)

    # The result of code is never awaited.
    is_call = False

    def bind(self, env: dict[str, Any]) -> Callable[[], Any]:
        """Return a function that runs the code in `env`, at once; a coroutine function if `is_async`."""
        if self._preface is not None:
            self._preface.apply(env)
        return FunctionType(self.code, env)


_cache: dict[tuple[str, str | None, int, bool, bool], Program] = {}
_characters = 0


def compile_code(
    source: str,
    file: str | None,
    line: int,
    yields: bool = False,  # noqa: FBT001, FBT002 - internal
    is_cell: bool = False,  # noqa: FBT001, FBT002 - internal
) -> Program:
    r"""Compile `source`, whose first line is line `line` of `file`; cached.

    With `yields`, it may yield, and is a generator then. With `is_cell`, it returns the value of its final
    expression, unless a semicolon follows that.

    Raises:
        SyntaxError: with the place in `file`.
        ValueError: for a line that no file has.

    >>> env = {}
    >>> compile_code("x = 20\nif x: return x + 1", None, 1).bind(env)()
    21
    >>> env["x"]
    20
    >>> compile_code("x + 2", None, 1, is_cell=True).bind(env)()
    22
    """
    global _characters  # noqa: PLW0603 - belongs to the cache
    key = (source, file, line, yields, is_cell)
    program = _cache.pop(key, None)
    if program is None:
        if line > _MAX_LINE:
            msg = f"code cannot begin at line {line}: the last possible line is {_MAX_LINE}"
            raise ValueError(msg)
        try:
            program = _compile(
                sources.Source(sources.name(source, file, line), source, max(line, 1)),
                yields,
                is_cell,
            )
        except SyntaxError as error:
            error.filename = file or sources.NO_FILE
            error.text = _line(source, (error.lineno or 0) - max(line, 1))
            raise
        _characters += len(source)
        while _cache and (len(_cache) >= _MAX_ENTRIES or _characters > _MAX_CHARACTERS):
            oldest = next(iter(_cache))
            del _cache[oldest]
            _characters -= len(oldest[0])
    # The dict is in order of use: the last entry was used last.
    _cache[key] = program
    return program


def _compile(source: sources.Source, yields: bool, is_cell: bool) -> Program:  # noqa: FBT001 - as above
    file, content, line = source
    # Before the compilation, whose warnings show lines, too.
    sources.keep(source)
    # Empty lines in front are the simplest way to have every position right, also in the errors of
    # the parser.
    text = "\n" * (line - 1) + content if line > 1 else content
    module: Any = compile(text, file, "exec", ONLY_AST, dont_inherit=True)
    if is_cell:
        _return_last(module.body, text)
    if "class" in content:
        mark_classes(module, _CLASS_MARK)
    top = TopLevel(module.body, file)
    futures, body = top.futures, top.body
    looks = any(word in content for word in ("await", "async", "yield"))
    is_async = looks and top.is_async(yields=yields)
    bound = _bound_names(_function(futures, body, is_async=is_async), file)
    if bound:
        body = [_at_start(_ast.Global(names=bound)), *body]
    code = _inner(
        compile(_function(futures, body, is_async=is_async), file, "exec", dont_inherit=True)
    )
    mark = sources.ClassMark(source)
    code = _as_module(sources.attach(_named_as_in_module(code), source, mark, _CLASS_MARK))
    if PYPY:
        detach(code)
    return Program(code, top.preface)


def has_value(body: list[Any], text: str) -> bool:
    """Return whether a cell ends with an expression, and no semicolon withholds its value."""
    last = body[-1] if body else None
    if not isinstance(last, _ast.Expr) or isinstance(last.value, (_ast.Yield, _ast.YieldFrom)):
        return False
    statement: Any = last
    # The parser counts bytes.
    rest = sources.split(text)[statement.end_lineno - 1].encode()[statement.end_col_offset :]
    return not rest.lstrip().startswith(b";")


def _return_last(body: list[Any], text: str) -> None:
    """Turn the final expression of a module into a `return`, if a cell has its value."""
    if not has_value(body, text):
        return
    last = body[-1]
    result: Any = _ast.Return(value=last.value)
    for place in ("lineno", "col_offset", "end_lineno", "end_col_offset"):
        setattr(result, place, getattr(last, place))
    body[-1] = result


def _line(source: str, index: int) -> str | None:
    lines = sources.split(source)
    return lines[index].rstrip("\n") if 0 <= index < len(lines) else None


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
        # The second compilation gives the same warnings.
        warnings.simplefilter("ignore")
        code = _inner(compile(function, file, "exec", dont_inherit=True))
    return [name for name in (*code.co_varnames, *code.co_cellvars) if name.isidentifier()]


def _named_as_in_module(code: CodeType) -> CodeType:
    """Take the function out of the qualified names of what it contains.

    Lambdas and the like can't be declared global, and their names would begin with that of the function.
    """
    consts = [_named_as_in_module(c) if isinstance(c, CodeType) else c for c in code.co_consts]
    changes: dict[str, Any] = {}
    if sys.version_info >= (3, 11):
        changes["co_qualname"] = code.co_qualname.removeprefix(_INSIDE)
    else:
        consts = [c.removeprefix(_INSIDE) if isinstance(c, str) else c for c in consts]
    return code.replace(co_consts=tuple(consts), **changes)


def _as_module(code: CodeType) -> CodeType:
    """Have the code use the environment as its namespace, as `exec` would.

    That loses nothing: with every bound name declared global, there are no local variables except
    those of inlined comprehensions, which the compiler hides from `locals()` in this case.
    """
    return code.replace(co_flags=code.co_flags & ~(_CO_OPTIMIZED | _CO_NEWLOCALS))
