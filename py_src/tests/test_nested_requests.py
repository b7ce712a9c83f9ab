"""Promises about requests that run on top of one that waits on the event loop's own thread."""

from __future__ import annotations

import os
import pickle
import struct

import pytest
from support.etf import decode
from support.vm import CALL, CANCEL, CANCELLED, DROP, EVAL, MAKE_ENV, VM, PythonError, frame
from support.waits import ASK, nest, waiting


def test_a_request_that_the_function_causes_runs_on_top(vm: VM) -> None:
    vm.run("ran = []")
    request, call = waiting(vm, f"ran.append(1)\nx = {ASK.format(1)}\nran.append(3)\nreturn x")
    other = vm.eval("ran.append(4)")
    assert vm.run("ran.append(2)\nreturn 'nested'", cause=call) == b"nested"
    made = vm.request(MAKE_ENV, (7, [], {"y": 5}), cause=call)
    assert vm.reply(made) is None
    assert vm.run("return y", env=7, cause=call) == 5
    vm.answer(call, "done")
    assert vm.reply(request) == b"done"
    vm.reply(other)
    assert vm.run("return ran") == [1, 2, 3, 4]


def test_nested_code_has_its_own_context_and_prints_for_its_own_request(vm: VM) -> None:
    vm.run("import contextvars, asyncio\nvar = contextvars.ContextVar('var', default=0)")
    request, call = waiting(
        vm, f"var.set(1)\nprint('before')\n{ASK.format(1)}\nprint('after')\nreturn var.get()"
    )
    nested = vm.eval("print('nested')\nreturn var.get(), asyncio.current_task()", cause=call)
    assert vm.reply(nested) == (0, None)
    vm.answer(call)
    assert vm.reply(request) == 1
    assert vm.printed(request) == b"before\nafter\n"
    assert vm.printed(nested) == b"nested\n"


def test_nested_code_that_awaits_is_refused_at_once_and_a_thread_runs_it(vm: VM) -> None:
    for outer in (ASK.format(1), f"import asyncio\nawait asyncio.sleep(0)\n{ASK.format(1)}"):
        request, call = waiting(vm, outer)
        code = "import asyncio\nawait asyncio.sleep(0)\nreturn 1"
        with pytest.raises(
            PythonError, match="run: :thread, or await the function in the outer code"
        ):
            vm.run(code, cause=call)
        assert vm.run(code, cause=call, thread=True) == 1
        vm.answer(call)
        assert vm.reply(request) is None


def test_nested_code_in_a_task_does_not_see_the_task(vm: VM) -> None:
    request, call = waiting(
        vm,
        "import asyncio\nawait asyncio.sleep(0)\nmine = asyncio.current_task()\n"
        f"{ASK.format(1)}\nawait asyncio.sleep(0)\nreturn asyncio.current_task() is mine",
    )
    code = "import asyncio\nasyncio.get_running_loop()\nreturn asyncio.current_task()"
    assert vm.run(code, cause=call) is None
    vm.answer(call)
    assert vm.reply(request) is True


def test_a_cause_is_found_through_threads(vm: VM) -> None:
    # R1 waits; what it has called runs R2 in a thread, whose call has R3 run here.
    first, call = waiting(vm, f"return {ASK.format(1)}")
    second, other = waiting(vm, f"return {ASK.format(2)}", thread=True, cause=call)
    assert vm.run("return 3", cause=other) == 3
    vm.answer(other, 2)
    assert vm.reply(second) == 2
    vm.answer(call, 1)
    assert vm.reply(first) == 1


def test_a_cause_that_has_nothing_to_do_with_it_is_kept(vm: VM) -> None:
    vm.run("import asyncio")
    apart, elsewhere = waiting(vm, "return await Elixir.A.b()")
    request, call = waiting(vm, f"return {ASK.format(1)}")
    kept = [vm.eval("return 1", cause=cause) for cause in (elsewhere, 10_000)]
    vm.answer(call, 2)
    assert vm.reply(request) == 2
    assert [vm.reply(each) for each in kept] == [1, 1]
    # Answers come in the order of the work.
    vm.answer(elsewhere)
    assert vm.reply(apart) is None


