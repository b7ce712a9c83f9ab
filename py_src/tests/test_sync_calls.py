"""Promises about waiting for Elixir on the event loop's own thread."""

from __future__ import annotations

import os
import pickle
import platform
import signal
import struct
import time
from typing import Any

import pytest
from support.etf import A, decode
from support.vm import (
    APPLY,
    CALL,
    CALL_ERROR,
    CANCEL,
    CANCELLED,
    CAST,
    DROP,
    EVAL,
    MAKE_ENV,
    SEND,
    VM,
    PythonError,
    frame,
    with_buffers,
)

import snex

ASK = "snex.call_sync('m', 'f', [{}])"
# `&Enum.sum/1` in external term format.
SUM = b"\x83q" + b"w\x0bElixir.Enum" + b"w\x03sum" + b"a\x01"


def waiting(vm: VM, source: str, **more: Any) -> tuple[int, int]:
    """Run code that waits; return the number of its request and of its call."""
    request = vm.eval(source, **more)
    return request, vm.expect(CALL)[0]


def test_code_gets_its_answer_while_the_event_loop_stands_still(vm: VM) -> None:
    request, call = waiting(vm, f"return {ASK.format(1)} + 1")
    assert vm.frames.causes[CALL, call] == request
    vm.answer(call, 41)
    assert vm.reply(request) == 42


@pytest.mark.parametrize(
    "code",
    [
        "snex.send_sync(snex.Atom('name'), 1)",
        "import asyncio\nasync def f(): snex.send_sync(snex.Atom('name'), 1)\nawait f()",
        "import asyncio\nasync def f(): snex.send_sync(snex.Atom('name'), 1)\nawait asyncio.create_task(f())",
        "import asyncio\nasyncio.get_running_loop().call_soon(snex.send_sync, snex.Atom('name'), 1)",
        "import gc\nclass A:\n    def __del__(self): snex.send_sync(snex.Atom('name'), 1)\nA()\nfor _ in range(3): gc.collect()",
    ],
)
def test_wherever_the_code_runs(vm: VM, code: str) -> None:
    request = vm.eval(code)
    call, body = vm.expect(SEND)
    assert decode(body) == (A("name"), 1)
    vm.answer(call)
    assert vm.reply(request) is None


def test_a_callback_sends_the_function_and_its_arguments(vm: VM) -> None:
    request = vm.eval(
        "return [f(n) for n in range(3)]", variables={"f": snex.Callback(SUM, b"sign")}
    )
    for n in range(3):
        call, body = vm.expect(APPLY)
        assert decode(body) == (b"sign", SUM, [n], None)
        vm.answer(call, n * 2)
    assert vm.reply(request) == [0, 2, 4]


def test_an_error_of_elixir_is_raised(vm: VM) -> None:
    request, call = waiting(
        vm, f"try: {ASK.format(1)}\nexcept snex.ElixirError as e: return e.kind, e.message"
    )
    fields = {
        "kind": "exit",
        "reason": snex.Term(b"\x83w\x04oops"),
        "message": "m",
        "stacktrace": [],
    }
    vm.send(CALL_ERROR, call, pickle.dumps(fields))
    assert vm.reply(request) == (b"exit", b"m")


def test_frames_for_others_are_kept_in_order_and_run_afterwards(vm: VM) -> None:
    vm.make_env(1, [], {})
    vm.run("ran = []")
    request, call = waiting(vm, f"ran.append('first')\n{ASK.format(1)}\nran.append('last')")
    others = [vm.eval(f"ran.append({n})") for n in range(100)]
    others.append(vm.eval("import asyncio\nawait asyncio.sleep(0)\nran.append('task')"))
    others.append(vm.request(MAKE_ENV, (2, [(1, 0, [])], {"x": 1})))
    vm.drop_envs(1)
    gone = vm.eval("return 1", env=1)
    vm.answer(call)
    assert vm.reply(request) is None
    for other in others:
        vm.reply(other)
    assert vm.run("return ran") == [b"first", b"last", *range(100), b"task"]
    assert vm.run("return x", env=2) == 1
    with pytest.raises(PythonError, match="no environment"):
        vm.reply(gone)


def test_answers_for_tasks_and_threads_come_through(vm: VM) -> None:
    request = vm.eval(
        "import asyncio\n"
        "task = asyncio.create_task(Elixir.A.task())\n"
        "thread = asyncio.create_task(asyncio.to_thread(snex.call_sync, 'm', 'thread', []))\n"
        "await asyncio.sleep(0.01)\n"
        f"here = {ASK.format(1)}\n"
        "return here, await task, await thread"
    )
    calls = {}
    for _ in range(3):
        call, body = vm.expect(CALL)
        calls[decode(body)[2]] = call
    for name, value in (("task", 1), ("thread", 2), ("f", 3)):
        vm.answer(calls[A(name)], value)
    assert vm.reply(request) == (3, 1, 2)


