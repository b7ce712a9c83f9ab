"""Stub files: beside a module, in a package `<name>-stubs`, or in a copy of typeshed."""

from __future__ import annotations

import ast
import importlib.util
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .attempt import attempt

if TYPE_CHECKING:
    from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef

# Copies of typeshed in packages, below a folder of `sys.path`.
_TYPESHEDS = ("typeshed_client/typeshed", "mypy/typeshed/stdlib")

# The most modules through which a name is followed.
_DEPTH = 4


@dataclass
class Scope:
    """The definitions of a module or class in a stub."""

    functions: dict[str, list[Function]] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    # Annotations of variables.
    variables: dict[str, ast.expr] = field(default_factory=dict)
    # Aliases of types.
    aliases: dict[str, ast.expr] = field(default_factory=dict)
    # Imported names: the module, and the name in it.
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)


_scopes: dict[int, Scope] = {}
_folders: list[Path] = []


def look_in(folder: str) -> None:
    """Look for copies of typeshed in another folder, too, after the project's own."""
    _folders.append(Path(folder))


@cache
def module(name: str) -> Scope | None:
    """Return the scope of a module's stub, if there is one."""
    for path in _candidates(name):
        tree = attempt(_parse, path, default=None)
        if tree is not None:
            return _scope(tree, name, is_package=path.name == "__init__.pyi")
    return None


def functions(module_name: str, path: str) -> list[Function]:
    """Return the definitions of a function, several if it is overloaded."""
    scope = module(module_name)
    owners, name = path.split(".")[:-1], path.rpartition(".")[2]
    for _ in range(_DEPTH):
        first = owners[0] if owners else name
        if scope is None or first in scope.classes or first in scope.functions:
            break
        if first not in scope.imports:
            return []
        source, original = scope.imports[first]
        owners, name = ([original, *owners[1:]], name) if owners else ([], original)
        scope = module(source)
    for owner in owners:
        definition = scope.classes.get(owner) if scope is not None else None
        if definition is None:
            return []
        scope = of_class(definition)
    return scope.functions.get(name, []) if scope is not None else []


def of_class(definition: ast.ClassDef) -> Scope:
    """Return the scope of a class in a stub."""
    scope = _scopes.get(id(definition))
    if scope is None:
        scope = _scopes[id(definition)] = _scope(definition, "", is_package=False)
    return scope


def _parse(path: Path) -> ast.Module | None:
    return ast.parse(path.read_bytes()) if path.is_file() else None


def _candidates(name: str) -> Iterator[Path]:
    parts = name.split(".")
    loaded = sys.modules.get(name)
    spec = getattr(loaded, "__spec__", None) or attempt(
        importlib.util.find_spec, name, default=None
    )
    origin = getattr(spec, "origin", None)
    if isinstance(origin, str) and "/" in origin:
        path = Path(origin)
        # The file name of an extension module has more than one suffix.
        yield path.with_name(path.name.split(".")[0] + ".pyi")
    below = Path(*parts)
    for folder in [*map(Path, sys.path), *_folders]:
        yield from _either(folder / f"{parts[0]}-stubs" / Path(*parts[1:]))
        for typeshed in _TYPESHEDS:
            yield from _either(folder / typeshed / below)


def _either(path: Path) -> tuple[Path, Path]:
    return path / "__init__.pyi", path.with_name(path.name + ".pyi")


def _scope(tree: ast.Module | ast.ClassDef, name: str, *, is_package: bool) -> Scope:
    scope = Scope()
    for node in _statements(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            scope.functions.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.ClassDef):
            scope.classes[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            is_alias = ast.unparse(node.annotation).endswith("TypeAlias")
            if is_alias and node.value is not None:
                scope.aliases[node.target.id] = node.value
            else:
                scope.variables[node.target.id] = node.annotation
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            scope.aliases[node.targets[0].id] = node.value
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, name, is_package=is_package)
            for alias in node.names:
                scope.imports[alias.asname or alias.name] = (source, alias.name)
    return scope


def _absolute(node: ast.ImportFrom, name: str, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join(base + ([node.module] if node.module else []))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements(node.body if _holds(node.test) else node.orelse)
        elif isinstance(node, ast.Try):
            yield from _statements(node.body)
        else:
            yield node


def _holds(test: ast.expr) -> bool:
    names = {"sys": sys, "TYPE_CHECKING": True}
    code = compile(ast.Expression(test), "<stub>", "eval")
    # The conditions of stubs compare versions and platforms, and need no builtins.
    return bool(attempt(eval, code, {"__builtins__": {}}, names, default=True))
