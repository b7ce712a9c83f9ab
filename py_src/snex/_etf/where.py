"""For messages: where in a value something is wrong, and what helps. Only used after an error.

A place is written as the code that leads there from the value, such as `['rows'][1]['price']`.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .._eval.sources import shown
from .._eval.unawaited import origin_of
from .._wire.body import Unpickler
from .._wire.sinks import SINKS, StrSink
from . import loading
from .terms import Atom, DistinctAtom, Term

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .._wire.sinks import Sink

_PACKAGE = __file__.removesuffix("_etf/where.py")
# Steps of a longer path that are shown at either end.
_SHOWN = 10
_LONGEST_KEY = 60


def unknown(value: object, why: str = "") -> str:
    """Return the message about an object that cannot be encoded.

    >>> unknown(object())
    "Cannot serialize object of <class 'object'>; convert it, see snex.register_encoder, \
or let it stay in Python (returns: :auto, snex.keep)"
    >>> unknown(item for item in [])
    "Cannot serialize object of <class 'generator'>; make a list of it"
    """
    kind = type(value)
    text = f"Cannot serialize object of {kind}"
    if why:
        return f"{text}: {why}"
    if hasattr(kind, "__await__"):
        return f"{text}: was `await` forgotten?{_called(value)}"
    if hasattr(kind, "__anext__"):
        return f"{text}; make a list of it: [item async for item in it]"
    if hasattr(kind, "__next__"):
        return f"{text}; make a list of it"
    return (
        f"{text}; convert it, see snex.register_encoder, "
        "or let it stay in Python (returns: :auto, snex.keep)"
    )


def _called(awaitable: Any) -> str:  # noqa: ANN401 - of any type
    """Return which function has been called, if a value is a coroutine."""
    code = getattr(awaitable, "cr_code", None)
    if code is None:
        return ""
    if not code.co_filename.startswith(_PACKAGE):
        return f" ({code.co_name}, {shown(code.co_filename)}, line {code.co_firstlineno})"
    # It is one of ours: where it is defined helps nobody.
    origin = origin_of(awaitable)
    if origin is not None:
        place = origin.place
        return f" ({origin.path}{f', {shown(place[0])}, line {place[1]}' if place else ''})"
    function = awaitable.cr_frame and awaitable.cr_frame.f_locals.get("self")
    return f" ({function!r})" if function else f" (snex.{code.co_name})"


def explain(error: Exception, chain: Sequence[object], *culprits: object) -> None:
    """Add the place of a value to the error about it.

    >>> error = TypeError("no")
    >>> item = object()
    >>> explain(error, [{"rows": (rows := [0, item])}, rows], item)
    >>> error
    TypeError("['rows'][1]: no")

    Args:
        error: changed in place.
        chain: the containers around the value, outermost first.
        culprits: forms of the value, of which the first that is in the last container is used.
    """
    place = _place(error, chain, culprits)
    if place:
        prefix(error, place)


def prefix(error: Exception, place: str) -> None:
    """Add a place to an error, in place."""
    if isinstance(error, (UnicodeEncodeError, UnicodeDecodeError)):
        error.reason = f"{error.reason}, in {place}"
    elif type(error) in (TypeError, ValueError) and len(error.args) == 1:
        error.args = (f"{place}: {error.args[0]}",)


def key(error: Exception, obj: object, what: str) -> None:
    """Add to an error that it is about a key of a dict or a member of a set; `what` says which."""
    prefix(error, f"the {what} {_shown(obj)}")


def _place(error: Exception, chain: Sequence[object], culprits: Sequence[object]) -> str:
    steps: list[str] = []
    seen: set[int] = set()
    try:
        for container, child in pairwise(chain):
            if id(container) in seen:
                # From here on, it contains itself.
                break
            seen.add(id(container))
            steps.append(_step(container, child) or "")
        else:
            found = (_step(chain[-1], culprit) for culprit in culprits)
            steps.append(next(filter(None, found), ""))
            steps.append(_in_bulk(error, culprits[0]))
    except Exception:  # noqa: BLE001 - another thread changes it, or its own methods raise
        return ""
    steps = [step for step in steps if step]
    if len(steps) > 2 * _SHOWN:
        steps = [*steps[:_SHOWN], "...", *steps[-_SHOWN:]]
    return "".join(steps).removeprefix(".")


def _in_bulk(error: Exception, items: object) -> str:
    """Return the place of an error in items of one type, which are encoded together."""
    if isinstance(error, UnicodeEncodeError) and isinstance(items, (list, tuple)):
        return next((step for step, item in _steps(items) if item == error.object), "")
    return ""


def _step(container: object, child: object) -> str | None:
    for step, item in _steps(container):
        if item is child:
            return step
    return None


def _steps(container: object) -> Iterator[tuple[str, object]]:
    if isinstance(container, dict):
        pairs = tuple(dict.items(container))
        for name, value in pairs:
            yield f"[{_shown(name)}]", value
        for name, _ in pairs:
            yield f" (the key {_shown(name)})", name
    elif isinstance(container, tuple) and hasattr(container, "_fields"):
        fields: Any = container._fields
        for name, value in zip(fields, tuple.__iter__(container), strict=False):
            yield f".{name}", value
    elif type(container) is MappingProxyType:
        yield from _steps(dict(container))
    elif hasattr(type(container), "__dataclass_fields__"):
        names: Any = type(container).__dataclass_fields__  # type: ignore[attr-defined]
        for name in names:
            yield f".{name}", getattr(container, name, None)
    elif hasattr(type(container), "__members__"):
        # It is a member of an enum.
        yield ".value", container.value  # type: ignore[attr-defined]
    else:
        for index, value in enumerate(_items(container)):
            yield f"[{index}]", value


def _items(container: object) -> Iterable[object]:
    if isinstance(container, tuple):
        return tuple.__iter__(container)
    if isinstance(container, list):
        return list.__iter__(container)
    if isinstance(container, deque):
        return deque.__iter__(container)
    # The result of a custom encoder is not part of the object that was encoded.
    return ()


def _shown(obj: object) -> str:
    text = str.__repr__(obj) if isinstance(obj, str) else repr(obj)
    return text if len(text) <= _LONGEST_KEY else text[: _LONGEST_KEY - 3] + "..."


class _Stand:
    """Stands for any object: its arguments."""

    def __init__(self, *args: object) -> None:
        self.args = args

    def __repr__(self) -> str:
        return "..."


class _Wrong(_Stand):
    """Stands for a value that cannot be made. The first argument says why."""


class _NotText(bytes):
    """Stands for text that is not UTF-8."""

    def __new__(cls, data: bytes | memoryview) -> _NotText | str:  # type: ignore[misc]
        try:
            return bytes(data).decode()
        except UnicodeDecodeError:
            return bytes.__new__(cls, data)


def _distinct(value: Any, count: int) -> object:  # noqa: ANN401
    """Replace the function that counts keys. Atoms are distinct here, so that both of two equal keys are kept."""
    seen: dict[object, object] = {}
    for key in value:
        other = seen.setdefault(_undistinguished(key), key)
        if other is not key:
            return _Wrong(f"{loading.EQUAL}: {_as_atom(other)} and {_as_atom(key)}; {_DISTINCT}")
    return value if len(value) == count else _Wrong(f"{loading.EQUAL}, as 1, 1.0 and True are")


def _array(kind: str, shape: tuple[int, ...], _data: object) -> None:
    from .arrays import home

    home(kind, shape)


_DISTINCT = "with encoding_opts: [atom_as: :distinct_atom] atoms and strings are never equal"


def _as_atom(key: object) -> str:
    return repr(Atom(str.__str__(key))) if type(key) is DistinctAtom else _shown(key)


def _undistinguished(key: object) -> object:
    if isinstance(key, str):
        return str.__str__(key)
    return tuple(map(_undistinguished, key)) if type(key) is tuple else key


class _Finder(Unpickler):
    """Loads a pickle without calling the user's constructors that it names."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if module == "snex._etf.terms":
            return {"decode_text": _NotText, "Term": Term}.get(name, DistinctAtom)
        if (module, name) == (loading.__name__, "distinct"):
            return _distinct
        if (module, name) not in loading.CONSTRUCTORS:
            return _Stand
        constructor = super().find_class(module, name)
        if (module, name) == (loading.__name__, "array"):
            # The numbers of an array in a buffer of its own are not loaded.
            constructor = _array

        def construct(*args: object) -> object:
            try:
                return constructor(*args)
            except (TypeError, ValueError, ArithmeticError) as error:
                return _Wrong(loading.remedy(error, module))

        return construct