def test_what_comes_too_late_to_be_run_on_top_is_run_by_the_loop(vm: VM) -> None:
    request, call = waiting(vm, f"import time\ntime.sleep(0.2)\n{ASK.format(1)}\nreturn 'outer'")
    code = "import asyncio\nawait asyncio.sleep(0)\nreturn 'late'"
    body = pickle.dumps((0, code, None, 1, {}), 5)
    number = vm.next_id
    vm.next_id += 1
    # In one write: the answer is there before anything is run.
    data = frame(6, call, pickle.dumps(None)) + frame(EVAL, number, body, cause=call)
    os.write(vm.out_fd, data)
    assert vm.reply(request) == b"outer"
    assert vm.reply(number) == b"late"


def test_what_comes_behind_a_drop_does_not_find_what_it_takes_away(vm: VM) -> None:
    vm.make_env(1, [], {})
    request, call = waiting(vm, f"import time\ntime.sleep(0.2)\n{ASK.format(1)}\nreturn 'outer'")
    number = vm.next_id
    vm.next_id += 1
    drop = frame(DROP, 0, struct.pack("<BQI", 0, 1, 1))
    gone = frame(EVAL, number, pickle.dumps((1, "return 1", None, 1, {}), 5))
    # In one write: the answer is there before anything is dropped.
    os.write(vm.out_fd, drop + gone + frame(6, call, pickle.dumps(None)))
    assert vm.reply(request) == b"outer"
    with pytest.raises(PythonError, match="no environment"):
        vm.reply(number)


def test_200_levels_with_the_usual_depth_on_each(vm: VM) -> None:
    vm.run(
        "def depth(n=0):\n"
        "    try: return depth(n + 1)\n"
        "    except RecursionError: return n\n"
        "import sys\nlimit = sys.getrecursionlimit()\nusual = depth()\nlog = []"
    )
    calls = nest(vm, 200, f"{ASK.format(1)}\nlog.append(1)")
    assert vm.run("return depth() >= usual - 50", cause=calls[-1]) is True
    for call in reversed(calls):
        vm.answer(call)
    assert vm.run("return len(log)") == 200
    # The limit is what it was.
    assert vm.run("return sys.getrecursionlimit() == limit") is True


@pytest.mark.parametrize(
    ("code", "least"),
    [
        ("sorted([1], key=lambda x: snex.call_sync('m', 'f', []))", 200),
        # Each level takes as much of the stack as ten of the others.
        (
            "def deeper(n): return sorted([1], key=lambda x: deeper(n - 1) if n else snex.call_sync('m', 'f', []))\n"
            "deeper(10)",
            20,
        ),
    ],
)
def test_beyond_what_the_stack_holds_it_is_an_error_of_that_call(
    vm: VM, code: str, least: int
) -> None:
    calls: list[int] = []
    while True:
        request = vm.eval(code, cause=calls[-1] if calls else 0)
        kind, number, body = vm.read()
        if kind != CALL:
            assert number == request
            break
        calls.append(number)
    assert decode(body)[b"exception"][b"type"] == b"RecursionError"
    assert len(calls) >= least
    for call in reversed(calls):
        vm.answer(call)
    assert vm.run("return 1") == 1


def test_a_request_that_is_cancelled_before_it_runs_on_top_never_does(vm: VM) -> None:
    vm.run("ran = []")
    request, call = waiting(vm, ASK.format(1))
    number = vm.next_id
    vm.next_id += 1
    body = pickle.dumps((0, "ran.append(1)", None, 1, {}), 5)
    os.write(vm.out_fd, frame(EVAL, number, body, cause=call) + frame(CANCEL, number))
    assert vm.expect(CANCELLED)[0] == number
    vm.answer(call)
    vm.reply(request)
    assert vm.run("return ran") == []
    assert vm.answers(number) == []
