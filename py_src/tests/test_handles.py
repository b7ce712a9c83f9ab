"""Handles in terms: both encoders put the same ones in the same places, and a value that fails has none."""

from __future__ import annotations

import collections
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.etf import Bits, decode

import snex
from snex import Atom, Term, set_custom_encoder
from snex._etf.encoder import encode, encode_pure
from snex._etf.handles import Handle, WithHandles, type_name

if TYPE_CHECKING:
    from collections.abc import Callable

# Of the strategies below, which nobody reads.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


class Unknown:
    pass


class Slotted:
    __slots__ = ()


class Liar:
    """Says that it is a list, and answers nothing else."""

    @property
    def __class__(self) -> Any:
        return list

    @__class__.setter
    def __class__(self, kind: type) -> None:
        raise AssertionError

    def __eq__(self, other: object) -> bool:
        raise AssertionError

    def __hash__(self) -> int:
        return 7

    __len__ = __iter__ = __bool__ = __eq__


# New ones, and the same ones again.
_SAME = [Unknown(), Slotted(), Unknown, len, 1j, snex.keep(1), snex.keep(None), snex.keep([])]
leaves = (
    st.sampled_from(_SAME)
    | st.builds(Unknown)
    | st.builds(Slotted)
    | st.builds(lambda: snex.keep(Unknown()))
    | st.integers().map(snex.keep)
)
hashables = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.text(max_size=5).map(Atom)
    | st.sampled_from(["a", b"a", Atom("a"), Term(b"\x83h\x00")])
    | leaves
)
_keys = st.recursive(
    hashables,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
)
# Deferred, for their descriptions would be long.
keys = st.deferred(lambda: _keys)
_values = st.recursive(
    hashables | st.binary(max_size=5).map(bytearray) | st.builds(Liar),
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.lists(inner, max_size=4).map(tuple)
        | st.lists(st.builds(Unknown), max_size=40)
        | st.dictionaries(keys, inner, max_size=5)
        | st.dictionaries(keys, inner, max_size=3).map(collections.OrderedDict)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.sets(keys, max_size=4)
        | st.dictionaries(keys, inner, max_size=3).map(lambda d: d.values())
        # What cannot be encoded at all.
        | inner.map(lambda value: [value, "\ud800"])
    ),
    max_leaves=40,
)


values = st.deferred(lambda: _values)


def outcome(encoder: Callable[..., Any], value: object, *, auto: bool) -> object:
    try:
        parts = encoder(value, auto=auto)
    except (TypeError, ValueError):
        # Of several things that are wrong in a value, either may be found first.
        return None
    objects = parts.objects if type(parts) is WithHandles else []
    return b"".join(parts), [id(obj) for obj in objects]


@settings(max_examples=500, deadline=None)
@given(values)
def test_same_value_same_bytes_and_same_objects(value: object) -> None:
    for auto in True, False:
        assert outcome(encode, value, auto=auto) == outcome(encode_pure, value, auto=auto)


@settings(max_examples=200, deadline=None)
@given(values)
def test_same_value_same_objects_with_a_custom_encoder(value: object) -> None:
    def encoder(obj: object) -> object:
        if type(obj) is Unknown:
            return [1, Slotted(), snex.keep(obj)]
        if obj is len:
            return obj
        raise TypeError("refused")

    set_custom_encoder(encoder)
    results: list[Any] = []
    for encode_it in encode, encode_pure:
        try:
            parts: Any = encode_it(value, auto=True)
        except (TypeError, ValueError):
            results.append(None)
        else:
            objects = getattr(parts, "objects", [])
            results.append((b"".join(parts), [type(obj) for obj in objects]))
    assert results[0] == results[1]


@pytest.fixture(params=[encode, encode_pure], ids=["native", "pure"])
def encoder(request: pytest.FixtureRequest) -> Any:
    """Return each of the encoders."""
    return request.param


def handles(parts: Any) -> tuple[Any, list[object]]:
    assert type(parts) is WithHandles
    return decode(b"".join(parts)), parts.objects


def place(index: int, kind: bytes) -> tuple[Bits, int, bytes]:
    return (Bits(b"snex.Object\x80", 1), index, kind)