def wrong(
    error: Exception, body: bytes | bytearray | memoryview, sinks: Sequence[Sink]
) -> Exception:
    """Say which value of a body is not text, or cannot be made, or has keys that are equal.

    Args:
        error: what loading the body raised.
        body: a pickle.
        sinks: its out-of-band buffers.

    Returns:
        The error to be raised: the same one if no value is to blame.
    """
    import io

    try:
        buffers = [
            _NotText(sink.content()) if SINKS[sink.number] is StrSink else sink.finish()
            for sink in sinks
        ]
        value = _Finder(io.BytesIO(body), buffers=buffers).load()
        found = _find(value)
    except Exception:  # noqa: BLE001 - it is only about a better message
        return error
    if found is None:
        return error
    place, culprit = found
    if isinstance(culprit, _Wrong):
        return ValueError(f"{place}: {culprit.args[0]}")
    if isinstance(error, UnicodeDecodeError):
        error.reason += f", in {place}; pass bytes as Snex.Serde.binary(value, :bytes)"
    return error


def _find(root: object) -> tuple[str, object] | None:
    """Return the place of the first wrong value, and the value."""
    todo = list(_parts(root))
    todo.reverse()
    while todo:
        value, place = todo.pop()
        if type(value) is _NotText or type(value) is _Wrong:
            return place or "the value", value
        if type(value) is _Stand:
            todo += [(item, place) for item in reversed(value.args)]
        elif isinstance(value, (dict, tuple, list)):
            todo += [(item, place + step) for step, item in reversed(tuple(_steps(value)))]
        elif isinstance(value, (set, frozenset)):
            todo += [(item, f"{place} (a member)") for item in value]
    return None


def _parts(root: object) -> Iterator[tuple[object, str]]:
    """Yield the user's values in a body: those of a request have names."""
    dicts = [part for part in root if type(part) is dict] if type(root) is tuple else []
    if type(root) is not tuple or len(dicts) != 1:
        yield root, ""
        return
    # The fields of `INVOKE` and of `MAP`; otherwise the names are those of variables.
    arguments = root[3] if len(root) > 4 else None  # noqa: PLR2004
    if type(arguments) is tuple:
        elements, unpack = arguments
        arguments = list(elements[0]) if unpack and type(elements[0]) in {list, tuple} else elements
    if type(arguments) is not list:
        arguments = None
    for index, value in enumerate(arguments or ()):
        yield value, f"the argument {index + 1}"
    what = "variable" if arguments is None else "argument"
    for name, value in dicts[0].items():
        yield value, f"the {what} {name}"
