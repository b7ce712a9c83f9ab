"""Promises about cancelling, also of code that blocks."""

from __future__ import annotations

import os
import pickle
import signal
import struct
from typing import Any

import pytest
from support.vm import (
    CANCEL,
    CANCELLED,
    ERROR,
    EVAL,
    MAKE_ENV,
    PRINT,
    RESULT,
    VM,
    PythonError,
    decode,
    frame,
)

import snex
from snex._eval.signals import Interrupts

pytestmark = pytest.mark.interrupts


def begun(vm: VM, code: str) -> int:
    """Start code and wait until it runs."""
    request = vm.eval("print('begun')\n" + code)
    while vm.expect(PRINT) != (request, b"\x01begun\n"):
        pass
    return request


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time\ntime.sleep(1000)",
        "for _ in iter(int, 1): pass",
        "import os\nos.read(os.pipe()[0], 1)",
        "import threading\nthreading.Event().wait()",
        "import subprocess\nsubprocess.run(['sleep', '1000'], capture_output=True)",
        "import concurrent.futures\nconcurrent.futures.Future().result()",
        "import time\nwhile True:\n    try: time.sleep(1000)\n    except Exception: pass",
        "import contextvars, time\ncontextvars.copy_context().run(time.sleep, 1000)",
        # Encoding: two to the power of fifty elements.
        "l = [0]\nfor _ in range(50): l = [l, l]\nreturn l",
        "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
        "import time\ntry: time.sleep(1000)\nexcept BaseException: return 'swallowed'",
        "import time\ntry: time.sleep(1000)\nexcept BaseException: raise ValueError",
        "import asyncio, time\nawait asyncio.sleep(0)\ntime.sleep(1000)",
        "import asyncio, time\ntry: await asyncio.Event().wait()\nfinally: time.sleep(1000)",
        "import asyncio, time\nasync def f(): time.sleep(1000)\nawait asyncio.create_task(f())",
        "import asyncio\nasync def f():\n    while True: pass\nawait asyncio.gather(f(), f())",
        "import asyncio, time\n"
        "asyncio.get_running_loop().call_soon(time.sleep, 1000)\nawait asyncio.Event().wait()",
    ],
)
def test_code_that_blocks_is_interrupted(vm: VM, code: str) -> None:
    neighbour = vm.eval("import asyncio\nawait asyncio.sleep(0.01)\nreturn 'neighbour'")
    request = begun(vm, code)
    vm.cancel(request)
    assert vm.run("return 1") == 1
    assert vm.reply(neighbour) == b"neighbour"
    assert vm.answers(request) == []


def test_a_constructor_that_blocks_is_interrupted(vm: VM) -> None:
    for kind, fields in (
        (EVAL, (0, "return x", None, 1, {"x": Blocks()})),
        (MAKE_ENV, (1, [], {"x": Blocks()})),
    ):
        request = vm.request(kind, fields)
        vm.cancel(request)
        assert vm.run("return 1") == 1
        assert vm.answers(request) == []


class Blocks:
    def __reduce__(self) -> Any:
        import time

        return time.sleep, (1000,)


def test_the_exception_is_cancelled_and_finally_blocks_run(vm: VM) -> None:
    request = begun(
        vm,
        "import time\n"
        "try: time.sleep(1000)\n"
        "except snex.Cancelled as e: seen = repr(e)\n"
        "finally: ended = True",
    )
    vm.cancel(request)
    assert vm.run("return seen, ended") == (b"Cancelled()", True)


def test_cancelled_is_no_exception_that_people_catch_by_accident() -> None:
    assert issubclass(snex.Cancelled, BaseException)
    assert not issubclass(snex.Cancelled, Exception)
    assert snex.Cancelled.__module__ == "snex"


def test_raising_it_oneself_is_an_error_like_any_other(vm: VM) -> None:
    with pytest.raises(PythonError) as caught:
        vm.run("raise snex.Cancelled")
    assert caught.value.fields["exception"]["type"] == "Cancelled"


def test_other_requests_do_not_notice_the_signal(vm: VM) -> None:
    vm.run("import signal, time")
    request = begun(
        vm,
        "end = time.monotonic() + 0.3\n"
        "n = 0\n"
        "while time.monotonic() < end:\n"
        "    try: time.sleep(0.001)\n"
        "    finally: n += 1\n"
        "return 'undisturbed'",
    )
    other = 99_999
    while True:
        try:
            answer = vm.read(0.001)
        except TimeoutError:
            vm.interrupt(other)
            vm.process.send_signal(signal.SIGURG)
        else:
            break
    assert (answer[1], decode(answer[2])) == (request, b"undisturbed")