def test_they_stand_where_their_objects_were(encoder: Any) -> None:
    one, two = Unknown(), slice(1)
    term, objects = handles(encoder([one, (two, {"a": one}), snex.keep("x")], auto=True))
    kind = type_name(one).encode()
    assert term == [
        place(0, kind),
        (place(1, b"slice"), {b"a": place(2, kind)}),
        place(3, b"str"),
    ]
    assert [id(obj) for obj in objects[:3]] == [id(one), id(two), id(one)]
    assert objects[3] == "x"


def test_they_may_be_keys_and_members(encoder: Any) -> None:
    one, two, three = Unknown(), Unknown(), Unknown()
    parts = encoder({one: 1, (two, 1): three}, auto=True)
    assert [id(obj) for obj in parts.objects] == [id(one), id(two), id(three)]
    parts = encoder([{one}, frozenset([two])], auto=True)
    assert [id(obj) for obj in parts.objects] == [id(one), id(two)]
    # The same object twice is two keys in Elixir, should it come to that.
    parts = encoder([{one: 1}, {one: 1}], auto=True)
    assert len(parts.objects) == 2


def test_without_auto_only_what_is_kept_has_one(encoder: Any) -> None:
    term, objects = handles(encoder([snex.keep([1]), 2]))
    assert term == [place(0, b"list"), 2]
    assert objects == [[1]]
    with pytest.raises(TypeError, match="Cannot serialize object of <class '.*Unknown'>"):
        encoder([snex.keep(1), Unknown()])
    assert type(encoder([1, 2])) is list
    assert type(encoder([1, 2], auto=True)) is list


def test_a_value_that_fails_hands_out_nothing(
    encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snex._eval.objects import Objects, body_of

    table = Objects()
    monkeypatch.setattr("snex._eval.objects.table", table)
    cycle: list[object] = [Unknown()]
    cycle.append(cycle)
    for value in [
        [Unknown(), "\ud800"],
        [Unknown()] * 1000 + [{"a": 1, b"a": 2}],
        {Unknown(): 1, "\udc80": Unknown()},
        cycle,
        [snex.keep(1), cycle],
    ]:
        with pytest.raises(ValueError, match="surrogates|same term|contains itself"):
            body_of(encoder(value, auto=True))
    assert len(table) == 0
    body_of(encoder([Unknown(), Unknown()], auto=True))
    assert len(table) == 2


def test_thousands_of_them(encoder: Any) -> None:
    things = [Unknown() for _ in range(70_000)]
    term, objects = handles(encoder(things, auto=True))
    assert len(term) == 70_000
    assert term[300][1] == 300
    assert term[-1][1] == 69_999
    assert all(one is other for one, other in zip(objects, things, strict=True))


def test_the_name_of_a_type_is_text_whatever_it_is(encoder: Any) -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            raise AssertionError(name)

    class Odd(metaclass=Meta):
        pass

    for name, module, expected in [
        ("x" * 1000, "builtins", "x" * 255),
        ("ö", "__main__", "ö"),
        ("\ud800", "m", "m.?"),
        ("Name", 7, "Name"),
        ("Name", "m" * 300, "m" * 255 + ".Name"),
    ]:
        kind = type("Name", (), {"__module__": module})
        kind.__qualname__ = name
        (term,), _ = handles(encoder([kind()], auto=True))
        assert term[2] == expected.encode()
    if sys.implementation.name == "pypy":
        # There, the abstract classes of `collections` are written in Python, and ask each class themselves.
        return
    (term,), objects = handles(encoder([Odd()], auto=True))
    assert term[2].endswith(b"Odd")
    assert type(objects[0]) is Odd


def test_keeping_something_asks_nothing_of_it() -> None:
    liar = Liar()
    handle = snex.keep(liar)
    assert type(handle) is Handle
    assert handle.object is liar
    assert repr(handle) == f"<snex.Handle of {type_name(liar)}>"


def test_values_without_leaves_are_the_same_with_auto(encoder: Any) -> None:
    value = {"a": [1, 2.5, None, (True, b"x", Atom("y"))], "b": {1, 2}, "c": {}}
    assert encoder(value, auto=True) == encoder(value)
