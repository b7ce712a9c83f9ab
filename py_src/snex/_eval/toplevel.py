"""Rewrites the top level of a module into the body of a function that does the same.

A function may not contain `from module import *`, does not annotate variables, and has a docstring of its
own. A `Preface` does the part of this that comes before the first statement.
"""

from __future__ import annotations

import _ast
import sys
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ONLY_AST = 0x400

_FUNCTIONS = (_ast.FunctionDef, _ast.AsyncFunctionDef)
_COMPREHENSIONS = (_ast.ListComp, _ast.SetComp, _ast.DictComp)
_YIELD = "'yield' outside function: code that yields is for Snex.stream"
# Whether annotations are evaluated lazily.
_DEFERRED = sys.version_info >= (3, 14)


class Preface:
    """What a module does before its first statement."""

    def __init__(self, doc: str | None, annotate: CodeType | None, *, annotated: bool) -> None:
        """Set `doc`, and prepare for annotations if the code has some.

        `annotate` is the code of the function that evaluates them, if Python evaluates them lazily.
        """
        self._doc = doc
        self._annotate = annotate
        self._annotated = annotated

    def apply(self, names: dict[str, Any]) -> None:
        """Do it with the variables of an environment."""
        if self._doc is not None:
            names["__doc__"] = self._doc
        if self._annotate is not None:
            names["__annotate__"] = FunctionType(self._annotate, names)
            names["__conditional_annotations__"] = set()
            # Annotations of earlier code, if they have been evaluated.
            names.pop("__annotations__", None)
        elif self._annotated:
            # A dictionary of its own: the environment may be a copy that shares the original's.
            names["__annotations__"] = dict(names.get("__annotations__", ()))


class TopLevel:
    """The statements of a module.

    Attributes:
        futures: the `__future__` imports, which must stay in front of the function.
        body: what becomes the body of the function.
        preface: what to do before the body, if anything.
    """

    def __init__(self, body: list[Any], file: str) -> None:
        """Rewrite the statements of a module.

        Raises:
            SyntaxError: for what a module does not allow.
        """
        self._file = file
        start = 1 if body and _is_docstring(body[0]) else 0
        end = start
        while end < len(body) and _is_future(body[end]):
            end += 1
        self.futures = body[start:end]
        self._annotations_are_text = any(
            name.name == "annotations" for node in self.futures for name in node.names
        )
        # Annotations of plain names, and the constants in `body` that will be their texts.
        self._annotated: list[Any] = []
        self._texts: list[Any] = []
        self.body = self._rewrite(body[end:])
        self.preface = self._preface(body[:start])

    def _error(self, message: str, node: Any) -> SyntaxError:  # noqa: ANN401 - nodes of every kind
        start, end = node.col_offset + 1, node.end_col_offset + 1
        return SyntaxError(message, (self._file, node.lineno, start, None, node.end_lineno, end))

    def _rewrite(self, body: list[Any]) -> list[Any]:
        result = []
        for node in body:
            if isinstance(node, _ast.AnnAssign):
                result += self._annotation(node)
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
                                setattr(holder, field, self._rewrite(block))
                result.append(node)
        return result

    def _annotation(self, node: Any) -> list[Any]:  # noqa: ANN401 - a node
        """Return statements that do what an annotated assignment does in a module."""
        result: list[Any] = []
        if not isinstance(node.target, _ast.Name):
            # It is only evaluated, not stored.
            result.append(node)
        elif node.value is not None:
            result.append(_ast.Assign(targets=[node.target], value=node.value, type_comment=None))
        if node.simple:
            result.append(self._store(node))
        elif not _DEFERRED and not self._annotations_are_text:
            result.append(_ast.Expr(value=node.annotation))
        return [_located(statement, node) for statement in result or [_ast.Pass()]]

    def _store(self, node: Any) -> Any:  # noqa: ANN401 - nodes
        """Return the statement that stores or counts the annotation of a name."""
        index = len(self._annotated)
        self._annotated.append(node)
        if _DEFERRED and not self._annotations_are_text:
            return _at(f"__conditional_annotations__.add({index})", node)
        statement = _at(f"__annotations__[{node.target.id!r}] = ''", node)
        if self._annotations_are_text:
            self._texts.append(statement.value)
        else:
            statement.value = node.annotation
        return statement

    def _preface(self, doc: list[Any]) -> Preface | None:
        if not doc and not self._annotated:
            return None
        annotate = None
        if self._texts:
            texts = self._annotation_texts()
            for constant, text in zip(self._texts, texts):  # noqa: B905 - 3.10 knows `strict`
                constant.value = text
        elif _DEFERRED and self._annotated:
            annotate = self._annotate()
        return Preface(_docstring(doc), annotate, annotated=bool(self._annotated))

    def _annotation_texts(self) -> list[str]:
        """Return the annotations as the compiler writes them."""
        arguments = ", ".join(f"_{i}" for i in range(len(self._annotated)))
        function: Any = _parse(f"def f({arguments}): pass")
        for argument, node in zip(function.args.args, self._annotated):  # noqa: B905
            argument.annotation = node.annotation
        names: dict[str, Any] = {}
        module = _ast.Module(body=[*self.futures, function], type_ignores=[])
        exec(compile(module, self._file, "exec", dont_inherit=True), names)  # noqa: S102 - a definition
        return list(names["f"].__annotations__.values())

    def _annotate(self) -> CodeType:
        """Return the code of the function that the compiler makes of a module's annotations."""
        body: Any = [
            _located(
                _ast.AnnAssign(target=n.target, annotation=n.annotation, value=None, simple=1), n
            )
            for n in self._annotated
        ]
        module = _ast.Module(body=body, type_ignores=[])
        compiled = compile(module, self._file, "exec", dont_inherit=True)
        return next(
            c for c in compiled.co_consts if isinstance(c, CodeType) and c.co_name == "__annotate__"
        )

    def is_async(self, *, yields: bool = False) -> bool:
        """Return whether the top level awaits. Refuses `yield`, as a module does, unless `yields`."""
        is_async = False
        todo: list[Any] = list(self.body)
        while todo:
            node = todo.pop()
            if not yields and isinstance(node, (_ast.Yield, _ast.YieldFrom)):
                raise self._error(_YIELD, node)
            if isinstance(node, (_ast.Await, _ast.AsyncFor, _ast.AsyncWith)):
                is_async = True
            if isinstance(node, _COMPREHENSIONS) and any(g.is_async for g in node.generators):
                is_async = True
            todo.extend(_same_scope(node))
        return is_async