def test_the_idle_loop_does_not_notice_the_signal(vm: VM) -> None:
    for _ in range(50):
        vm.interrupt(12345)
    assert vm.run("return 1") == 1


def test_what_has_not_begun_is_not_begun_any_more(vm: VM) -> None:
    vm.run("ran = []")
    blocking = begun(vm, "while True: pass")
    second = vm.eval("ran.append(1)")
    vm.send(CANCEL, second)
    # One write, so that the signal that ends the first one brings both.
    os.write(vm.interrupt_fd, struct.pack("<QQ", second, blocking))
    vm.cancel(blocking)
    assert vm.expect(CANCELLED) == (second, b"")
    assert vm.run("return ran") == []
    assert vm.answers(second) == []


def test_cancelled_comes_after_the_finally_blocks(vm: VM) -> None:
    vm.run("import asyncio\ngo, ended = asyncio.Event(), []")
    request = begun(
        vm, "try: await asyncio.Event().wait()\nfinally:\n    await go.wait()\n    ended.append(1)"
    )
    vm.send(CANCEL, request)
    assert vm.run("await asyncio.sleep(0)\nreturn ended") == []
    assert vm.answers(request) == []
    vm.run("go.set()")
    assert vm.expect(CANCELLED) == (request, b"")
    assert vm.run("return ended") == [1]
    assert vm.answers(request) == []


def test_every_cancel_is_answered_once(vm: VM) -> None:
    vm.run("import asyncio")
    over = vm.eval("return 1")
    assert vm.reply(over) == 1
    running = begun(vm, "await asyncio.Event().wait()")
    for request in (over, 777, running, running, 777):
        vm.send(CANCEL, request)
    vm.run("await asyncio.sleep(0)\nawait asyncio.sleep(0)")
    assert vm.answers(over) == [CANCELLED]
    assert vm.answers(777) == [CANCELLED] * 2
    assert vm.answers(running) == [CANCELLED] * 2


def test_a_request_is_cancelled_before_its_first_step(vm: VM) -> None:
    vm.run("import asyncio\nran = []")
    # One write, so that both are read before the task begins.
    number = 500
    body = pickle.dumps((0, "ran.append(1)\nawait asyncio.sleep(0)\nran.append(2)", None, 1, {}))
    os.write(vm.out_fd, frame(EVAL, number, body) + frame(CANCEL, number))
    assert vm.expect(CANCELLED) == (number, b"")
    assert vm.run("return 2 in ran") is False
    assert vm.answers(number) == []