def test_an_answer_may_be_of_any_size_and_have_buffers(vm: VM) -> None:
    request, call = waiting(vm, f"x = {ASK.format(1)}\nreturn type(x).__name__, len(x)")
    data = bytes(5_000_000)
    place = pickle.PickleBuffer(bytearray())
    vm.send(6, call, with_buffers(place, [(0, data)]), flags=1)
    assert vm.reply(request) == (b"bytes", len(data))


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


@pytest.mark.interrupts
def test_cancelling_raises_out_of_the_wait(vm: VM) -> None:
    vm.run("log = []")
    request, call = waiting(
        vm,
        f"try: {ASK.format(1)}\nexcept BaseException as e: log.append(type(e).__name__); raise\nfinally: log.append('end')",
    )
    vm.send(CANCEL, request)
    assert vm.expect(CANCELLED)[0] == request
    # The late answer reaches nobody; loading it would end the process.
    vm.send(6, call, b"cos\n_exit\n(I1\ntR.")
    assert vm.run("return log") == [b"Cancelled", b"end"]
    assert vm.answers(request) == []


def test_without_interrupts_as_well() -> None:
    with VM(stdio=True) as vm:
        vm.ready()
        request, _call = waiting(vm, ASK.format(1))
        vm.send(CANCEL, request)
        assert vm.expect(CANCELLED)[0] == request
        assert vm.run("return 1") == 1


def test_cleanup_may_wait_as_well_for_a_while(vm: VM) -> None:
    vm.run("log = []")
    request, _ = waiting(
        vm,
        f"try: {ASK.format(1)}\nfinally:\n"
        "    log.append(snex.call_sync('m', 'cleanup', []))\n"
        "    try: snex.call_sync('m', 'for ever', [])\n"
        "    finally: log.append('again')",
    )
    vm.send(CANCEL, request)
    vm.answer(vm.expect(CALL)[0], "cleaned")
    # Beyond `cleanup_timeout`, it is interrupted once more.
    vm.expect(CALL)
    assert vm.expect(CANCELLED)[0] == request
    assert vm.run("return log") == [b"cleaned", b"again"]


@pytest.mark.interrupts
def test_what_runs_on_top_of_a_cancelled_request_is_interrupted_first(vm: VM) -> None:
    vm.run("log = []")
    code = "try:\n    {}\nexcept BaseException as e: log.append(({!r}, type(e).__name__)); raise"
    first, call = waiting(vm, code.format(ASK.format(1), "first"))
    second, other = waiting(vm, code.format(ASK.format(2), "second"), cause=call)
    third = vm.eval(
        code.format("snex.send_sync(snex.Atom('a'), 1)\n    while True: pass", "third"), cause=other
    )
    vm.answer(vm.expect(SEND)[0])
    vm.cancel(first)
    for each in (third, second):
        with pytest.raises(PythonError):
            vm.reply(each)
    assert vm.run("return log") == [
        (b"third", b"Cancelled"),
        (b"second", b"Cancelled"),
        (b"first", b"Cancelled"),
    ]
    assert vm.answers(first) == []


def test_only_the_cancelled_one_ends(vm: VM) -> None:
    first, call = waiting(vm, f"return {ASK.format(1)}")
    second, other = waiting(vm, ASK.format(2), cause=call)
    vm.send(CANCEL, second)
    assert vm.expect(CANCELLED)[0] == second
    del other
    vm.answer(call, "goes on")
    assert vm.reply(first) == b"goes on"


def test_a_cancelled_request_that_is_kept_never_runs(vm: VM) -> None:
    vm.run("ran = []")
    request, call = waiting(vm, ASK.format(1))
    kept = [vm.eval(f"ran.append({n})") for n in range(5)]
    kept.append(vm.eval("import asyncio\nawait asyncio.sleep(0)\nran.append(5)"))
    vm.send(CANCEL, kept[1])
    vm.send(CANCEL, kept[5])
    assert {vm.expect(CANCELLED)[0] for _ in range(2)} == {kept[1], kept[5]}
    vm.answer(call)
    vm.reply(request)
    for n in (0, 2, 3, 4):
        vm.reply(kept[n])
    assert vm.run("return ran") == [0, 2, 3, 4]
    assert vm.answers(kept[1]) == vm.answers(kept[5]) == []


