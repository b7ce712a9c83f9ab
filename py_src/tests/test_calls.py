"""Promises about calls from Python to Elixir."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from support.etf import A, decode
from support.vm import CALL, CALL_ERROR, CALL_RESULT, CANCEL, CAST, SEND, VM, PythonError

import snex
from snex._elixir.options import wire_opts


def answer(vm: VM, call: int, value: Any) -> None:
    vm.send(CALL_RESULT, call, pickle.dumps(value))


def test_a_call_names_module_function_and_arguments(vm: VM) -> None:
    request = vm.eval("return await Elixir.Enum.frequencies(['a', 'b'])")
    call, body = vm.expect(CALL)
    assert decode(body) == (None, A("Elixir.Enum"), A("frequencies"), [[b"a", b"b"]], None)
    answer(vm, call, {"a": 1, "b": 1})
    assert vm.reply(request) == {b"a": 1, b"b": 1}


@pytest.mark.parametrize(
    "call",
    [
        "snex.call('erlang', snex.Atom('node'), (), node='a@b', result_encoding_opts=o)",
        "snex.BeamModuleProxy('erlang').node(node=snex.DistinctAtom('a@b'), result_encoding_opts=o)",
        "asyncio.to_thread(snex.call_sync, 'erlang', 'node', [], node='a@b', result_encoding_opts=o)",
    ],
)
def test_node_and_options_go_along(vm: VM, call: str) -> None:
    request = vm.eval(
        "import asyncio\n"
        "o = {'binary_as': 'bytes', 'atom_as': snex.EncodingOpt.AtomAs.DISTINCT_ATOM}\n"
        f"return await {call}"
    )
    number, body = vm.expect(CALL)
    opts = {A("binary_as"): A("bytes"), A("atom_as"): A("distinct_atom")}
    assert decode(body) == (A("a@b"), A("erlang"), A("node"), [], opts)
    answer(vm, number, None)
    assert vm.reply(request) is None


def test_a_cast_has_no_answer(vm: VM) -> None:
    assert vm.run("return await Elixir.IO.puts('x', cast=True)") is None
    assert vm.run("return await snex.cast('Elixir.IO', 'puts', ['y'], node='n')") is None
    assert [decode(vm.expect(CAST)[1])[3] for _ in range(2)] == [[b"x"], [b"y"]]


@pytest.mark.parametrize("how", ["snex.send(d, 1)", "asyncio.to_thread(snex.send_sync, d, 1)"])
def test_send_returns_when_the_message_has_been_sent(vm: VM, how: str) -> None:
    request = vm.eval(f"import asyncio\nd = (snex.Atom('name'), snex.Atom('node'))\nawait {how}")
    call, body = vm.expect(SEND)
    assert decode(body) == ((A("name"), A("node")), 1)
    answer(vm, call, None)
    assert vm.reply(request) is None


def test_an_error_of_elixir_is_raised_with_its_parts(vm: VM) -> None:
    request = vm.eval(
        "try:\n"
        "    await Elixir.Foo.Bar.baz()\n"
        "except snex.ElixirError as e:\n"
        "    return e.kind, e.reason, str(e), e.message, e.stacktrace"
    )
    call, body = vm.expect(CALL)
    assert decode(body)[1] == A("Elixir.Foo.Bar")
    fields = {
        "kind": "exit",
        "reason": snex.Term(b"\x83w\x04oops"),
        "message": "** (exit) :oops",
        "stacktrace": ["one", "two"],
    }
    vm.send(CALL_ERROR, call, pickle.dumps(fields))
    message = b"** (exit) :oops"
    assert vm.reply(request) == (b"exit", A("oops"), message, message, [b"one", b"two"])


def test_a_call_error_that_does_not_decode_still_lets_the_caller_go(vm: VM) -> None:
    request = vm.eval("await Elixir.A.b()")
    vm.send(CALL_ERROR, vm.expect(CALL)[0], b"junk")
    with pytest.raises(PythonError):
        vm.reply(request)


def test_a_result_that_does_not_decode_is_the_callers_error(vm: VM) -> None:
    request = vm.eval("await Elixir.A.b()")
    vm.send(CALL_RESULT, vm.expect(CALL)[0], b"junk")
    with pytest.raises(PythonError):
        vm.reply(request)


def test_answers_find_their_callers_in_any_order(vm: VM) -> None:
    request = vm.eval(
        "import asyncio\nreturn await asyncio.gather(*(Elixir.A.b(i) for i in range(20)))"
    )
    calls = []
    for _ in range(20):
        number, body = vm.expect(CALL)
        calls.append((number, decode(body)[3][0]))
    for number, argument in reversed(calls):
        answer(vm, number, argument * 2)
    assert vm.reply(request) == [i * 2 for i in range(20)]


def test_threads_and_their_own_loops_may_call(vm: VM) -> None:
    request = vm.eval(
        "import asyncio\n"
        "def own_loop(i): return asyncio.run(snex.call('m', 'f', [i]))\n"
        "def no_loop(i): return snex.call_sync('m', 'f', [i])\n"
        "return await asyncio.gather(*(asyncio.to_thread(f, i)"
        " for i in range(3) for f in (own_loop, no_loop)))"
    )
    for _ in range(6):
        number, body = vm.expect(CALL)
        answer(vm, number, decode(body)[3][0])
    assert vm.reply(request) == [0, 0, 1, 1, 2, 2]


def test_cancelling_the_waiting_task_forgets_the_call(vm: VM) -> None:
    vm.run("import asyncio\ndone = asyncio.Event()")
    request = vm.eval("try:\n    await Elixir.A.b()\nfinally:\n    done.set()")
    call, _ = vm.expect(CALL)
    vm.send(CANCEL, request)
    vm.run("await done.wait()")
    # Loading this one would end the process.
    vm.send(CALL_RESULT, call, b"cos\n_exit\n(I1\ntR.")
    assert vm.run("return 1") == 1


def test_arguments_that_can_not_be_encoded_are_the_callers_error(vm: VM) -> None:
    with pytest.raises(PythonError, match="Cannot serialize"):
        vm.run("await Elixir.A.b(object())")
    with pytest.raises(PythonError, match="list of arguments"):
        vm.run("await snex.call('m', 'f', 'abc')")
    with pytest.raises(PythonError, match="binary_az"):
        vm.run("await snex.call('m', 'f', [], result_encoding_opts={'binary_az': 'str'})")


def test_threads_that_wait_are_let_go_when_the_vm_is_gone(vm: VM) -> None:
    vm.run(
        "import sys, threading\n"
        "def wait():\n"
        "    try: snex.call_sync('m', 'f', [])\n"
        "    except RuntimeError as e: print(e, file=sys.stderr)\n"
        "threading.Thread(target=wait).start()"
    )
    vm.expect(CALL)
    vm.hang_up()
    assert vm.wait() == 0
    assert "closed" in vm.errors()


def test_a_flood_of_casts_waits_for_the_vm_and_loses_nothing() -> None:
    with VM(hello={"buffer_limits": (1 << 16, 1 << 17)}) as vm:
        vm.ready()
        vm.run("big = bytes(20_000)\nimport asyncio, threading")
        request = vm.eval(
            "async def one(i):\n"
            "    for j in range(20): await snex.cast('m', 'f', [i, j, big])\n"
            "def other(i): asyncio.run(one(i))\n"
            "await asyncio.gather(*(one(i) for i in range(5)),"
            " *(asyncio.to_thread(other, i) for i in range(5, 8)))"
        )
        seen: dict[int, list[int]] = {i: [] for i in range(8)}
        for _ in range(160):
            i, j, big = decode(vm.expect(CAST)[1])[3]
            assert big == bytes(20_000)
            seen[i].append(j)
        assert vm.reply(request) is None
    assert all(order == list(range(20)) for order in seen.values())


def test_outside_of_an_interpreter_calls_say_so() -> None:
    for request in (snex.send(1, 2), snex.call("m", "f", []), snex.cast("m", "f", [])):
        with pytest.raises(RuntimeError, match="not inside a Snex interpreter"):
            request.send(None)
    with pytest.raises(RuntimeError, match="not inside"):
        snex.call_sync("m", "f", [])


def test_a_name_is_text_an_atom_or_a_term() -> None:
    request = snex.call(5, "f", [])  # type: ignore[arg-type]
    with pytest.raises(
        TypeError,
        match=r"expected a name as a str, snex\.Atom, or snex\.Term of an atom or a string, got 5",
    ):
        request.send(None)


def test_options_are_checked_by_name_and_value() -> None:
    assert wire_opts({"set_as": snex.EncodingOpt.SetAs.FROZENSET}) == {"set_as": "frozenset"}
    with pytest.raises(ValueError, match="'frozenset'"):
        wire_opts({"set_as": "list"})


def test_a_proxy_is_no_more_than_a_name() -> None:
    proxy = snex.Elixir.Foo.bar
    assert repr(proxy) == "snex.BeamModuleProxy('Elixir.Foo.bar')"
    assert copy.deepcopy(proxy) == proxy
    assert pickle.loads(pickle.dumps(proxy)) == proxy
    assert not hasattr(proxy, "__array__")
    with pytest.raises(TypeError, match="module"):
        _ = snex.BeamModuleProxy("erlang")()
    with pytest.raises(TypeError, match="cast"):
        _ = snex.Elixir.A.b(cast=True, result_encoding_opts={})


def test_an_elixir_error_can_be_pickled() -> None:
    error = snex.ElixirError("error", snex.Term(b"\x83a\x01"), "text", ["line"])
    again = pickle.loads(pickle.dumps(error))
    assert (again.kind, again.reason, str(again), again.stacktrace) == (
        "error",
        error.reason,
        "text",
        ["line"],
    )