def test_only_those_concerned_are_interrupted_among_a_thousand(vm: VM) -> None:
    vm.run("import asyncio, time")
    ways = [
        "x = 0\nfor i in range(300): x += i\nreturn [n, x]",
        "x = 0\nfor i in range(300):\n    x += i\n    if i % 100 == 0: await asyncio.sleep(0)\nreturn [n, x]",
        "x = await asyncio.to_thread(sum, range(300))\nreturn [n, x]",
        "print(n)\nreturn [n, sum([i for i in range(300)])]",
        "return [n, sum(map(int, map(str, range(300))))]",
    ]
    blocking = ["while True: pass", "time.sleep(1000)", "await asyncio.sleep(0)\ntime.sleep(1000)"]
    for batch in range(10):
        expected: dict[int, object] = {}
        doomed: set[int] = set()
        for i in range(100):
            n = batch * 100 + i
            if i % 20 == 7:
                doomed.add(vm.eval(blocking[i // 20 % 3], None))
            else:
                expected[vm.eval(ways[i % len(ways)], None, {"n": n})] = [n, 44850]
        for request in doomed:
            vm.send(CANCEL, request)
        got: dict[int, object] = {}
        cancelled: list[int] = []
        while len(got) < len(expected) or len(cancelled) < len(doomed):
            try:
                kind, number, body = vm.read(0.001)
            except TimeoutError:
                for request in doomed.difference(cancelled):
                    vm.interrupt(request)
                continue
            assert kind != ERROR, body
            if kind == RESULT:
                got[number] = decode(body)
            elif kind == CANCELLED:
                cancelled.append(number)
        assert got == expected
        assert sorted(cancelled) == sorted(doomed)


def test_a_print_that_nobody_reads_is_interrupted(vm: VM) -> None:
    vm.sources = [vm.frames]
    request = vm.eval("while True: print('x' * 100_000)")
    vm.cancel(request)
    assert vm.run("return 1") == 1
    vm.sources = [vm.prints, vm.frames]
    assert vm.run("print('next')\nreturn 2") == 2


def test_code_that_does_nothing_but_print_is_interrupted(vm: VM) -> None:
    for code in ("while True: print('x')", "import sys\nwhile True: sys.stdout.flush()"):
        request = begun(vm, code)
        # One signal has to do.
        vm.interrupt(request)
        vm.cancel(request)
        assert vm.run("return 1") == 1


@pytest.mark.parametrize("code", ["print('x')", "sys.stdout.flush()"])
def test_an_interrupt_that_comes_in_a_print_is_raised_after_it(vm: VM, code: str) -> None:
    interrupted = (
        "import asyncio, sys\n"
        "from snex._eval.request import current\n"
        "current.get().interrupted = True\n"
        # Not in another thread.
        "await asyncio.to_thread(print, 'y')\n"
        f"try: {code}\n"
        "except snex.Cancelled:\n"
        # Once.
        f"    {code}\n"
        "    return True"
    )
    assert vm.run(interrupted) is True


def test_a_forked_child_has_the_usual_handler(vm: VM) -> None:
    code = (
        "import os, signal, time\n"
        "r, w = os.pipe()\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        # It would not notice a signal that comes just before a long sleep.
        "    try:\n        os.write(w, b'x')\n        while True: time.sleep(0.01)\n"
        "    except KeyboardInterrupt: os._exit(42)\n"
        "    os._exit(1)\n"
        "os.read(r, 1)\n"
        "os.kill(pid, signal.SIGINT)\n"
        "return os.waitpid(pid, 0)[1] >> 8"
    )
    assert vm.run(code) == 42


def test_a_handler_of_the_users_own_is_left_alone(vm: VM) -> None:
    vm.run("import signal\nsignal.signal(signal.SIGINT, lambda *_: print('own'))")
    vm.process.send_signal(signal.SIGINT)
    assert vm.expect(PRINT)[1] == b"\x01own\n"


def test_numbers_are_forgotten_when_they_are_settled_even_if_they_come_late() -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    interrupts = Interrupts(read)
    os.write(write, struct.pack("<QQQ", 1, 2, 2**64 - 1))
    interrupts.read()
    assert interrupts.wanted == {1, 2, 2**64 - 1}
    interrupts.settled(1)
    assert interrupts.wanted == {2, 2**64 - 1}
    interrupts.settled(3)
    os.write(write, struct.pack("<QQ", 1, 3))
    interrupts.read()
    assert interrupts.wanted == {2, 2**64 - 1}
    os.close(write)
    interrupts.read()
    os.close(read)


@pytest.mark.parametrize(
    "cleanup",
    [
        "time.sleep(0.4)",
        "end = time.monotonic() + 0.4\n    while time.monotonic() < end: print('x')",
    ],
)
@pytest.mark.parametrize(
    "wait", ["time.sleep(1000)", "await asyncio.Event().wait()", "await inner()"]
)
def test_cleanup_has_its_time_before_the_next_interrupt(cleanup: str, wait: str) -> None:
    with VM(hello={"cleanup_timeout": 60_000}) as vm:
        vm.ready()
        vm.run("import asyncio, threading, time\nlock = threading.Lock()\nreleased = []")
        request = begun(
            vm,
            "async def inner():\n"
            "    task = asyncio.ensure_future(asyncio.Event().wait())\n    await task\n"
            f"lock.acquire()\ntry: {wait}\nfinally:\n    {cleanup}\n    lock.release()",
        )
        # With an interrupt every 20 ms.
        vm.cancel(request)
        assert vm.run("return lock.locked()") is False


def test_cleanup_of_a_task_that_the_request_awaits_has_its_time() -> None:
    with VM(hello={"cleanup_timeout": 60_000}) as vm:
        vm.ready()
        request = begun(
            vm,
            "import asyncio, time\ndone = []\n"
            "async def inner():\n"
            "    try: await asyncio.Event().wait()\n"
            "    finally:\n        time.sleep(0.4)\n        done.append(1)\n"
            "await asyncio.gather(inner(), inner())",
        )
        vm.cancel(request)
        assert vm.run("return done") == [1, 1]


def test_cleanup_that_exceeds_its_time_is_interrupted_again(vm: VM) -> None:
    request = begun(
        vm,
        "import time\nseen = []\n"
        "try: time.sleep(1000)\n"
        "finally:\n"
        "    try: time.sleep(1000)\n"
        "    finally: seen.append(time.monotonic())",
    )
    vm.cancel(request)
    assert vm.run("return len(seen)") == 1