def test_probes_are_answered(vm: VM) -> None:
    request, call = waiting(vm, ASK.format(1))
    vm.send(CANCEL, 5 | 1 << 63)
    assert vm.expect(CANCELLED)[0] == 5 | 1 << 63
    vm.answer(call)
    vm.reply(request)


def test_tasks_and_threads_of_others_are_cancelled_too(vm: VM) -> None:
    vm.run("import asyncio\nlog = []")
    task = vm.eval(
        "snex.send_sync(1, 1)\ntry: await asyncio.sleep(100)\nfinally: log.append('task')"
    )
    vm.answer(vm.expect(SEND)[0])
    thread = vm.eval(
        "try: snex.call_sync('m', 'thread', [])\nfinally: log.append('thread')", thread=True
    )
    vm.expect(CALL)
    request, call = waiting(vm, ASK.format(1))
    vm.send(CANCEL, thread)
    vm.send(CANCEL, task)
    assert vm.expect(CANCELLED)[0] == thread
    vm.answer(call)
    vm.reply(request)
    assert vm.expect(CANCELLED)[0] == task
    assert vm.run("return log") == [b"thread", b"task"]


def test_the_end_of_the_vm_lets_it_go(vm: VM) -> None:
    waiting(
        vm,
        "import sys\n"
        f"try: {ASK.format(1)}\nexcept RuntimeError as e: print(e, file=sys.__stderr__)\n"
        f"try: {ASK.format(2)}\nexcept RuntimeError as e: print('again', e, file=sys.__stderr__)",
    )
    vm.hang_up()
    assert vm.wait() == 0
    assert "again the connection to the VM is closed" in vm.errors()


