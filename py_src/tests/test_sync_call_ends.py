"""Promises about the end of a wait on the event loop's own thread: cancelling, signals, the end of the VM."""

from __future__ import annotations

import os
import platform
import signal
import time

import pytest
from support.vm import CALL, CANCEL, CANCELLED, SEND, VM, PythonError
from support.waits import ASK, waiting


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
    assert "invalid input" in vm.errors()


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
