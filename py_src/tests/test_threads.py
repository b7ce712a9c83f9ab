"""Promises about `run: :thread`."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
from typing import Any

import pytest
from support.vm import (
    CALL,
    CALL_RESULT,
    CANCEL,
    CANCELLED,
    ERROR,
    MEASURED,
    PRINT,
    RESULT,
    SEND,
    VM,
    PythonError,
    decode,
    wait_until,
)

from snex._pypy import PYPY

PROBE = 1 << 63

# There, only code that prints, calls Elixir or awaits is interrupted.
raises_in_threads = pytest.mark.skipif(
    PYPY, reason="PyPy cannot raise an exception in another thread"
)


def run(vm: VM, code: str, env: int | None = 0) -> Any:
    return vm.reply(vm.eval(code, env, thread=True))


def begun(vm: VM, code: str) -> int:
    """Start code in a thread and wait until it prints `begun`."""
    request = vm.eval(code, thread=True)
    while vm.expect(PRINT) != (request, b"\x01begun\n"):
        pass
    return request


def cancel(vm: VM, request: int) -> None:
    """Cancel as the VM does, but without interrupts."""
    vm.send(CANCEL, request)
    vm.send(CANCEL, request | PROBE)
    ended(vm, request)


def ended(vm: VM, request: int) -> None:
    while (CANCELLED, request, b"") not in vm.pending:
        vm.pending.append(vm.read())
    vm.pending.remove((CANCELLED, request, b""))


def test_code_runs_in_a_thread_without_a_loop_and_in_its_environment(vm: VM) -> None:
    code = (
        "import asyncio, threading\n"
        "try: asyncio.get_running_loop()\n"
        "except RuntimeError: x = threading.current_thread().name\n"
        "return __name__"
    )
    assert run(vm, code) == b"__main__"
    assert vm.run("return x") == b"snex-1"
    assert run(vm, "return threading.current_thread() is threading.main_thread()") is False


def test_blocking_code_lets_others_be_served_in_threads_and_on_the_loop(vm: VM) -> None:
    vm.run("import threading\ngate = threading.Event()")
    first = vm.eval("gate.wait()\nreturn 'first'", thread=True)
    assert vm.run("return 1") == 1
    assert run(vm, "return 2") == 2
    assert vm.make_env(1, [], {"x": 3}) is None
    vm.run("gate.set()")
    assert vm.reply(first) == b"first"


@pytest.mark.parametrize(
    "code",
    [
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 7\nreturn asyncio.run(f())",
        "import asyncio\nawait asyncio.sleep(0)\nreturn 7",
        "import asyncio\nasync with asyncio.Lock(): return 7",
        "import asyncio\nloop = asyncio.new_event_loop()\n"
        "try: return loop.run_until_complete(asyncio.sleep(0, 7))\nfinally: loop.close()",
    ],
)
def test_event_loops_of_its_own_may_run_there(vm: VM, code: str) -> None:
    assert run(vm, code) == 7


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("return snex.call_sync('a', 'b', [])", CALL),
        ("return await snex.call('a', 'b', [])", CALL),
        ("import asyncio\nreturn asyncio.run(snex.call('a', 'b', []))", CALL),
        ("return snex.send_sync('a', 'b')", SEND),
        ("return await snex.send('a', 'b')", SEND),
    ],
)
def test_elixir_can_be_called_from_there(vm: VM, code: str, kind: int) -> None:
    request = vm.eval(code, thread=True)
    call, _ = vm.expect(kind)
    vm.send(CALL_RESULT, call, pickle.dumps("answer"))
    assert vm.reply(request) == (b"answer" if kind == CALL else None)


def test_prints_belong_to_the_call_and_come_before_its_answer(vm: VM) -> None:
    requests = [vm.eval(f"for i in range(200): print({n})", thread=True) for n in range(8)]
    for n, request in enumerate(requests):
        vm.reply(request)
        wait_for = f"{n}\n".encode() * 200
        got = vm.printed(request)
        while len(got) < len(wait_for):
            vm.pending.append(vm.read())
            got += vm.printed(request)
        assert got == wait_for


def test_errors_are_those_of_the_call(vm: VM) -> None:
    with pytest.raises(PythonError) as caught:
        run(vm, "def f(): 1 / 0\nf()")
    first = caught.value.fields["traceback"][1]
    assert first.startswith('  File "<Snex.Code>", line 2, in <module>\n    f()\n')
    for code in ("raise SystemExit(3)", "raise KeyboardInterrupt", "return object()", "no python"):
        with pytest.raises(PythonError):
            run(vm, code)
    with pytest.raises(PythonError, match="99"):
        run(vm, "return 1", 99)
    assert run(vm, "return 1") == 1


def test_context_variables_are_kept(vm: VM) -> None:
    vm.run("import contextvars\nv = contextvars.ContextVar('v', default=0)")
    run(vm, "v.set(1)")
    assert vm.run("return v.get()") == 1
    run(vm, "import asyncio\nawait asyncio.sleep(0)\nv.set(v.get() + 1)")
    assert run(vm, "return v.get()") == 2


def test_a_thread_is_used_again_and_one_call_after_the_other_needs_but_one(vm: VM) -> None:
    names = {run(vm, "import threading\nreturn threading.current_thread().name") for _ in range(50)}
    assert names == {b"snex-1"}


def test_there_are_as_many_threads_as_calls_and_idle_ones_end(vm: VM) -> None:
    vm.run("import threading\nbarrier = threading.Barrier(20)")
    requests = [vm.eval("return barrier.wait() >= 0", thread=True) for _ in range(20)]
    assert [vm.reply(request) for request in requests] == [True] * 20
    wait_until(lambda: vm.run("return threading.active_count()") == 1)


PYTHON_CODE = [
    "while True: pass",
    "while True: time.sleep(0.001)",
    "while True:\n        try: time.sleep(0.001)\n        except Exception: pass",
    "asyncio.new_event_loop().run_forever()",
    "async def f():\n        while True: pass\n    asyncio.run(f())",
    "await asyncio.sleep(0)\n    while True: pass",
    "l = [0]\n    for _ in range(50): l = [l, l]\n    return l",
]
BLOCKS = [
    "while True: print('x')",
    "snex.call_sync('a', 'b', [])",
    "asyncio.run(asyncio.sleep(1000))",
    "await asyncio.sleep(1000)",
    "await asyncio.to_thread(gate.wait)",
    *(pytest.param(code, marks=raises_in_threads) for code in PYTHON_CODE),
]


@pytest.mark.interrupts
@pytest.mark.parametrize("code", BLOCKS)
def test_cancelling_runs_finally_blocks_once_and_harms_nobody(vm: VM, code: str) -> None:
    vm.run("import asyncio, threading, time\ngate = threading.Event()\nended = 0")
    request = begun(vm, f"try:\n    print('begun')\n    {code}\nfinally: ended += 1")
    neighbour = vm.eval("gate.wait()\nreturn 'neighbour'", thread=True)
    if "call_sync" in code:
        vm.expect(CALL)
    if "to_thread" in code:
        # Its loop waits for it, as everywhere.
        vm.send(CANCEL, request)
        vm.run("gate.set()")
        ended(vm, request)
    else:
        cancel(vm, request)
    assert vm.run("gate.set()\nreturn ended") == 1
    assert vm.reply(neighbour) == b"neighbour"
    assert vm.answers(request) == []
    assert run(vm, "return 1") == 1
    vm.finish()


@pytest.mark.interrupts
@raises_in_threads
def test_the_exception_is_cancelled(vm: VM) -> None:
    request = begun(
        vm,
        "import time\n"
        "try:\n    print('begun')\n    while True: time.sleep(0.001)\n"
        "except snex.Cancelled as e: seen = repr(e), type(e).__module__, type(e).__qualname__",
    )
    cancel(vm, request)
    assert vm.run("return seen") == (b"Cancelled()", b"snex", b"Cancelled")


def test_awaiting_code_may_take_its_time_to_clean_up(vm: VM) -> None:
    request = begun(
        vm,
        "import asyncio\n"
        "try: print('begun'); await asyncio.sleep(1000)\n"
        "finally:\n"
        "    for n in range(20): await asyncio.sleep(0.01)\n"
        "    cleaned = n",
    )
    cancel(vm, request)
    assert vm.run("return cleaned") == 19


@pytest.mark.interrupts
def test_one_that_has_not_begun_does_not_begin(vm: VM) -> None:
    vm.run("began = []")
    for _ in range(50):
        request = vm.eval(
            "began.append(1)\nimport time\nwhile True: print(time.sleep(0.001))", thread=True
        )
        cancel(vm, request)
    assert run(vm, "return len(began) <= 50") is True


@pytest.mark.interrupts
def test_c_code_that_does_not_return_is_not_heard_of_until_it_does(vm: VM) -> None:
    vm.run(
        "import collections, operator, threading\n"
        "inside, gate = threading.Lock(), threading.Lock()\n"
        "gate.acquire()"
    )
    # No Python code runs between the two.
    code = "collections.deque(map(operator.methodcaller('acquire'), [inside, gate]), 0)"
    request = vm.eval(code, thread=True)
    wait_until(lambda: vm.run("return inside.locked()"))
    vm.send(CANCEL, request)
    vm.send(CANCEL, request | PROBE)
    # The event loop answers; for the thread nobody can.
    for number in range(20):
        code = "import asyncio\nawait asyncio.sleep(0.01)\nreturn n"
        assert vm.run(code, variables={"n": number}) == number
    assert [f for f in vm.pending if f[0] == CANCELLED] == []
    vm.run("gate.release()")
    ended(vm, request)
    ended(vm, request | PROBE)


@pytest.mark.interrupts
def test_a_cancelled_request_never_harms_the_next_one_in_its_thread(vm: VM) -> None:
    codes = [
        "x = 0\nfor i in range({n}): x += i\nreturn {n}",
        "for i in range({n}): print(i)\nreturn {n}",
        "import time\nfor _ in range(3): time.sleep(0.0001)\nreturn {n}",
        "import asyncio\nasync def f():\n    for _ in range({n} % 30): await asyncio.sleep(0)\n"
        "asyncio.run(f())\nreturn {n}",
        "import asyncio\nfor _ in range({n} % 30): await asyncio.sleep(0)\nreturn {n}",
        "snex.call_sync('a', 'b', [])\nreturn {n}",
    ]
    vm.run("import asyncio")
    for _ in range(300):
        n = random.randrange(300)
        code = random.choice(codes).format(n=n)
        request = vm.eval(code, None, thread=True)
        victim = random.random() < 0.7
        for _ in range(random.randrange(4) if victim else 0):
            # A moment later.
            answer(vm, vm.eval("return 0"))
        if victim:
            vm.send(CANCEL, request)
            answer(vm, request, CANCELLED)
        else:
            assert answer(vm, request) == (RESULT, n)
        vm.pending.clear()
    assert run(vm, "print('alive')\nreturn 1") == 1
    vm.finish()


def answer(vm: VM, request: int, *kinds: int) -> tuple[int, Any]:
    """Wait for the answer to a request. Calls are answered meanwhile."""
    kinds = kinds or (RESULT, ERROR)
    while True:
        for kind, number, body in vm.pending:
            if number == request and kind in kinds:
                return kind, decode(body) if body else None
        kind, number, body = vm.read()
        if kind == CALL:
            vm.send(CALL_RESULT, number, pickle.dumps(None))
        else:
            vm.pending.append((kind, number, body))


@pytest.mark.interrupts
@raises_in_threads
def test_at_the_end_what_runs_in_threads_is_cancelled_and_cleans_up(vm: VM) -> None:
    code = "import os, time\ntry:\n    print('begun')\n    while True: time.sleep(0.001)\nfinally: os.write(2, b'cleaned')"
    begun(vm, code)
    vm.finish()
    assert vm.errors() == "cleaned"


def test_at_the_end_nobody_waits_for_a_thread_that_does_not_come_back(vm: VM) -> None:
    begun(
        vm,
        "import threading\nprint('begun')\nl = threading.Lock()\nl.acquire()\nl.acquire()",
    )
    vm.finish()
    assert vm.errors() == ""


@pytest.mark.parametrize(("end", "status"), [("pass", 0), ("raise SystemExit(3)", 3), ("1 / 0", 1)])
def test_a_child_forked_there_ends_as_its_code_says(vm: VM, end: str, status: int) -> None:
    code = (
        "import os, warnings\nwarnings.simplefilter('ignore')\n"
        f"pid = os.fork()\nif not pid: {end}\n"
        "else: return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
    )
    assert run(vm, code) == status
    assert run(vm, "return 1") == 1


# As another user where we are root, whom no limit concerns.
NO_THREADS = """
import os, resource
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
if os.getuid() == 0: os.setresuid(54321, 54321, 54321)
"""


@pytest.mark.skipif(MEASURED, reason="another user cannot write what `coverage` notes")
def test_a_thread_that_cannot_be_started_is_an_error_of_the_call(vm: VM) -> None:
    vm.run(NO_THREADS)
    for _ in range(3):
        with pytest.raises(PythonError, match="can't start new thread"):
            run(vm, "return 1")
    assert vm.run("return 1") == 1
    vm.finish()
    assert vm.errors() == ""


@pytest.mark.interrupts
def test_interrupts_need_no_thread(vm: VM) -> None:
    vm.run(NO_THREADS)
    vm.run("seen = []")
    for _ in range(10):
        request = vm.eval(
            "try:\n    while True: print('x')\nexcept Exception as e: seen.append(str(e))"
        )
        while vm.read()[0] != PRINT:
            pass
        vm.send(CANCEL, request)
        while (CANCELLED, request, b"") not in vm.pending:
            vm.interrupt(request)
            with contextlib.suppress(TimeoutError):
                # What it has printed meanwhile.
                while (frame := vm.read(0.01))[0] == PRINT:
                    pass
                vm.pending.append(frame)
        vm.pending.clear()
    assert vm.run("return seen") == []
    vm.finish()
    assert vm.errors() == ""


@pytest.mark.interrupts
def test_the_end_needs_no_thread(vm: VM) -> None:
    vm.run(NO_THREADS)
    vm.eval("while True: print('x')")
    while vm.read()[0] != PRINT:
        pass
    assert vm.process.stdout is not None
    # Where it prints to in the end.
    stdout = vm.process.stdout.fileno()
    os.set_blocking(stdout, False)
    vm.hang_up()
    while vm.process.poll() is None:
        vm.terminate()
        with contextlib.suppress(TimeoutError, EOFError):
            vm.pending.append(vm.read(0.01))
        with contextlib.suppress(BlockingIOError):
            while os.read(stdout, 1 << 20):
                pass
    assert "Traceback" not in vm.errors()
