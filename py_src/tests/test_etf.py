from __future__ import annotations

import enum
import math
import sys
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.etf import A, MapSet, decode
from support.memory import needs_tracing, tracing

import snex
from snex._etf.encoder import encode
from snex._etf.scalars import LARGE


def trip(value: object) -> Any:
    return decode(b"".join(encode(value)))


PYPY = sys.implementation.name == "pypy"


class Color(enum.IntEnum):
    RED = 1


Point = namedtuple("Point", "x y")  # noqa: PYI024 - one without annotations, as users have


@pytest.mark.parametrize(
    ("value", "term"),
    [
        (None, None),
        (True, True),
        (False, False),
        (0, 0),
        (255, 255),
        (256, 256),
        (-1, -1),
        (2**31 - 1, 2**31 - 1),
        (2**31, 2**31),
        (-(2**31), -(2**31)),
        (-(2**31) - 1, -(2**31) - 1),
        (2**2039, 2**2039),
        (-(2**2040), -(2**2040)),
        (1.5, 1.5),
        (math.inf, A("inf")),
        (-math.inf, A("-inf")),
        (math.nan, A("nan")),
        ("é", "é".encode()),
        (b"\0", b"\0"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        (memoryview(b"abcd").cast("c", (2, 2)), b"abcd"),
        (memoryview(b"").cast("c"), b""),
        ([], []),
        ((), ()),
        ({}, {}),
        (tuple(range(300)), tuple(range(300))),
        (set(), MapSet(frozenset())),
        (frozenset({1, "a"}), MapSet(frozenset({1, b"a"}))),
        (snex.Atom("a" * 255), A("a" * 255)),
        (snex.Atom("é" * 200), A("é" * 200)),
        (snex.DistinctAtom("x"), A("x")),
        (snex.Term(b"\x83h\x01a\x07"), (7,)),
        ({1: 2}.keys(), [1]),
        ({1: 2}.values(), [2]),
        ({1: 2}.items(), [(1, 2)]),
        (Color.RED, 1),
        (Point(1, 2), (1, 2)),
        (OrderedDict(a=1), {b"a": 1}),
        (defaultdict(list, a=[]), {b"a": []}),
        (type("L", (list,), {})([1]), [1]),
        (type("S", (str,), {})("s"), b"s"),
        (type("F", (float,), {})(2.5), 2.5),
        (type("B", (bytes,), {})(b"b"), b"b"),
        (type("At", (snex.Atom,), {})("at"), A("at")),
        (
            {1: "a", "1": "b", 1.5: "c", None: "d", (1,): "e"},
            {1: b"a", b"1": b"b", 1.5: b"c", None: b"d", (1,): b"e"},
        ),
        (["a", 1, None] * 10, [b"a", 1, None] * 10),
        ([1, 255, 256, -1] * 10, [1, 255, 256, -1] * 10),
        ([0] * 10, [0] * 10),
        ([2**40] * 10, [2**40] * 10),
        ([1.5] * 10, [1.5] * 10),
        ([math.inf] * 10, [A("inf")] * 10),
        ([[]] * 10, [[]] * 10),
        ([True, 1] * 10, [True, 1] * 10),
    ],
)
def test_each_row_of_the_table(value: object, term: object) -> None:
    assert trip(value) == term
    assert repr(trip(value)) == repr(term)
    # As a part of something as well.
    assert trip([value, value]) == [term, term]
    assert trip({"k": value}) == {b"k": term}


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner)
    | st.lists(inner).map(tuple)
    | st.dictionaries(st.text() | st.integers(), inner),
)


def expected(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (list, tuple)):
        return type(value)(expected(item) for item in value)
    if isinstance(value, dict):
        return {expected(k): expected(v) for k, v in value.items()}
    return value


@given(values)
def test_values_travel(value: object) -> None:
    assert repr(trip(value)) == repr(expected(value))


@pytest.mark.parametrize(
    "make", [lambda v: [v], lambda v: (v,), lambda v: {1: v}, lambda v: [0, v]]
)
def test_depth_is_limited_by_memory_only(make: Any) -> None:
    value: Any = None
    for _ in range(100_000):
        value = make(value)
    assert len(b"".join(encode(value))) > 200_000


