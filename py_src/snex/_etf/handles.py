"""Handles: what stands in a term for objects that stay in Python.

In a term, a handle is a tuple that `HELLO` describes, with the handle's index in its frame. The object gets its
number only when the frame is sent, so a value that cannot be encoded completely creates no handle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from .scalars import LEAVES, Raw

if TYPE_CHECKING:
    from collections.abc import Sequence


@final
class Handle:
    """The result of `keep`: it becomes a `Snex.Object` in Elixir, and the object itself stays in Python.

    Attributes:
        object: the object.
    """

    __slots__ = ("object",)
    __module__ = "snex"

    def __init__(self, obj: object) -> None:
        """Wrap an object."""
        self.object = obj

    def __repr__(self) -> str:
        """Show the type; the object itself is not called."""
        return f"<snex.Handle of {type_name(self.object)}>"


def keep(obj: object) -> Handle:
    """Return a handle that becomes a `Snex.Object` in Elixir: the object stays in Python, whatever its type.

    Args:
        obj: any object.

    >>> keep([1, 2])
    <snex.Handle of list>
    """
    return obj if type(obj) is Handle else Handle(obj)


class Layout:
    """The VM's layout of a handle in a term: the bytes before the index, before the type, and after it."""

    before_number = b"h\x03M\x00\x00\x00\x0c\x01snex.Object\x80"
    before_type = b""
    end = b""


# Bytes that each handle adds to the frame besides the term: its number. As in `encoder.rs`.
BYTES_OF_HANDLE = 8


# Stands among the objects of a term for a `Snex.Arrow`, of which Elixir may make a data frame. Its number is 0.
FRAME: Any = type("Frame", (), {"__slots__": ()})()


class WithHandles(list[Any]):
    """The parts of a term with handles. The objects get their numbers when it is sent."""

    __slots__ = ("objects",)

    def __init__(self, parts: Sequence[bytes | memoryview], objects: list[object]) -> None:
        super().__init__(parts)
        self.objects = objects


def place(obj: object, objects: list[object], *, alike: bool = False) -> Raw:
    """Add an object to those of a term, and return what stands in its place.

    `alike` says that every other object of its type becomes a handle, too.
    """
    index: Any = LEAVES[int](len(objects))
    name: Any = LEAVES[str](type_name(obj))
    before, behind = Layout.before_number, Layout.before_type + name + Layout.end
    around = (before, behind) if alike else None
    objects.append(obj)
    return Raw(before + index + behind, around)


# Reads the attributes of a type past its metaclass.
_attributes: Any = type.__dict__
_QUALNAME = _attributes["__qualname__"].__get__
_MODULE = _attributes["__module__"].__get__
MRO = _attributes["__mro__"].__get__
_PLAIN = frozenset({"builtins", "__main__"})


def type_name(obj: object) -> str:
    """Return the name of an object's type, with its module unless that is `builtins` or `__main__`.

    >>> import decimal
    >>> type_name(decimal.Decimal(1)), type_name([])
    ('decimal.Decimal', 'list')
    """
    kind = type(obj)
    name = str.__str__(_QUALNAME(kind))[:_LONGEST]
    module = _MODULE(kind)
    if type(module) is str and module not in _PLAIN:
        name = f"{module[:_LONGEST]}.{name}"
    return name if name.isascii() else name.encode("utf-8", "replace").decode()


# Characters of a name that are shown. Generated names may be of any length.
_LONGEST = 255
