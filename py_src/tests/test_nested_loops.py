"""Promises about patches that let synchronous code run the event loop it is called from."""

from __future__ import annotations

import os
import pickle
import sys

import pytest
from support.vm import CALL, CALL_RESULT, CANCEL, CANCELLED, EVAL, MAKE_ENV, VM, frame

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14),
    reason="nest_asyncio 1.6 does not fit Python 3.14: `asyncio.wait_for` fails in a plain script, too",
)

PATCH = """
import asyncio, nest_asyncio
nest_asyncio.apply()
async def ask(*args): return await snex.call("a", "b", args)
"""


@pytest.fixture
def patched(vm: VM) -> VM:
    vm.run(PATCH)
    return vm


def calls(vm: VM, count: int) -> list[int]:
    return [vm.expect(CALL)[0] for _ in range(count)]


def give(vm: VM, call: int, value: object) -> None:
    vm.send(CALL_RESULT, call, pickle.dumps(value))


def test_the_patch_and_its_use_in_one_call(vm: VM) -> None:
    request = vm.eval(PATCH + "return asyncio.run(ask())")
    (call,) = calls(vm, 1)
    give(vm, call, "answer")
    assert vm.reply(request) == b"answer"


@pytest.mark.parametrize("eager", [True, False])
def test_the_patch_comes_with_requests_that_it_will_run_in_turn(*, eager: bool) -> None:
    codes = [
        PATCH + "return asyncio.run(ask())",
        "return 2",
        "import asyncio\nreturn 3",
        "return 4",
    ]
    bodies = [pickle.dumps((0, code, None, 1, {})) for code in codes]
    with VM(hello={"eager": eager}) as vm:
        vm.ready()
        os.write(vm.out_fd, b"".join(frame(EVAL, 1001 + n, body) for n, body in enumerate(bodies)))
        assert [vm.reply(1002), vm.reply(1003), vm.reply(1004)] == [2, 3, 4]
        (call,) = calls(vm, 1)
        give(vm, call, 1)
        assert vm.reply(1001) == 1
        assert vm.run("return 5") == 5
        vm.finish()
        assert vm.errors() == ""


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(
    "code",
    [
        "return asyncio.run(ask())",
        "return asyncio.get_event_loop().run_until_complete(ask())",
        "await asyncio.sleep(0)\nreturn asyncio.run(ask())",
        "async def main(): return asyncio.run(ask())\nreturn asyncio.run(main())",
        "def f(): return asyncio.run(ask())\nreturn asyncio.run(asyncio.wait_for(ask(), 60))",
        "async def main(): return sum(await asyncio.gather(*[ask() for _ in range(1)]))\n"
        "return asyncio.run(main())",
    ],
)
def test_synchronous_code_waits_for_elixir_and_others_are_served(*, eager: bool, code: str) -> None:
    with VM(hello={"eager": eager}) as vm:
        vm.ready()
        vm.run(PATCH)
        request = vm.eval(code)
        (call,) = calls(vm, 1)
        assert vm.run("return 1") == 1
        assert vm.run("import asyncio\nawait asyncio.sleep(0.001)\nreturn 2") == 2
        assert vm.make_env(1, [], {"x": 3}) is None
        assert vm.run("return x", 1) == 3
        give(vm, call, 42)
        assert vm.reply(request) == 42
        vm.finish()
        assert vm.errors() == ""


def test_the_request_and_its_answer_may_come_in_one_read(patched: VM) -> None:
    body = pickle.dumps((0, "return asyncio.run(ask())", None, 1, {}))
    other = pickle.dumps(
        (0, "import asyncio\nasyncio.run(asyncio.sleep(0))\nreturn 5", None, 1, {})
    )
    make = pickle.dumps((1, [], {}))
    frames = [frame(EVAL, 1001, body), frame(MAKE_ENV, 1002, make), frame(EVAL, 1003, other)]
    # The number of the call is known: it is the first.
    frames += [frame(CALL_RESULT, 1, pickle.dumps(7)), frame(EVAL, 1004, other)]
    os.write(patched.out_fd, b"".join(frames))
    (call,) = calls(patched, 1)
    assert [patched.reply(1002), patched.reply(1003), patched.reply(1004)] == [None, 5, 5]
    give(patched, call, 7)
    assert patched.reply(1001) == 7


def test_calls_nest_in_each_other_and_the_last_ends_first(patched: VM) -> None:
    requests = {}
    for number in range(10):
        request = patched.eval("return asyncio.run(ask())")
        requests[request] = (number, *calls(patched, 1))
    for number, call in requests.values():
        give(patched, call, number)
    assert [patched.reply(request) for request in requests] == list(range(10))


def test_what_is_printed_belongs_to_the_call_that_printed_it(patched: VM) -> None:
    first = patched.eval("print('first')\nasyncio.run(ask())\nprint('first again')")
    (call,) = calls(patched, 1)
    second = patched.eval("print('second')")
    patched.reply(second)
    give(patched, call, None)
    patched.reply(first)
    assert patched.printed(first) == b"first\nfirst again\n"
    assert patched.printed(second) == b"second\n"


@pytest.mark.interrupts
@pytest.mark.parametrize("before", ["", "await asyncio.sleep(0)\n"], ids=["plain", "task"])
def test_a_nested_call_is_cancelled(patched: VM, before: str) -> None:
    request = patched.eval(
        before + "ended = 0\ntry: asyncio.run(ask())\nfinally: ended += 1; print('ended')"
    )
    calls(patched, 1)
    patched.send(CANCEL, request)
    while patched.expect(CANCELLED)[0] != request:
        pass
    assert patched.run("return ended") == 1
    assert patched.answers(request) == []
    again = patched.eval("return asyncio.run(ask())")
    (call,) = calls(patched, 1)
    give(patched, call, 2)
    assert patched.reply(again) == 2
    patched.finish()
    assert patched.errors() == ""


@pytest.mark.interrupts
def test_one_that_is_below_another_is_cancelled_when_that_has_ended(patched: VM) -> None:
    below = patched.eval("asyncio.run(ask())")
    calls(patched, 1)
    above = patched.eval("return asyncio.run(ask())")
    (call,) = calls(patched, 1)
    patched.send(CANCEL, below)
    for number in range(20):
        assert patched.run("return n", variables={"n": number}) == number
    assert (CANCELLED, below, b"") not in patched.pending
    give(patched, call, "above")
    assert patched.reply(above) == b"above"
    assert patched.expect(CANCELLED)[0] == below


@pytest.mark.interrupts
def test_no_callback_of_others_is_lost_when_a_nested_call_is_cancelled(patched: VM) -> None:
    for _ in range(10):
        request = patched.eval("asyncio.run(ask())")
        calls(patched, 1)
        patched.send(CANCEL, request)
        others = [
            patched.eval(f"import asyncio\nawait asyncio.sleep(0)\nreturn {n}") for n in range(20)
        ]
        assert [patched.reply(other) for other in others] == list(range(20))
        if (CANCELLED, request, b"") not in patched.pending:
            assert patched.expect(CANCELLED)[0] == request
        else:
            patched.pending.remove((CANCELLED, request, b""))


def test_the_end_comes_while_a_nested_loop_runs(patched: VM) -> None:
    patched.eval("asyncio.run(ask())")
    calls(patched, 1)
    patched.hang_up()
    assert patched.wait() == 0
    assert patched.errors() == ""