def test_garbage_ends_it(vm: VM) -> None:
    waiting(vm, ASK.format(1))
    os.write(vm.out_fd, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert vm.wait() == 70
    assert "garbage on the input" in vm.errors()


@pytest.mark.interrupts
def test_a_handler_of_a_signal_may_raise_out_of_it(vm: VM) -> None:
    vm.run(
        "import signal\n"
        "def handler(*_): raise ZeroDivisionError\n"
        "signal.signal(signal.SIGUSR1, handler)"
    )
    request, call = waiting(vm, f"try: {ASK.format(1)}\nexcept ZeroDivisionError: return 'raised'")
    deadline = time.monotonic() + 60
    while True:
        vm.process.send_signal(signal.SIGUSR1)
        try:
            vm.pending.append(vm.read(0.05))
            break
        except TimeoutError:
            assert time.monotonic() < deadline
    assert vm.reply(request) == b"raised"
    vm.answer(call, "late")
    assert vm.run("return 1") == 1


def test_threads_write_while_the_loops_thread_waits() -> None:
    with VM(hello={"buffer_limits": (1 << 16, 1 << 17)}) as vm:
        vm.ready()
        vm.run(
            "import asyncio, threading\nbig = bytes(50_000)\n"
            "def work():\n"
            "    for i in range(50): snex.send_sync(i, big)\n"
        )
        request = vm.eval(
            f"threads = [threading.Thread(target=work) for _ in range(4)]\n"
            f"for t in threads: t.start()\n"
            f"{ASK.format(1)}\n"
            f"for t in threads: t.join()\nreturn 'end'"
        )
        call = vm.expect(CALL)[0]
        for _ in range(200):
            vm.answer(vm.expect(SEND)[0])
        vm.answer(call)
        assert vm.reply(request) == b"end"


def test_more_than_the_pipe_takes_is_written_meanwhile() -> None:
    with VM(hello={"buffer_limits": (1 << 16, 1 << 17)}) as vm:
        vm.ready()
        vm.run("import asyncio")
        request = vm.eval(
            "big = bytes(3_000_000)\n"
            "tasks = [asyncio.create_task(Elixir.A.b(big)) for _ in range(3)]\n"
            "await asyncio.sleep(0)\n"
            "return snex.call_sync('m', 'f', [big]), await asyncio.gather(*tasks)"
        )
        for n in range(4):
            vm.answer(vm.expect(CALL)[0], n)
        result = vm.reply(request)
        assert sorted([result[0], *result[1]]) == [0, 1, 2, 3]


def test_prints_are_written_meanwhile(vm: VM) -> None:
    request, call = waiting(vm, f"print('x' * 3_000_000)\n{ASK.format(1)}\nprint('after')")
    vm.answer(call)
    vm.reply(request)
    assert vm.printed(request) == b"x" * 3_000_000 + b"\nafter\n"


def test_code_of_no_request_may_wait(vm: VM) -> None:
    vm.run(
        "import asyncio, contextvars\nlog = []\n"
        f"def work(): log.append({ASK.format(1)}); log.append({ASK.format(2)})\n"
        "asyncio.get_running_loop().call_soon(work, context=contextvars.Context())"
    )
    call, _ = vm.expect(CALL)
    assert vm.frames.causes[CALL, call] == 0
    assert vm.run("log.append('nested')", cause=call) is None
    vm.answer(call, 1)
    vm.answer(vm.expect(CALL)[0], 2)
    assert vm.run("return log") == [b"nested", 1, 2]


def test_a_background_task_may_wait_after_its_request(vm: VM) -> None:
    request = vm.eval(
        "import asyncio\nlog = []\n"
        f"async def later():\n    await asyncio.sleep(0)\n    log.append({ASK.format(1)})\n"
        "task = asyncio.create_task(later())"
    )
    assert vm.reply(request) is None
    vm.answer(vm.expect(CALL)[0], 1)
    assert vm.run("return log") == [1]


def test_a_del_in_the_middle_of_reading_is_refused(vm: VM) -> None:
    # The reader hands an answer on; what belongs to it is freed, in the middle of its turn.
    vm.run(
        "import asyncio, sys\nlog = []\n"
        "from snex._elixir import client\n"
        "def settle(answer):\n"
        "    try: snex.call_sync('m', 'f', [])\n"
        "    except RuntimeError as e: log.append(str(e))\n"
        "from snex._etf.encoder import encode\n"
        "client.current().pass_on(0x85, encode((None, snex.Atom('m'), snex.Atom('f'), [], None)), settle)"
    )
    vm.answer(vm.expect(CALL)[0])
    assert b"block the event loop" in vm.run("return log")[0]


def test_1000_waits_leave_nothing_behind(vm: VM) -> None:
    request = vm.eval(f"return sum({ASK.format('n')} for n in range(1000))")
    for n in range(1000):
        vm.answer(vm.expect(CALL)[0], n)
    assert vm.reply(request) == sum(range(1000))
    assert vm.run(
        "from snex._elixir import client\nc = client.current()\n"
        "return len(c._waiting), bool(c.waits.calls), len(c.waits._due), len(c.waits.unwanted)"
    ) == (0, False, 0, 0)


def nest(vm: VM, levels: int, code: str) -> list[int]:
    """Have requests wait on top of each other; return the calls, innermost last."""
    calls: list[int] = []
    for _ in range(levels):
        vm.eval(code, cause=calls[-1] if calls else 0)
        calls.append(vm.expect(CALL)[0])
    return calls


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


def test_what_threads_write_goes_out_though_nothing_comes_in(vm: VM) -> None:
    vm.run(
        "import asyncio, threading\n"
        "go = threading.Event()\n"
        "def work():\n"
        "    go.wait()\n"
        "    asyncio.run(snex.cast('m', 'f', [bytes(3_000_000)]))\n"
        "thread = threading.Thread(target=work)\nthread.start()"
    )
    request, call = waiting(vm, f"threading.Timer(0.2, go.set).start()\n{ASK.format(1)}")
    assert len(decode(vm.expect(CAST)[1])[3][0]) == 3_000_000
    vm.answer(call)
    vm.reply(request)


def test_what_has_been_printed_goes_out_before_the_answer_comes(vm: VM) -> None:
    # Nobody reads what is printed before the code waits.
    sources, vm.sources = vm.sources, [vm.frames]
    request, call = waiting(vm, f"print('x' * 3_000_000)\n{ASK.format(1)}")
    vm.sources = sources
    printed = b""
    while len(printed) < 3_000_001:
        printed += vm.printed(request)
        if len(printed) < 3_000_001:
            vm.pending.append(vm.read())
    vm.answer(call)
    vm.reply(request)


@pytest.mark.skipif(
    platform.python_implementation() == "PyPy", reason="nothing can be raised in its threads"
)
def test_a_thread_that_is_cancelled_is_asked_again_meanwhile(vm: VM) -> None:
    thread = vm.eval(
        "import time\nsnex.send_sync(1, 1)\n"
        "try:\n    while True: time.sleep(0.001)\n"
        "finally:\n    while True: time.sleep(0.001)",
        thread=True,
    )
    vm.answer(vm.expect(SEND)[0])
    request, call = waiting(vm, ASK.format(1))
    vm.send(CANCEL, thread)
    assert vm.expect(CANCELLED)[0] == thread
    vm.answer(call)
    vm.reply(request)
