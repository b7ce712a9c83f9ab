"""The extension encodes what the pure encoder encodes, to the same bytes, and fails as it does."""

from __future__ import annotations

import collections
import enum
import gc
import math
import struct
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snex import Atom, DistinctAtom, Term, set_custom_encoder
from snex._etf.encoder import NAME, encode, encode_pure

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(NAME == "pure", reason="the extension is not beside the sources")


class Colour(enum.IntEnum):
    RED = 1
    FAR = 2**70


class Word(str, enum.Enum):
    HELLO = "hello"


class Point(NamedTuple):
    x: int
    y: object


class Loud(list):  # type: ignore[type-arg]
    """What a subclass makes of itself has no say."""

    __repr__ = object.__repr__

    def __iter__(self) -> Any:
        raise AssertionError

    def __len__(self) -> int:
        raise AssertionError


class Real(float):
    def __float__(self) -> float:
        raise AssertionError


class Many(frozenset):  # type: ignore[type-arg]
    __repr__ = object.__repr__

    def __iter__(self) -> Any:
        raise AssertionError


class Whole(int):
    def __index__(self) -> int:
        raise AssertionError

    def to_bytes(self, *_: Any, **__: Any) -> bytes:
        raise AssertionError


hashables = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**33), 2**33)
    | st.integers(2**2030, 2**2050)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.text(max_size=20).map(Atom)
    | st.text(max_size=20).map(DistinctAtom)
    | st.sampled_from(
        [Colour.RED, Colour.FAR, Word.HELLO, Term(b"\x83h\x00"), Real(1.5), Whole(2**99)]
    ),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=8,
)
values = st.recursive(
    hashables | st.binary(max_size=20).map(bytearray) | st.binary().map(lambda b: memoryview(b)),
    lambda inner: (
        st.lists(inner, max_size=12)
        | st.lists(st.integers(-10, 300), max_size=300)
        | st.lists(inner, max_size=5).map(tuple)
        | st.lists(inner, max_size=5).map(Loud)
        | st.dictionaries(hashables, inner, max_size=6)
        | st.dictionaries(st.text(max_size=5), inner, max_size=6)
        | st.dictionaries(hashables, inner, max_size=3).map(collections.OrderedDict)
        | st.sets(hashables, max_size=6)
        | st.sets(hashables, max_size=6).map(Many)
        | st.dictionaries(hashables, inner, max_size=3).map(lambda d: d.keys())
        | st.builds(Point, st.integers(), inner)
    ),
    max_leaves=40,
)


def outcome(encoder: Callable[[object], list[bytes | memoryview]], value: object) -> object:
    try:
        return b"".join(encoder(value))
    except (TypeError, ValueError) as error:
        return type(error), str(error)


@settings(max_examples=400, deadline=None)
@given(values)
def test_same_object_same_bytes(value: object) -> None:
    assert outcome(encode, value) == outcome(encode_pure, value)


class Unknown:
    def __repr__(self) -> str:
        return "Unknown()"


def cycle() -> object:
    inner: list[object] = [1]
    value = {"a": (inner,)}
    inner.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        object,
        Unknown(),
        [1, [2, Unknown()]],
        "\ud800",
        ["a", "b\udfff" * 40_000],
        Atom("\ud800"),
        cycle(),
        {"a": 1, b"a": 2},
        {1: 1, 1.5: 2, Point(1, b"x"): 3, (1, "x"): 4},
        {"a", b"a"},
        {(("deep",) * 3): 1, (("deep",) * 2): 2},
        frozenset([frozenset([frozenset([1.5])])]),
    ],
    ids=repr,
)
def test_what_cannot_be_encoded_fails_with_the_same_words(value: object) -> None:
    assert outcome(encode, value) == outcome(encode_pure, value)


def test_large_binaries_are_not_copied() -> None:
    large = bytes(100_000)
    mutable = bytearray(200_000)
    text = "é" * 100_000
    parts = encode([large, mutable, memoryview(mutable), text, 1])
    views = [part for part in parts if isinstance(part, memoryview)]
    assert any(view.obj is large for view in views)
    assert sum(view.obj is mutable for view in views) == 2
    assert b"".join(parts) == b"".join(encode_pure([large, mutable, memoryview(mutable), text, 1]))


