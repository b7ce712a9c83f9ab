"""Elixir functions, as Python sees them."""

from __future__ import annotations

import copy
import inspect
import pickle
import struct
from typing import Any

import pytest
from support.etf import decode
from support.vm import APPLY, VM

import snex
from snex._etf.functions import about

EXPORT = b"\x83qw\x0dElixir.Stringw\x06upcasea\x01"
CLOSURE = b"\x83p" + struct.pack(">IB16xII", 40, 2, 0, 0) + b"w\x05lists"


@pytest.mark.parametrize(
    ("etf", "text", "arity"),
    [
        (EXPORT, "&String.upcase/1", 1),
        (b"\x83qw\x05listsw\x03suma\x01", "&:lists.sum/1", 1),
        (CLOSURE, "fn/2 of :lists", 2),
        (EXPORT[:20], "of unknown form", -1),
        (b"\x83p", "of unknown form", -1),
        (b"\x83qw\x02\xff\xfew\x03suma\x01", "of unknown form", -1),
    ],
)
def test_the_bytes_of_a_function_tell_what_it_is(etf: bytes, text: str, arity: int) -> None:
    function = snex.Function(etf)
    assert repr(function) == f"<snex.Function {text}>"
    assert repr(snex.Callback(etf)) == f"<snex.Callback {text}>"
    assert about(function).arity == arity


def test_another_term_is_no_function() -> None:
    with pytest.raises(ValueError, match="not a function"):
        snex.Function(b"\x83a\x01")


@pytest.mark.parametrize("kind", [snex.Function, snex.Callback])
def test_a_copy_is_the_same_function_with_its_signature(kind: Any) -> None:
    function = kind(EXPORT, b"signature")
    again = pickle.loads(pickle.dumps(function))
    assert again == function
    assert hash(again) == hash(function)
    assert again != kind(CLOSURE)
    assert getattr(again, "function", again).__getnewargs__() == (EXPORT, b"signature")


def test_a_callback_looks_like_a_function_of_python() -> None:
    callback = snex.Callback(EXPORT)
    assert callback.__name__ == "upcase"
    assert callback.__doc__ == "Calls the Elixir function &String.upcase/1."
    assert str(inspect.signature(callback)) == "(arg1, /)"
    with pytest.raises(AttributeError, match="'Callback' object has no attribute 'missing'"):
        _ = callback.missing
    assert not hasattr(snex.Callback(b"\x83p"), "__signature__")


@pytest.mark.parametrize("function", [snex.call, snex.cast, snex.send])
def test_functions_that_call_elixir_look_like_coroutine_functions(function: Any) -> None:
    assert inspect.iscoroutinefunction(function)
    assert next(iter(inspect.signature(function).parameters)) in {"module", "to"}
    assert function.__name__ in {"call", "cast", "send"}
    assert pickle.loads(pickle.dumps(function)) is function
    assert copy.deepcopy(function) is function
    assert inspect.getdoc(function) == inspect.cleandoc(function.func.__doc__)


def test_so_does_the_method_that_calls_an_elixir_function() -> None:
    function = snex.Function(EXPORT)
    assert inspect.iscoroutinefunction(function.__call__)
    assert (
        str(inspect.signature(function.__call__, eval_str=False)).split(" ->")[0]
        == "(*args: 'object', result_encoding_opts: 'EncodingOpts | None' = None)"
    )


@pytest.mark.parametrize("call", ["await f({})", "f.call_sync({})", "snex.Callback(f)({})"])
def test_a_call_with_the_wrong_number_of_arguments_is_not_sent(vm: VM, call: str) -> None:
    code = f"import snex\ntry: {call.format('1, 2')}\nexcept TypeError as error: return str(error)"
    expected = b"upcase() takes 1 positional argument but 2 were given"
    assert vm.run(code, variables={"f": snex.Function(EXPORT)}) == expected


def test_a_callback_takes_no_arguments_by_name() -> None:
    with pytest.raises(TypeError, match=r"upcase\(\) is an Elixir function .* got 'text'"):
        snex.Callback(EXPORT)(text="a")


def test_an_awaited_function_is_called(vm: VM) -> None:
    request = vm.eval("return await f('a')", variables={"f": snex.Function(EXPORT, b"sign")})
    call, body = vm.expect(APPLY)
    assert decode(body)[:3] == (b"sign", EXPORT, [b"a"])
    vm.answer(call, "A")
    assert vm.reply(request) == b"A"
