"""Converts annotations to the types that the Elixir side knows: lists whose first item is the kind.

    ["int"], ["list", item], ["union", [type, ...]], ["class", "module.name"], ["any"], ...

Both objects and texts first become syntax trees. So an unresolvable part becomes `["any"]`, and the
rest of the annotation keeps its meaning.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections import ChainMap
from typing import TYPE_CHECKING, Any

from . import stubs
from .attempt import attempt, attribute, text

if TYPE_CHECKING:
    from collections.abc import Mapping

Type = list[Any]

ANY: Type = ["any"]
NONE: Type = ["none"]

# The most names and brackets that are followed in an annotation, which may refer to itself.
_DEPTH = 12
# A longer annotation would not help a reader.
_LONGEST = 4_000

_PLAIN: dict[str, Type] = {
    "int": ["int"],
    "float": ["float"],
    "complex": ["complex"],
    "bool": ["bool"],
    "str": ["str"],
    "LiteralString": ["str"],
    "AnyStr": ["union", [["str"], ["bytes"]]],
    "bytes": ["bytes"],
    "bytearray": ["bytes"],
    "memoryview": ["bytes"],
    "None": NONE,
    "NoneType": NONE,
    "Never": ["never"],
    "NoReturn": ["never"],
    "Self": ["self"],
}

# Generic types: their kind, and how many of their arguments count.
_GENERIC = {
    "list": ("list", 1),
    "List": ("list", 1),
    "set": ("set", 1),
    "Set": ("set", 1),
    "frozenset": ("set", 1),
    "FrozenSet": ("set", 1),
    "AbstractSet": ("set", 1),
    "dict": ("dict", 2),
    "Dict": ("dict", 2),
    "Mapping": ("dict", 2),
    "MutableMapping": ("dict", 2),
    "defaultdict": ("dict", 2),
    "OrderedDict": ("dict", 2),
    "Sequence": ("sequence", 1),
    "MutableSequence": ("sequence", 1),
    "Collection": ("sequence", 1),
    "deque": ("sequence", 1),
    "Iterable": ("iterable", 1),
    "Iterator": ("iterator", 1),
    "Generator": ("iterator", 1),
    "AsyncIterator": ("iterator", 1),
    "AsyncIterable": ("iterator", 1),
    "AsyncGenerator": ("iterator", 1),
}

# Wrappers that say nothing about the value.
_WRAPPERS = {"Annotated", "Final", "ClassVar", "Required", "NotRequired", "ReadOnly"}
_AWAITABLE = {"Awaitable": 0, "Coroutine": 2}


class Namespace:
    """Where the names of annotations are looked up: in imported modules, and in a stub."""

    def __init__(self, names: Mapping[str, object], stub: stubs.Scope | None = None) -> None:
        """Take the names of a module, and its stub if there is one."""
        self.names = ChainMap(
            dict(names), vars(sys.modules["typing"]), vars(sys.modules["builtins"])
        )
        self.stub = stub

    def alias(self, name: str) -> ast.expr | None:
        """Return the type for which a name is an alias in the stub, if any."""
        scope = self.stub
        for _ in range(_DEPTH):
            if scope is None:
                return None
            if name in scope.aliases:
                return scope.aliases[name]
            if name not in scope.imports:
                return None
            module, name = scope.imports[name]
            scope = stubs.module(module)
        return None

    def value(self, dotted: str) -> object:
        """Return the object of a dotted name, or `None`."""
        first, *rest = dotted.split(".")
        value = self.names[first] if first in self.names else sys.modules.get(first)
        for name in rest:
            value = attribute(value, name)
        return value


def convert(annotation: object, namespace: Namespace) -> Type:
    """Return the type of an annotation, a text, or a part of a stub."""
    return attempt(_convert, annotation, namespace, _DEPTH, default=ANY)


def of_value(value: object) -> Type:
    """Return the type of a constant."""
    return _PLAIN.get(type(value).__name__, ANY)


def _convert(annotation: object, namespace: Namespace, depth: int) -> Type:
    if annotation is inspect.Parameter.empty or annotation is Any or depth <= 0:
        return ANY
    if isinstance(annotation, ast.expr):
        return _node(annotation, namespace, depth)
    if annotation is None:
        return NONE
    if isinstance(annotation, type) and not attribute(annotation, "__args__"):
        return _class(annotation, namespace, depth)
    annotation = attribute(annotation, "__forward_arg__") or annotation
    if not isinstance(annotation, str):
        # A name of a `typing.NewType` or of a type parameter, about which nothing is known.
        annotation = inspect.formatannotation(annotation)
    source = text(annotation) or ""
    if len(source) > _LONGEST:
        return ANY
    return _node(ast.parse(source.strip(), mode="eval").body, namespace, depth)


def _node(node: ast.expr, namespace: Namespace, depth: int) -> Type:
    if depth <= 0:
        return ANY
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return _convert(node.value, namespace, depth - 1)
        return NONE if node.value is None else ANY
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([node.left, node.right], namespace, depth)
    if isinstance(node, ast.Subscript):
        return _subscript(node, namespace, depth)
    if isinstance(node, ast.Name | ast.Attribute):
        return _name(ast.unparse(node), namespace, depth)
    return ANY


def _name(dotted: str, namespace: Namespace, depth: int) -> Type:
    name = dotted.rpartition(".")[2]
    if (alias := namespace.alias(dotted)) is not None:
        return _node(alias, namespace, depth - 1)
    if name in _PLAIN:
        return _PLAIN[name]
    if name in _GENERIC:
        kind, count = _GENERIC[name]
        return [kind, *[ANY] * count]
    if name in ("tuple", "Tuple"):
        return ["tuple_of", ANY]
    if name == "Callable":
        return ["callable"]
    value = namespace.value(dotted)
    if value is None or value is Any:
        return ANY
    if isinstance(value, type):
        return _class(value, namespace, depth)
    # An alias such as `Axis = Union[int, str]`, or one of a `type` statement.
    value = attribute(value, "__value__") or value
    shown = inspect.formatannotation(value)
    return ANY if shown == dotted else _convert(value, namespace, depth - 1)


def _class(cls: type, namespace: Namespace, depth: int) -> Type:
    if cls.__module__ == "builtins" and cls.__name__ in _PLAIN:
        return _PLAIN[cls.__name__]
    if cls.__name__ in _GENERIC and cls.__module__ in (
        "builtins",
        "collections",
        "collections.abc",
    ):
        return [_GENERIC[cls.__name__][0], *[ANY] * _GENERIC[cls.__name__][1]]
    hints = attempt(lambda: dict(vars(cls).get("__annotations__") or {}), default={})
    if not hints and sys.version_info >= (3, 14):
        hints = attempt(lambda: dict(cls.__annotations__), default={})
    if attribute(cls, "__total__") is not None and issubclass(cls, dict):
        required = attribute(cls, "__required_keys__") or ()
        fields = [
            [name, _convert(hint, namespace, depth - 2), name in required]  # type: ignore[operator]
            for name, hint in hints.items()
        ]
        return ["typed_dict", fields]
    names = attribute(cls, "_fields")
    if issubclass(cls, tuple) and isinstance(names, tuple):
        return ["tuple", [_convert(hints.get(name, Any), namespace, depth - 2) for name in names]]
    return ["class", f"{cls.__module__}.{cls.__qualname__}"]


def _subscript(node: ast.Subscript, namespace: Namespace, depth: int) -> Type:
    name = ast.unparse(node.value).rpartition(".")[2]
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Optional":
        return _union([*items, ast.Constant(None)], namespace, depth)
    if name == "Union":
        return _union(items, namespace, depth)
    if name == "Literal":
        return _literal(items, namespace, depth)
    if name in _WRAPPERS:
        return _node(items[0], namespace, depth - 1)
    if name in ("type", "Type"):
        return ["callable"]
    if name == "Callable":
        return ["callable"]
    if name in ("tuple", "Tuple"):
        if isinstance(items[-1], ast.Constant) and items[-1].value is ...:
            return ["tuple_of", _node(items[0], namespace, depth - 1)]
        return ["tuple", [_node(item, namespace, depth - 1) for item in items]]
    if name in _AWAITABLE:
        return _node(items[_AWAITABLE[name]], namespace, depth - 1)
    if name in _GENERIC:
        kind, count = _GENERIC[name]
        inner = [_node(item, namespace, depth - 1) for item in items[:count]]
        return [kind, *inner, *[ANY] * (count - len(inner))]
    # The arguments of a generic class or alias are not shown in Elixir.
    return _name(ast.unparse(node.value), namespace, depth - 1)


def _union(items: list[ast.expr], namespace: Namespace, depth: int) -> Type:
    flat: list[Type] = []
    for item in items:
        one = _node(item, namespace, depth - 1)
        flat += one[1] if one[0] == "union" else [one]
    unique = [one for index, one in enumerate(flat) if one not in flat[:index]]
    if ANY in unique:
        return ANY
    return unique[0] if len(unique) == 1 else ["union", unique]


def _literal(items: list[ast.expr], namespace: Namespace, depth: int) -> Type:
    known: list[Type] = []
    for item in items:
        one = attempt(ast.literal_eval, item, default=item)
        if isinstance(one, bool | int | str):
            known.append(["literal", text(one) if isinstance(one, str) else one])
        elif one is None:
            known.append(NONE)
        else:
            # A member of an enum, bytes, or another `Literal`.
            known.append(_node(item, namespace, depth - 1))
    return known[0] if len(known) == 1 else ["union", known]