@pytest.mark.parametrize("size", [255, 256, 65_535, 65_536, 16_383, 16_384])
@pytest.mark.parametrize(
    "make", [lambda n: "x" * n, lambda n: "é" * n, bytes, bytearray, lambda n: [1] * n]
)
def test_sizes_around_the_bounds(size: int, make: Callable[[int], object]) -> None:
    value = make(size)
    assert b"".join(encode([value, (value,)])) == b"".join(encode_pure([value, (value,)]))


def test_deep_values_need_no_stack() -> None:
    value: object = []
    for _ in range(100_000):
        value = [value]
    assert outcome(encode, value) == outcome(encode_pure, value)


# As objects, so that dicts share them.
KEYS = [
    *("id", "name", "grüße", "", "k" * 26, "k" * 27, "k" * 28, "k" * 100, "k" * 20_000),
    *(b"id", 1, 2**70, None, True, 1.5, (1, "a"), Atom("id"), Atom("other")),
    *(DistinctAtom("id"), Word.HELLO, Colour.RED, frozenset(["a"])),
]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(KEYS[:9]), st.integers(0, 3), max_size=5)
        | st.dictionaries(st.sampled_from(KEYS), st.integers(0, 3), max_size=5),
        min_size=8,
        max_size=40,
    )
)
def test_rows_with_the_same_keys(rows: list[dict[object, int]]) -> None:
    assert outcome(encode, rows) == outcome(encode_pure, rows)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", b"a"),
        ("a", Term(b"\x83m\0\0\0\1a")),
        (True, Atom("true")),
        (False, DistinctAtom("false")),
        (None, Atom("nil")),
        (Atom("a"), DistinctAtom("a")),
        (Atom("a"), Term(b"\x83w\1a")),
        (1, Term(b"\x83a\1")),
        (math.nan, float("nan")),
        (math.inf, Atom("inf")),
        (1.5, Term(b"\x83F" + struct.pack(">d", 1.5))),
        ((1, "a"), (1, b"a")),
        (frozenset({"a"}), frozenset({b"a"})),
    ],
    ids=repr,
)
def test_keys_that_become_the_same_term_are_refused_whatever_they_were(
    one: object, other: object
) -> None:
    for first, second in (one, other), (other, one):
        for more in ([], ["x"], [2], [Atom("y")], ["x", 2, Atom("y")]):
            keys = [*more, first, second]
            assert len(set(keys)) == len(keys)
            for value in dict.fromkeys(keys), dict.fromkeys([first, *more, second]), set(keys):
                refused = outcome(encode, value)
                assert refused == outcome(encode_pure, value)
                assert isinstance(refused, tuple), value
                assert refused[0] is ValueError


def test_keys_of_many_dicts_that_are_gone_meanwhile() -> None:
    """A key that is freed may have its address taken over by another one."""
    numbers = iter(range(1_000_000))

    class Replacing(Unknown):
        def __init__(self, rows: list[Any], index: int) -> None:
            self.rows, self.index = rows, index

    def encoder(value: object) -> object:
        if not isinstance(value, Replacing):
            raise TypeError
        value.rows[value.index] = None
        key = f"key {next(numbers) % 1000:04}"
        value.rows[value.index + 2] = {key: 1}
        return key

    def rows() -> list[Any]:
        made: list[Any] = [{f"old {n:04}": 1} for n in range(20)]
        for _ in range(200):
            made += [Replacing(made, len(made) - 1), None]
        return made

    set_custom_encoder(encoder)
    encoded = b"".join(encode(rows()))
    for number in range(200):
        assert encoded.count(b"key %04d" % number) == 2


def test_a_custom_encoder_is_asked_within_and_may_change_what_is_encoded() -> None:
    shrinking = [Unknown(), *range(100)]

    def encoder(value: object) -> object:
        if isinstance(value, Unknown):
            del shrinking[50:]
            return {"unknown": [1, (2,)]}
        raise TypeError(str(value))

    set_custom_encoder(encoder)
    # The pure encoder works on a snapshot: the first call sees the list as it was or as it has become.
    assert b"".join(encode(shrinking)) == b"".join(encode_pure(shrinking))
    assert outcome(encode, [Unknown(), object]) == outcome(encode_pure, [Unknown(), object])
    again = {"a": [Unknown()] * 3, "b": {Point(1, 2): Unknown()}}
    assert b"".join(encode(again)) == b"".join(encode_pure(again))


