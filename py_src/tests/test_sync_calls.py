"""Promises about waiting for Elixir on the event loop's own thread."""

from __future__ import annotations

import pickle

import pytest
from support.etf import A, decode
from support.vm import APPLY, CALL, CALL_ERROR, CAST, MAKE_ENV, SEND, VM, PythonError, with_buffers
from support.waits import ASK, SUM, waiting

import snex


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
        "import gc\ngone = []\nclass A:\n    def __del__(self): snex.send_sync(snex.Atom('name'), gone.append(1) or 1)\nA()\nwhile not gone: gc.collect()",
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


def test_a_thread_fills_the_pipe_again_while_the_loops_thread_waits(vm: VM) -> None:
    """What the pipe does not take is written by the wait, each time."""
    request, call = waiting(
        vm,
        "import threading\nbig = bytes(1_000_000)\n"
        "def work():\n    for i in range(3): snex.send_sync(i, big)\n"
        f"thread = threading.Thread(target=work)\nthread.start()\n{ASK.format(1)}\nthread.join()",
    )
    for _ in range(3):
        vm.answer(vm.expect(SEND)[0])
    vm.answer(call)
    vm.reply(request)


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
