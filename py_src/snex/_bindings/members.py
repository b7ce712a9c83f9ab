"""Describes the members of modules and classes as JSON."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
from typing import TYPE_CHECKING, Any

from . import signatures, stubs
from .annotations import ANY, Namespace, convert, of_value
from .attempt import attempt, attribute, text

if TYPE_CHECKING:
    from .docs import Converter
    from .selection import Selection

Member = dict[str, Any]

_SHOWN = (bool, int, float, str, bytes, type(None))
_LONGEST_VALUE = 100

_TYPING = ("typing", "typing_extensions", "collections.abc")


class Describer:
    """Describes the members of one module."""

    def __init__(self, module: types.ModuleType, docs: Converter, selection: Selection) -> None:
        """Take the module, and the selection of its names."""
        self.module = module
        self.name = module.__name__
        self.docs = docs
        self.selection = selection
        # By identity of the object, because several names may stand for one.
        self.numbers: dict[int, int] = {}
        self.kept: list[object] = []
        # Classes that are defined in classes.
        self.nested: list[Member] = []

    def describe(self) -> Member:
        """Return the module with its members, in the order of their names."""
        found = [attempt(self._member, name, default=None) for name in self._names()]
        return {
            "name": self.name,
            "doc": self.docs.markdown(attribute(self.module, "__doc__")),
            "members": [one for one in found if one is not None] + self.nested,
        }

    def _names(self) -> list[str]:
        """Return the public names, or those that were asked for."""
        exported = attribute(self.module, "__all__")
        if self.selection.only is not None:
            names = {name.partition(".")[0] for name in self.selection.only}
        elif isinstance(exported, list | tuple):
            names = {name for name in exported if isinstance(name, str)}
        else:
            public = {name for name in dir(self.module) if not name.startswith("_")}
            names = {name for name in public if attempt(self._is_own, name, default=False)}
        return sorted(name for name in names if name.isidentifier() and self.selection.wanted(name))

    def _is_own(self, name: str) -> bool:
        """Return whether the object of a name belongs to this module's package, as far as it tells."""
        value = getattr(self.module, name)
        home = attribute(value, "__module__")
        if home in _TYPING:
            return False
        if not isinstance(home, str) or not callable(value):
            # Constants don't tell where they come from; compiler directives and names of `typing` don't count.
            return type(value).__module__ not in ("__future__", *_TYPING)
        root = self.name.partition(".")[0]
        return home.partition(".")[0].lstrip("_") == root.lstrip("_")

    def _number(self, value: object) -> int:
        self.kept.append(value)
        return self.numbers.setdefault(id(value), len(self.numbers))

    def _member(self, name: str) -> Member | None:
        value = getattr(self.module, name)
        if isinstance(value, types.ModuleType):
            return None
        if isinstance(value, type):
            return self._class(name, value)
        if type(value).__module__ in _TYPING:
            return None
        if callable(value):
            return {**self._function(name, value), "object": self._number(value)}
        return self._constant(name, value, self._namespace(value), self.module)

    def _namespace(self, thing: object) -> Namespace:
        inner = attempt(inspect.unwrap, thing, default=thing)
        home = attribute(inner, "__module__")
        module = sys.modules.get(home) if isinstance(home, str) else None
        names = attribute(inner, "__globals__") or vars(module or self.module)
        scope = stubs.module(home) if isinstance(home, str) else None
        return Namespace(names, scope or stubs.module(self.name))  # type: ignore[arg-type]

    def _definitions(self, thing: object, name: str) -> list[stubs.Function]:
        found = stubs.functions(self.name, name)
        home, qualified = attribute(thing, "__module__"), attribute(thing, "__qualname__")
        if not found and isinstance(home, str) and isinstance(qualified, str):
            found = stubs.functions(home, qualified)
        return found

    def _function(self, name: str, thing: object, *, bound: bool = False) -> Member:
        namespace = self._namespace(thing)
        definitions = self._definitions(thing, name)
        found = signatures.of(thing, definitions, namespace, bound=bound)
        return {
            "kind": "function",
            "name": text(name.rpartition(".")[2]),
            "path": text(name),
            "doc": self._doc(thing),
            "signatures": found,
            "deprecated": _deprecated(thing),
        }

    def _doc(self, thing: object) -> str | None:
        doc = attribute(thing, "__doc__")
        # An instance has the docstring of its class, which is about something else.
        if doc is attribute(type(thing), "__doc__") and not isinstance(thing, type):
            return None
        return self.docs.markdown(signatures.without_call(doc, attribute(thing, "__name__")))

    def _constant(self, name: str, value: object, namespace: Namespace, owner: object) -> Member:
        hints = attribute(owner, "__annotations__")
        last = name.rpartition(".")[2]
        hint = hints.get(last) if isinstance(hints, dict) else None
        kind = of_value(value)
        if kind == ["any"] and hint is not None:
            kind = convert(hint, namespace)
        shown = attempt(repr, value, default=None) if type(value) in _SHOWN else None
        return {
            "kind": "constant",
            "name": text(last),
            "path": text(name),
            "type": kind,
            "value": text(shown) if shown and len(shown) <= _LONGEST_VALUE else None,
        }

    def _class(self, name: str, cls: type) -> Member:
        members = [self._constructor(name, cls)]
        stored = _attributes(cls)
        data = attribute(cls, "__dataclass_fields__")
        for attribute_name, hint in _fields(cls):
            if isinstance(data, dict) and attribute_name in data:
                # The attribute of the class is only the default.
                stored.pop(attribute_name, None)
            path = f"{name}.{attribute_name}"
            if attribute_name not in stored and self.selection.wanted(path):
                members.append(self._field(path, hint, self._namespace(cls)))
        for attribute_name, (owner, static) in sorted(stored.items(), key=lambda item: item[0]):
            path = f"{name}.{attribute_name}"
            if not self.selection.wanted(path):
                continue
            if isinstance(static, type):
                # A class that is defined elsewhere only has a name here.
                if static.__qualname__ == f"{cls.__qualname__}.{attribute_name}":
                    nested = attempt(self._class, path, static, default=None)
                    self.nested += [nested] if nested is not None else []
                continue
            member = attempt(self._attribute, path, owner, static, default=None)
            if member is not None:
                members.append(member)
        return {
            "kind": "class",
            "name": text(name),
            "type": f"{cls.__module__}.{cls.__qualname__}",
            "doc": self._class_doc(cls),
            "members": members,
            "deprecated": _deprecated(cls),
            "object": self._number(cls),
        }

    def _class_doc(self, cls: type) -> str | None:
        return self.docs.markdown(attempt(lambda: vars(cls).get("__doc__"), default=None))

    def _constructor(self, name: str, cls: type) -> Member:
        definitions = [
            one
            for method in ("__init__", "__new__")
            for one in stubs.functions(self.name, f"{name}.{method}")
            or stubs.functions(cls.__module__, f"{cls.__qualname__}.{method}")
        ]
        namespace = self._namespace(cls)
        found = signatures.of(cls, [], namespace, bound=False)
        typed = signatures.of(None, definitions, namespace, bound=True)
        init = attempt(inspect.getattr_static, cls, "__init__", default=None)
        return {
            "kind": "constructor",
            "name": "new",
            "path": text(name),
            "doc": self._doc(init) if isinstance(init, types.FunctionType) else None,
            "signatures": signatures.merged(found, typed),
            "deprecated": None,
        }

    def _attribute(self, path: str, owner: type, static: object) -> Member:
        if isinstance(static, staticmethod):
            return {**self._function(path, static.__func__), "kind": "static"}
        if isinstance(static, classmethod):
            return {**self._function(path, static.__func__, bound=True), "kind": "static"}
        if isinstance(static, types.ClassMethodDescriptorType):
            method = getattr(owner, path.rpartition(".")[2])
            return {**self._function(path, method), "kind": "static"}
        if inspect.isdatadescriptor(static) or isinstance(static, functools.cached_property):
            return self._property(path, owner, static)
        if callable(static):
            return {**self._function(path, static, bound=True), "kind": "method"}
        if hasattr(type(static), "__get__"):
            return self._property(path, owner, static)
        return self._constant(path, static, self._namespace(owner), owner)

    def _field(self, path: str, hint: object, namespace: Namespace) -> Member:
        return {
            "kind": "property",
            "name": text(path.rpartition(".")[2]),
            "path": text(path),
            "doc": None,
            "type": convert(hint, namespace),
        }

    def _property(self, path: str, owner: type, static: object) -> Member:
        getter = attribute(static, "fget") or attribute(static, "func")
        name = path.rpartition(".")[2]
        namespace = self._namespace(getter or owner)
        hints = attribute(getter, "__annotations__")
        returns = hints.get("return", ANY) if isinstance(hints, dict) else ANY
        found = ANY if returns is ANY else convert(returns, namespace)
        if found == ANY:
            stub = stubs.functions(owner.__module__, f"{owner.__qualname__}.{name}")
            stub = stub or stubs.functions(self.name, path)
            if stub and stub[0].returns is not None:
                found = convert(stub[0].returns, namespace)
        return {
            "kind": "property",
            "name": text(name),
            "path": text(path),
            "doc": self._doc(getter if getter is not None else static),
            "type": found,
        }


