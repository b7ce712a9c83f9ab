"""Signatures: from the function itself, from a stub, or from the first line of its documentation."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from typing import TYPE_CHECKING, Any

from .annotations import ANY, Namespace, Type, convert
from .attempt import attempt, attribute, text

if TYPE_CHECKING:
    from . import stubs

Signature = dict[str, Any]

_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional_only",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional",
    inspect.Parameter.VAR_POSITIONAL: "rest",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
    inspect.Parameter.VAR_KEYWORD: "any_keyword",
}

# Defaults are shown, never evaluated. A longer one is not shown.
_LONGEST_DEFAULT = 100


def of(
    thing: object, definitions: list[stubs.Function], namespace: Namespace, *, bound: bool
) -> list[Signature]:
    """Return the signatures of a function: none if nothing is known, several for overloads.

    The first one has the arguments; the others only add types. `bound` says whether Python itself
    passes the first argument.
    """
    inspected = attempt(_inspected, thing, default=None)
    own = (
        attempt(_of_inspected, inspected, namespace, bound, default=None)
        if inspected is not None
        else None
    )
    typed = [
        one
        for definition in definitions
        if (one := attempt(_of_definition, definition, namespace, bound, default=None)) is not None
    ]
    if own is None or (_says_nothing(own) and typed):
        found = typed or attempt(_of_documentation, thing, namespace, bound, default=[])
        return found or ([own] if own else [])
    return _with_types(own, typed) if _is_untyped(own) else [own]


def _inspected(thing: object) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        # As text, because names that only type checkers know cannot be evaluated.
        from annotationlib import Format

        return inspect.signature(thing, annotation_format=Format.STRING)  # type: ignore[arg-type]
    return inspect.signature(thing)  # type: ignore[arg-type]


def _of_inspected(signature: inspect.Signature, namespace: Namespace, bound: bool) -> Signature:  # noqa: FBT001
    parameters = [
        _parameter(
            one.name,
            _KINDS[one.kind],
            None if one.default is one.empty else _shown(one.default),
            convert(one.annotation, namespace),
        )
        for one in signature.parameters.values()
    ]
    return _signature(parameters, convert(signature.return_annotation, namespace), bound)


def _of_definition(
    definition: stubs.Function,
    namespace: Namespace,
    bound: bool,  # noqa: FBT001
) -> Signature:
    args = definition.args
    plain = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [*[None] * (len(plain) - len(args.defaults)), *args.defaults]
    parameters = []
    for index, (arg, default) in enumerate(zip(plain, defaults, strict=True)):
        only = index < len(args.posonlyargs) or (
            arg.arg.startswith("__") and not arg.arg.endswith("__")
        )
        parameters.append(
            _of_arg(arg, "positional_only" if only else "positional", default, namespace)
        )
    if args.vararg:
        parameters.append(_of_arg(args.vararg, "rest", None, namespace))
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        parameters.append(_of_arg(arg, "keyword", default, namespace))
    if args.kwarg:
        parameters.append(_of_arg(args.kwarg, "any_keyword", None, namespace))
    return _signature(parameters, convert(_or_empty(definition.returns), namespace), bound)


def _of_arg(
    arg: ast.arg, kind: str, default: ast.expr | None, namespace: Namespace
) -> dict[str, Any]:
    shown = None if default is None else _cut(ast.unparse(default))
    return _parameter(arg.arg, kind, shown, convert(_or_empty(arg.annotation), namespace))


def _or_empty(annotation: ast.expr | None) -> object:
    return inspect.Parameter.empty if annotation is None else annotation


# `name(a, b[, c]) -> result`, with which the documentation of C functions often begins.
_CALL = re.compile(r"\s*([\w.]+)(\((?:[^()]|\([^()]*\))*\))(?:\s*->.*)?\s*(?:\n|$)")
_OPTIONAL = re.compile(r"\[\s*,?([^\[\]]*)\]")


def without_call(doc: object, name: object) -> object:
    """Return a docstring without the call of the function with which it begins."""
    if not isinstance(doc, str) or (found := _CALL.match(doc)) is None:
        return doc
    rest = doc[found.end() :]
    return rest if rest.strip() and found[1].rpartition(".")[2] == name else doc


def _of_documentation(thing: object, namespace: Namespace, bound: bool) -> list[Signature]:  # noqa: FBT001
    found = _CALL.match(text(attribute(thing, "__doc__")) or "")
    name = attribute(thing, "__name__")
    if found is None or found[1].rpartition(".")[2] != name:
        return []
    parameters = found[2]
    while (optional := _OPTIONAL.search(parameters)) is not None:
        names = [one.strip() for one in optional[1].split(",") if one.strip()]
        inside = "".join(f", {one}" if "=" in one else f", {one}=..." for one in names)
        parameters = parameters[: optional.start()] + inside + parameters[optional.end() :]
    parameters = parameters.replace("(,", "(", 1)
    definition = ast.parse(f"def f{parameters}: pass").body[0]
    if not isinstance(definition, ast.FunctionDef):
        return []
    return [_of_definition(definition, namespace, bound and _begins_with_self(definition))]


def _begins_with_self(definition: ast.FunctionDef) -> bool:
    first = [*definition.args.posonlyargs, *definition.args.args][:1]
    return bool(first) and first[0].arg in ("self", "cls")


def _parameter(name: str, kind: str, default: str | None, annotation: Type) -> dict[str, Any]:
    return {"name": text(name), "kind": kind, "default": default, "type": annotation}


def _signature(parameters: list[dict[str, Any]], returns: Type, bound: bool) -> Signature:  # noqa: FBT001
    if bound and parameters and parameters[0]["kind"] in ("positional_only", "positional"):
        parameters = parameters[1:]
    return {"parameters": parameters, "returns": returns}


def _says_nothing(signature: Signature) -> bool:
    return {one["kind"] for one in signature["parameters"]} == {"rest", "any_keyword"}


def _is_untyped(signature: Signature) -> bool:
    types = [one["type"] for one in signature["parameters"]]
    return all(one == ANY for one in [*types, signature["returns"]])


def _with_types(own: Signature, typed: list[Signature]) -> list[Signature]:
    """Return the signature with the types of the stub, once for each overload."""
    found = []
    for one in typed:
        types = {
            parameter["name"].lstrip("_"): parameter["type"] for parameter in one["parameters"]
        }
        parameters = [
            {**parameter, "type": types.get(parameter["name"], ANY)}
            for parameter in own["parameters"]
        ]
        found.append({"parameters": parameters, "returns": one["returns"]})
    return found or [own]


def _shown(default: object) -> str:
    if default is None or isinstance(
        default, bool | int | float | str | bytes | tuple | list | dict
    ):
        shown = attempt(repr, default, default="...")
    else:
        name = attribute(default, "__name__")
        shown = name if isinstance(name, str) else attempt(repr, default, default="...")
    return _cut(shown)


def _cut(shown: str) -> str:
    shown = text(shown) or "..."
    # An address differs from run to run.
    return "..." if len(shown) > _LONGEST_DEFAULT or " at 0x" in shown or "\n" in shown else shown


def merged(found: list[Signature], typed: list[Signature]) -> list[Signature]:
    """Return the signatures of a constructor: its own, with the types of a stub if it has none."""
    if not found or (_says_nothing(found[0]) and typed):
        return typed or found
    return _with_types(found[0], typed) if _is_untyped(found[0]) else found
