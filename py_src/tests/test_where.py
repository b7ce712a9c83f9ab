"""Messages about values say where in them, and what helps. The same from both encoders."""

from __future__ import annotations

import asyncio
import pickle
from collections import OrderedDict, namedtuple
from typing import TYPE_CHECKING, Any

import pytest

import snex
from snex import Atom, Term, set_custom_encoder
from snex._elixir import calls
from snex._etf.encoder import Settings, encode, encode_pure
from snex._etf.terms import decode_text
from snex._pypy import PYPY
from snex._wire.body import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Point = namedtuple("Point", ["x", "y"])  # noqa: PYI024 - as users have them
HELP = (
    "; convert it, see snex.register_encoder, or let it stay in Python (returns: :auto, snex.keep)"
)
OBJECT = f"Cannot serialize object of <class 'object'>{HELP}"


@pytest.fixture(params=[encode, encode_pure], ids=["encode", "pure"])
def encoder(request: pytest.FixtureRequest) -> Callable[[object], object]:
    result: Callable[[object], object] = request.param
    return result


@pytest.fixture(autouse=True)
def _no_custom_encoder() -> Iterator[None]:
    yield
    Settings.custom_encoder = None


def message(encoder: Callable[[object], object], value: object) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        encoder(value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda bad: bad, ""),
        (lambda bad: [bad], "[0]: "),
        (lambda bad: {"rows": [1, {"price": bad}]}, "['rows'][1]['price']: "),
        (lambda bad: {Atom("a"): {1: (0, bad)}}, "['a'][1][1]: "),
        (lambda bad: Point(1, {"k": bad}), "y['k']: "),
        (lambda bad: [Point(1, bad)], "[0].y: "),
        (lambda bad: OrderedDict(a=[bad]), "['a'][0]: "),
        (lambda bad: {"a": [1], "b": {"c": [bad]}.values()}, "['b']"),
        (lambda bad: {"a": {bad: 1}}, "['a']: the key <object object at 0x"),
        (lambda bad: [{bad}], "[0]: the member <object object at 0x"),
        (lambda bad: {"a": {(1, bad): 1}}, "['a']: the key (1, <object object"),
        (lambda bad: {"k" * 100: bad}, "['" + "k" * 56 + "...]: "),
    ],
)
def test_the_place_is_the_code_that_leads_there(
    encoder: Callable[[object], object], wrap: Callable[[object], object], place: str
) -> None:
    text = message(encoder, wrap(object()))
    assert text.startswith(place)
    assert text.endswith(OBJECT)
    if ": " not in place:
        return
    assert place.startswith(("['a']: the", "[0]: the")) or text == place + OBJECT


def test_a_long_way_is_shortened(encoder: Callable[[object], object]) -> None:
    value: object = object()
    for _ in range(1000):
        value = [value]
    assert message(encoder, value) == "[0]" * 10 + "..." + "[0]" * 10 + ": " + OBJECT


def test_a_value_that_contains_itself_is_named_where_it_begins(
    encoder: Callable[[object], object],
) -> None:
    inner: list[Any] = [1]
    inner.append({"again": inner})
    place = "['a'][0][1]['again']"
    text = message(encoder, {"a": [inner]})
    assert text == f"{place}: Cannot serialize a list that contains itself"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (["\ud800"], "[0]"),
        ({"x": ["a"] * 9 + ["\ud800"]}, "['x'][9]"),
        ({"x": {"\ud800": 1}}, "['x'] (the key '\\ud800')"),
    ],
)
def test_text_that_is_none_is_named(
    encoder: Callable[[object], object], value: object, place: str
) -> None:
    text = message(encoder, value)
    assert text == (
        "'utf-8' codec can't encode character '\\ud800' in position 0: "
        f"surrogates not allowed, in {place}"
    )


def test_keys_that_become_the_same_term_are_named(encoder: Callable[[object], object]) -> None:
    text = message(encoder, {"rows": [{"a": 1, b"a": 2}]})
    assert (
        text == "['rows'][0]: two keys of a dict become the same term in Elixir: b'a' and another"
    )


def test_what_a_custom_encoder_refuses_is_named(encoder: Callable[[object], object]) -> None:
    seen = []

    def custom(obj: object) -> object:
        seen.append(obj)
        if isinstance(obj, complex):
            return {"parts": [obj.real, set_custom_encoder]}
        msg = f"Cannot serialize object of {type(obj)}"
        raise TypeError(msg)

    set_custom_encoder(custom)
    bad = object()
    assert message(encoder, {"a": [bad]}) == "['a'][0]: Cannot serialize object of <class 'object'>"
    # Asked once.
    assert seen == [bad]
    text = message(encoder, {"a": [1j]})
    assert text == "['a'][0]['parts'][1]: Cannot serialize object of <class 'function'>"