@pytest.mark.parametrize(
    "change",
    [
        lambda some: some.pop("last", None),
        lambda some: some.setdefault("one more", 3),
        lambda some: some.update(dict.fromkeys(range(1000))),
        lambda some: some.pop("first", None),
        lambda some: some.clear(),
    ],
    ids=["shorter", "longer", "much longer", "without what has been written", "empty"],
)
def test_a_dict_that_changes_meanwhile_is_whole(change: Callable[[dict[Any, Any]], object]) -> None:
    changing: dict[Any, Any] = {"first": 1, "second": Unknown(), "last": 2}
    expected = {**changing, "second": "Unknown()"}

    def encoder(value: object) -> object:
        change(changing)
        return str(value)

    set_custom_encoder(encoder)
    # It is encoded as it was, or as it has become.
    as_it_was = b"".join(encode_pure(expected))
    change(expected)
    assert b"".join(encode(changing)) in (as_it_was, b"".join(encode_pure(expected)))


def test_nothing_is_kept_and_nothing_is_freed_too_early() -> None:
    value = {"a": [object] * 3, "b": ("x" * 10, 2**80, 1.5, {1, 2}, b"y" * 100_000)}
    good = {k: v for k, v in value.items() if k != "a"}
    before = None
    for _ in range(3):
        for _ in range(1000):
            encode(good)
            with pytest.raises(TypeError):
                encode(value)
        gc.collect()
        counts = len(gc.get_objects())
        assert before is None or counts <= before + 10
        before = counts


def test_threads_at_once_and_a_list_that_changes_meanwhile() -> None:
    shared: list[object] = [[i, str(i), float(i)] for i in range(1000)]
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            shared.append([1])
            shared.pop()
            shared[5] = {"x": 1}
            shared[5] = [5]

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            assert sum(map(len, encode(shared))) > 10_000
    finally:
        stop.set()
        thread.join()


def test_special_floats() -> None:
    for number in (math.inf, -math.inf, math.nan, -0.0, 5e-324):
        for value in number, [1, number], {"a": number, number: 1}:
            assert encode(value) == encode_pure(value)


class Slotted:
    __slots__ = ()


class Proxy:
    """Says that it is what it stands for, as proxies do."""

    def __init__(self, target: object) -> None:
        self.target = target

    @property
    def __class__(self) -> Any:
        return type(self.target)

    @__class__.setter
    def __class__(self, kind: type) -> None:
        raise AssertionError


class Chameleon:
    """As `Proxy`, by another way."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, "kind" if name == "__class__" else name)


@pytest.mark.parametrize(
    "value",
    [
        [object() for _ in range(300)],
        [Slotted(), object(), Slotted(), {"a": Slotted(), "b": (object(), [object()])}, object()],
        [Proxy(object()), Proxy(object()), Proxy(object())],
        [{i: object()} for i in range(5)],
        {(1, i): object() for i in range(5)},
        {Slotted(): 1, Slotted(): 2},
    ],
    ids=repr,
)
def test_handles_are_the_same(value: object) -> None:
    native: Any = encode(value, auto=True)
    pure: Any = encode_pure(value, auto=True)
    assert (native, type(native)) == (pure, type(pure))
    assert [id(obj) for obj in native.objects] == [id(obj) for obj in pure.objects]


@pytest.mark.parametrize("kind", [Proxy, Chameleon], ids=lambda kind: kind.__name__)
def test_a_proxy_is_what_it_is_and_is_asked_nothing(kind: Callable[[Any], object]) -> None:
    other, list_like = (object, list) if kind is Chameleon else (object(), [])
    for value in [kind(list_like)], [kind(other), kind(other), kind(list_like)]:
        for encoder in encode, encode_pure:
            parts: Any = encoder(value, auto=True)
            assert [id(obj) for obj in parts.objects] == list(map(id, value))


def test_a_custom_encoder_sees_each_object() -> None:
    seen: list[object] = []

    def encoder(value: object) -> object:
        seen.append(value)
        if len(seen) == 3:
            return "third"
        raise TypeError

    values = [Slotted() for _ in range(4)]
    set_custom_encoder(encoder)
    try:
        parts: Any = encode(values, auto=True)
    finally:
        set_custom_encoder(None)  # type: ignore[arg-type]
    assert seen == values
    assert [id(obj) for obj in parts.objects] == [id(values[i]) for i in (0, 1, 3)]