def cyclic(depth: int) -> Any:
    bottom: list[Any] = [1]
    value: Any = bottom
    for i in range(depth):
        value = [value] if i % 2 else {"k": value}
    bottom.append(value)
    return value


@pytest.mark.parametrize("depth", [0, 1, 2, 7, 100, 1000])
def test_a_value_that_contains_itself_is_a_clear_error(depth: int) -> None:
    with pytest.raises(ValueError, match="contains itself"):
        encode([1, (2, cyclic(depth))])


def test_the_same_object_many_times_is_no_cycle() -> None:
    value: Any = []
    for _ in range(12):
        value = [value, value]
    trip(value)
    shared = [1]
    assert trip([shared] * 100) == [[1]] * 100


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, b"a": 2},
        {"a", b"a"},
        {(1, "a"): 1, (1, b"a"): 2},
        {snex.Atom("nil"): 1, None: 2},
        {snex.Atom("x"): 1, snex.DistinctAtom("x"): 2},
        {math.inf: 1, snex.Atom("inf"): 2},
        pytest.param(
            {float("nan"): 1, float("nan"): 2},
            marks=pytest.mark.skipif(PYPY, reason="there they are one key"),
        ),
        {frozenset({"a"}): 1, frozenset({b"a"}): 2},
    ],
)
def test_keys_that_become_one_are_a_clear_error(value: object) -> None:
    with pytest.raises(ValueError, match="same term"):
        encode([value])


def test_what_nobody_knows_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="Cannot serialize object of <class 'object'>"):
        encode({"a": [object()]})


def test_a_lone_surrogate_is_named_with_its_position() -> None:
    with pytest.raises(UnicodeEncodeError, match="position 2"):
        encode("ab\ud800")


def test_the_custom_encoder_is_asked_and_its_result_encoded_again() -> None:
    seen = []

    def encoder(obj: object) -> object:
        seen.append(type(obj))
        if isinstance(obj, complex):
            return {"re": obj.real, "im": obj.imag, "more": range(2)}
        if isinstance(obj, range):
            return list(obj)
        message = f"not {obj!r}"
        raise TypeError(message)

    snex.set_custom_encoder(encoder)
    assert trip([1j, 2]) == [{b"re": 0.0, b"im": 1.0, b"more": [0, 1]}, 2]
    assert seen == [complex, range]
    with pytest.raises(TypeError, match="not Ellipsis"):
        encode(...)


def test_a_custom_encoder_that_never_ends_is_ended() -> None:
    snex.set_custom_encoder(lambda obj: obj)
    with pytest.raises(ValueError, match="contains itself"):
        encode(object())
    snex.set_custom_encoder(lambda obj: [1, obj])
    with pytest.raises(ValueError, match="contains itself"):
        encode(object())
    snex.set_custom_encoder(lambda _: object())
    with pytest.raises(ValueError, match="nested deeper"):
        encode(object())


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda n: memoryview(bytes(n))])
@needs_tracing
def test_large_binaries_are_not_copied(kind: Any) -> None:
    value = kind(50 * LARGE)
    with tracing() as peak:
        parts = encode([1, value, 2])
    assert peak[0] < LARGE
    assert decode(b"".join(parts)) == [1, bytes(50 * LARGE), 2]


def test_large_views_of_other_shapes_arrive_whole() -> None:
    data = bytes(range(256)) * (LARGE // 64)
    assert trip(memoryview(data)[::2]) == data[::2]
    assert trip(memoryview(data).cast("c", (len(data) // 16, 16))) == data
    assert trip("é" * LARGE) == ("é" * LARGE).encode()


class Huge(bytes):
    def __len__(self) -> int:
        return 2**32


def test_more_than_the_format_holds_is_a_clear_error() -> None:
    from snex._etf.scalars import _bytes

    with pytest.raises(ValueError, match="4294967296"):
        _bytes(Huge())