def test_other_exceptions_of_a_custom_encoder_stay_as_they_are(
    encoder: Callable[[object], object],
) -> None:
    class OddError(Exception):
        pass

    error = OddError("one", 2)

    def custom(_obj: object) -> object:
        raise error

    set_custom_encoder(custom)
    with pytest.raises(OddError) as caught:
        encoder([object()])
    assert caught.value is error
    assert error.args == ("one", 2)


def test_a_coroutine_asks_whether_await_was_forgotten(encoder: Callable[[object], object]) -> None:
    async def fetch() -> None:
        pass

    coroutine = fetch()
    line = fetch.__code__.co_firstlineno
    text = message(encoder, {"page": coroutine})
    assert text == (
        "['page']: Cannot serialize object of <class 'coroutine'>: was `await` forgotten? "
        f"(fetch, {__file__}, line {line})"
    )
    coroutine.close()
    # Where functions of the package are helps nobody. Of their calls it is known, except in PyPy.
    function = snex.Function(b"\x83qw\x0bElixir.Enumw\x03suma\x01")
    for call, path, name in (
        (lambda: function([]), repr(function), repr(function)),
        (lambda: snex.call("m", "f", []), "m.f", "snex.call"),
        (lambda: snex.cast("m", "f", []), "m.f", "snex.cast"),
        (lambda: snex.send("m", 1), "snex.send", "snex.send"),
        (lambda: snex.Elixir.Enum.sum([]), "Elixir.Enum.sum", "snex.call"),
    ):
        coroutine = call()
        text = message(encoder, coroutine)
        coroutine.close()
        line = call.__code__.co_firstlineno
        named = name if PYPY else f"{path}, {__file__}, line {line}"
        assert text.endswith(f": was `await` forgotten? ({named})")
    loop = asyncio.new_event_loop()
    text = message(encoder, loop.create_future())
    loop.close()
    assert text.endswith("Future'>: was `await` forgotten?")


def test_iterators_ask_for_a_list(encoder: Callable[[object], object]) -> None:
    async def pages() -> Any:
        yield 1

    items = iter([1])
    # Each Python has a name of its own for it.
    text = message(encoder, items)
    assert text == f"Cannot serialize object of {type(items)}; make a list of it"
    assert message(encoder, [(n for n in (1,))]).startswith(
        "[0]: Cannot serialize object of <class 'generator'>"
    )
    text = message(encoder, pages())
    assert text.endswith("; make a list of it: [item async for item in it]")


def test_arguments_of_calls_are_named(encoder: Callable[[object], object]) -> None:
    request = calls._request("Elixir.Enum", "map", [1, {"x": object()}], None, None)
    assert message(encoder, request) == "args[1]['x']: " + OBJECT
    assert message(encoder, calls._Message((1, [object()]))) == "data[0]: " + OBJECT
    plain = (None, Atom("Elixir.Enum"), Atom("map"), [1], None)
    request = calls._request("Elixir.Enum", "map", [1], None, None)
    assert encode(request) == encode_pure(plain) == encode_pure(request)


def test_a_function_of_elixir_says_how_it_is_called() -> None:
    function = Term(b"\x83p\0\0\0\0")
    with pytest.raises(TypeError) as caught:
        function(1, key=2)
    assert str(caught.value) == (
        "'snex.Term' object is not callable; "
        'write: await snex.call("erlang", "apply", [function, [argument, ...]])'
    )
    with pytest.raises(TypeError, match="^'snex.Term' object is not callable$"):
        Term(b"\x83j")()


class _Bytes:
    """Pickles as the VM writes bytes that are not text."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Callable[[bytes], str], tuple[bytes]]:
        return decode_text, (self.data,)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ((None, "code", None, 1, {"a": "b", "x": _Bytes(b"\xff")}, False), "the variable x"),
        (
            (
                None,
                "code",
                None,
                1,
                {"x": [1, {"k": (2, _Bytes(b"a\xffb"))}], "y": _Bytes(b"\xfe")},
            ),
            "the variable x[1]['k'][1]",
        ),
        ([_Bytes(b"ok"), _Bytes(b"\xff")], "[1]"),
        (_Bytes(b"\xff"), "the value"),
    ],
)
def test_bytes_that_are_not_text_are_named(value: object, place: str) -> None:
    with pytest.raises(UnicodeDecodeError) as caught:
        load(pickle.dumps(value), ())
    assert str(caught.value).endswith(
        f", in {place}; pass bytes as Snex.Serde.binary(value, :bytes)"
    )


made: list[int] = []


def _make(number: int) -> int:
    made.append(number)
    return number


class _Made:
    """Pickles as an object that its constructor makes."""

    def __reduce__(self) -> tuple[Callable[[int], int], tuple[int]]:
        return _make, (1,)


def test_constructors_do_not_run_again_for_the_message() -> None:
    made.clear()
    with pytest.raises(UnicodeDecodeError, match=r"in \[1\]\['x'\];"):
        load(pickle.dumps([_Made(), {"x": _Bytes(b"\xff")}]), ())
    assert made == [1]
