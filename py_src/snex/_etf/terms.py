"""Elixir terms for which Python has no type. Pickles from the VM name this module."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn

_LONGEST_ATOM = 255


class Atom(str):
    """An atom. It equals the plain `str` of the same name, and is the same key in a `dict`.

    Args:
        name: up to 255 characters.

    Raises:
        ValueError: `atom too long`.

    >>> Atom("ok")
    snex.Atom('ok')
    >>> {Atom("ok"): 1}["ok"]
    1
    """

    __slots__ = ()
    __module__ = "snex"

    def __new__(cls, name: str) -> Atom:  # noqa: PYI034 - a subclass passes through as well
        """Check the length."""
        self = str.__new__(cls, name)
        if len(self) > _LONGEST_ATOM:
            msg = "atom too long"
            raise ValueError(msg)
        return self

    def __repr__(self) -> str:
        """Show the type, so that an atom is not mistaken for a `str`."""
        return f"snex.Atom({str.__repr__(self)})"

    def __getnewargs__(self) -> tuple[str]:
        """Pickle and copy through the constructor."""
        return (str.__str__(self),)


class DistinctAtom(Atom):
    """An atom that equals only a `DistinctAtom` of the same name.

    With it, a map can have both `"a"` and `:a` as keys.

    Args:
        name: up to 255 characters.

    Raises:
        ValueError: `atom too long`.

    >>> DistinctAtom("ok") == "ok"
    False
    >>> len({DistinctAtom("ok"): 1, "ok": 2, Atom("yes"): 3})
    3
    >>> str(DistinctAtom("ok"))
    'ok'
    """

    __slots__ = ()
    __module__ = "snex"

    def __eq__(self, other: object) -> bool:
        """Only another `DistinctAtom` of the same name is equal."""
        return isinstance(other, DistinctAtom) and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        """`str` has a `__ne__` of its own, which would win."""
        return not self == other

    def __hash__(self) -> int:
        """Differ from the plain `str`, so that the two rarely meet in one slot of a `dict`."""
        return hash((DistinctAtom, str.__hash__(self)))

    def __repr__(self) -> str:
        """Show the type, so that an atom is not mistaken for a `str`."""
        return f"snex.DistinctAtom({str.__repr__(self)})"


_VERSION = 131
_COMPRESSED = 80
_NOUNS = {
    77: "bitstring",
    88: "pid",
    89: "port",
    90: "reference",
    102: "port",
    103: "pid",
    108: "list",
    112: "function",
    113: "function",
    114: "reference",
    120: "port",
}


class Term(bytes):
    """Any Elixir term, opaque: a pid, a reference, a function, or the result of `Snex.Serde.term/1`.

    It can be kept, hashed, compared and sent back. Its content is in Erlang's external term format, which Python
    does not interpret.

    Args:
        etf: a complete term in external term format, with the leading 131, not compressed.

    Raises:
        ValueError: for anything else.
    """

    __slots__ = ()
    __module__ = "snex"

    def __new__(cls, etf: bytes) -> Term:  # noqa: PYI034 - a subclass passes through as well
        """Check the format, because a malformed term would break the terms that contain it."""
        self = bytes.__new__(cls, etf)
        if len(self) < 2 or self[0] != _VERSION or self[1] == _COMPRESSED:  # noqa: PLR2004
            msg = "not a term in external term format"
            raise ValueError(msg)
        return self

    def __repr__(self) -> str:
        """Show the kind of term, if its first byte tells."""
        return f"<snex.Term {_NOUNS.get(self[1], 'term')} {hash(self) & 0xFFFFFFFF:08x}>"

    def __str__(self) -> str:
        """Like `repr`; the bytes are not shown."""
        return repr(self)

    def __call__(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Raise a `TypeError`, which says how to call an Elixir function."""
        msg = "'snex.Term' object is not callable"
        if _NOUNS.get(self[1]) == "function":
            msg += '; write: await snex.call("erlang", "apply", [function, [argument, ...]])'
        raise TypeError(msg)

    def __getnewargs__(self) -> tuple[bytes]:
        """Pickle and copy through the constructor."""
        return (bytes(memoryview(self)),)


# Where the text starts in terms of these kinds, and how it is encoded: atoms, and a binary.
_TEXTS = {
    100: (4, "latin-1"),
    115: (3, "latin-1"),
    118: (4, "utf-8"),
    119: (3, "utf-8"),
    109: (6, "utf-8"),
}


def text_of(term: Term) -> str | None:
    r"""Return the text of a term that holds an atom or a string, otherwise None.

    >>> text_of(Term(b"\x83w\x02ok"))
    'ok'
    """
    data = bytes(memoryview(term))
    start, encoding = _TEXTS.get(data[1], (0, ""))
    try:
        return data[start:].decode(encoding) if start else None
    except UnicodeDecodeError:
        return None


def decode_text(data: bytes) -> str:
    """Return `data` as text; the VM names this function when it knows that the data is not UTF-8.

    Raises:
        UnicodeDecodeError: with the position.
    """
    return bytes(data).decode("utf-8")