def mark_classes(module: Any, mark: str) -> None:  # noqa: ANN401 - a node
    """Give every class of the code a decorator `mark`, both before and after its own decorators."""
    todo = [module]
    while todo:
        node = todo.pop()
        todo.extend(_children(node))
        if isinstance(node, _ast.ClassDef):
            # The line of a class is that of its first decorator.
            places = [*node.decorator_list[:1], node]
            first, *last = [_located(_ast.Constant(value=mark, kind=None), p) for p in places]
            node.decorator_list = [first, *node.decorator_list, *last]


def _is_docstring(node: Any) -> bool:  # noqa: ANN401 - nodes of every kind
    return (
        isinstance(node, _ast.Expr)
        and isinstance(node.value, _ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_future(node: Any) -> bool:  # noqa: ANN401 - nodes of every kind
    return isinstance(node, _ast.ImportFrom) and node.module == "__future__"


def _docstring(nodes: list[Any]) -> str | None:
    """Return the docstring as the compiler changes it."""
    names: dict[str, Any] = {}
    module = _ast.Module(body=nodes, type_ignores=[])
    exec(compile(module, "", "exec", dont_inherit=True), names)  # noqa: S102 - a constant
    return names.get("__doc__")


def _parse(source: str) -> Any:  # noqa: ANN401 - a node
    module: Any = compile(source, "", "exec", ONLY_AST, dont_inherit=True)
    return module.body[0]


def _at(source: str, place: Any) -> Any:  # noqa: ANN401 - nodes
    """Return the statement `source`, at the position of another."""
    statement = _parse(source)
    todo = [statement]
    while todo:
        part = todo.pop()
        if "lineno" in part._attributes:  # noqa: SLF001 - its documented name
            _located(part, place)
        todo.extend(_children(part))
    return statement


def _star_import(node: Any) -> Any:  # noqa: ANN401 - a node
    """Return a call that does what `from module import *` does; a function may not contain that."""
    star = "__import__('snex._eval.star')._eval.star"
    call = f"{star}.import_star({node.module or ''!r}, {node.level})"
    return _at(call, node)


def _located(new: Any, old: Any) -> Any:  # noqa: ANN401 - nodes of every kind
    if new is not old:
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
    """Return the parts of a node that belong to the same scope as the node."""
    if isinstance(node, _FUNCTIONS):
        return [*node.decorator_list, *_children(node.args), *filter(None, [node.returns])]
    if isinstance(node, _ast.ClassDef):
        return [*node.decorator_list, *node.bases, *node.keywords]
    if isinstance(node, _ast.Lambda):
        return [*node.args.defaults, *filter(None, node.args.kw_defaults)]
    if isinstance(node, _ast.GeneratorExp):
        return [node.generators[0].iter]
    return list(_children(node))