# Members of these are Python's own.
_BASES = (object, BaseException, Exception)


def _attributes(cls: type) -> dict[str, tuple[type, object]]:
    """Return the public attributes of a class as they are stored, each with the class that defines it."""
    found: dict[str, tuple[type, object]] = {}
    for owner in type.mro(cls) if cls is not type else ():
        if owner in _BASES:
            continue
        for name, static in attempt(vars, owner, default={}).items():
            if isinstance(name, str) and not name.startswith("_") and name.isidentifier():
                found.setdefault(name, (owner, static))
    return found


def _fields(cls: type) -> list[tuple[str, object]]:
    """Return the public attributes that only have annotations, such as those of a dataclass."""
    found: dict[str, object] = {}
    for owner in type.mro(cls) if cls is not type else ():
        hints = attribute(owner, "__annotations__") if owner not in _BASES else None
        for name, hint in hints.items() if isinstance(hints, dict) else ():
            if isinstance(name, str) and not name.startswith("_") and "ClassVar" not in str(hint):
                found.setdefault(name, hint)
    return sorted(found.items(), key=lambda item: item[0])


# An indented directive would be about a parameter.
_DEPRECATED = re.compile(r"^\.\. deprecated::[ \t]*(.*(?:\n[ \t]+\S.*)*)", re.MULTILINE)


def _deprecated(thing: object) -> str | None:
    """Return the text about a deprecation, from the decorator or the documentation."""
    message = text(attribute(thing, "__deprecated__"))
    if message is None:
        doc = text(attribute(thing, "__doc__")) or ""
        found = _DEPRECATED.search(inspect.cleandoc(doc)) if ".. deprecated::" in doc else None
        message = None if found is None else f"since {found[1]}"
    return " ".join(message.replace("`", "").split())[:500] if message else None
