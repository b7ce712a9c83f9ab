"""Promises about signal handlers: user code has its own as in any Python, and ours stay in place."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from support.vm import PRINT, VM, PythonError

from snex._pypy import PYPY

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.interrupts


def printed(vm: VM, stream: int, wanted: bytes) -> bytes:
    """Wait until something has been printed, by nobody's request or by one's."""
    seen = b""
    while wanted not in seen:
        _, body = vm.expect(PRINT)
        if body[0] == stream:
            seen += body[1:]
    return seen


def blocked(vm: VM, code: str = "import time\ntime.sleep(1000)") -> int:
    request = vm.eval("print('begun')\n" + code)
    printed(vm, 1, b"begun\n")
    return request


@pytest.mark.parametrize(
    "change",
    [
        "signal.signal(signal.SIGINT, signal.SIG_DFL)",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "signal.signal(signal.SIGINT, lambda *_: None)",
        "for s in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "    signal.signal(s, signal.SIG_DFL)",
        "for s in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "    signal.signal(s, signal.SIG_IGN)",
        "for s in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "    signal.signal(s, lambda *_: None)\n    signal.siginterrupt(s, False)",
        "import asyncio\nloop = asyncio.get_running_loop()\nloop.add_signal_handler(signal.SIGINT, print)",
        "import asyncio\nloop = asyncio.get_running_loop()\nloop.add_signal_handler(signal.SIGTERM, print)\n"
        "loop.remove_signal_handler(signal.SIGTERM)",
        "import faulthandler\nfaulthandler.register(signal.SIGUSR1, chain=True)\nfaulthandler.enable()",
        "import socket\na, b = socket.socketpair()\nb.setblocking(False)\nsignal.set_wakeup_fd(b.fileno())",
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
        "signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGURG, signal.SIGTERM])",
    ],
)
def test_whatever_a_library_does_to_signals_a_call_is_interrupted_and_python_lives(
    vm: VM, change: str
) -> None:
    # In the call itself, and in one that comes later.
    vm.cancel(blocked(vm, f"import signal, time\n{change}\ntime.sleep(1000)"))
    vm.cancel(blocked(vm, "while True: pass"))
    assert vm.run("return 1") == 1
    # Sent to all processes by a machine that shuts down.
    vm.process.send_signal(signal.SIGTERM)
    assert vm.run("return 2") == 2
    vm.finish()


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGURG", "SIGUSR1", "SIGALRM"])
def test_handlers_are_seen_and_called_as_in_any_python(vm: VM, number: str) -> None:
    code = (
        "import signal, time\n"
        f"number = signal.{number}\n"
        "before = signal.getsignal(number)\n"
        "called = []\n"
        "def first(n, frame): called.append((n, frame.f_code.co_name))\n"
        "def second(n, frame): raise KeyError(n)\n"
        "a = signal.signal(number, first)\n"
        "b = signal.signal(number, second)\n"
        "try: signal.raise_signal(number)\n"
        "except KeyError as e: raised = e.args == (number,)\n"
        "c = signal.signal(number, signal.SIG_IGN)\n"
        "signal.raise_signal(number)\n"
        "d = signal.signal(number, before)\n"
        "signal.signal(number, first)\n"
        "signal.raise_signal(number)\n"
        "signal.signal(number, before)\n"
        "return [a is before, b is first, raised, c is second, d is signal.SIG_IGN,\n"
        "        signal.getsignal(number) is before, called == [(number, '<module>')]]"
    )
    assert vm.run(code) == [True] * 7


def test_the_handlers_at_the_start_are_those_of_any_python(vm: VM) -> None:
    code = (
        "import signal\n"
        "return [signal.getsignal(signal.SIGINT) is signal.default_int_handler,\n"
        "        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,\n"
        "        signal.getsignal(signal.SIGURG) is signal.SIG_DFL]"
    )
    assert vm.run(code) == [True] * 3


def test_mistakes_are_refused_as_in_any_python(vm: VM) -> None:
    for code, kind in (
        ("signal.signal(signal.SIGTERM, 'text')", "TypeError"),
        ("signal.signal(signal.SIGINT, None)", "TypeError"),
        # PyPy does not say that this has no effect.
        *([] if PYPY else [("signal.signal(signal.SIGKILL, print)", "OSError")]),
        ("signal.signal(1000, print)", "ValueError"),
        ("signal.getsignal(1000)", "ValueError"),
        ("await asyncio.to_thread(signal.signal, signal.SIGTERM, print)", "ValueError"),
        ("await asyncio.to_thread(signal.signal, signal.SIGUSR1, print)", "ValueError"),
    ):
        with pytest.raises(PythonError) as caught:
            vm.run(f"import asyncio, signal\n{code}")
        assert caught.value.fields["exception"]["type"] == kind, code


def test_an_interrupt_from_the_keyboard_is_an_error_of_the_call_that_runs(vm: VM) -> None:
    for code in (
        "signal.raise_signal(signal.SIGINT)",
        "_thread.interrupt_main()\nwhile True: pass",
    ):
        with pytest.raises(PythonError) as caught:
            vm.run(f"import _thread, signal\n{code}")
        assert caught.value.fields["exception"]["type"] == "KeyboardInterrupt"
    assert vm.run("return 1") == 1


@pytest.mark.parametrize(
    "error",
    [
        "ValueError('x')",
        "SystemExit(3)",
        "KeyboardInterrupt()",
        "snex.Cancelled()",
        "MemoryError()",
    ],
)
def test_a_handler_that_raises_while_nothing_runs_is_printed(vm: VM, error: str) -> None:
    vm.run(f"import signal\ndef handler(*_): raise {error}\nsignal.signal(signal.SIGUSR1, handler)")
    for _ in range(3):
        vm.process.send_signal(signal.SIGUSR1)
        seen = printed(vm, 2, error.split("(")[0].encode())
        assert b"SIGUSR1" in seen
        assert vm.run("return 1") == 1


def test_a_handler_that_raises_cannot_hide_behind_streams_and_hooks(vm: VM) -> None:
    vm.run(
        "import os, signal, sys\n"
        "def handler(*_):\n    os.write(1, b'x')\n    raise ValueError\n"
        "class Broken:\n    def __getattr__(self, name): raise KeyboardInterrupt\n"
        "def hook(*_): raise SystemExit\n"
        "sys.stderr = Broken()\nsys.excepthook = sys.unraisablehook = hook\n"
        "signal.signal(signal.SIGUSR1, handler)"
    )
    vm.process.send_signal(signal.SIGUSR1)
    assert vm.process.stdout is not None
    assert os.read(vm.process.stdout.fileno(), 1) == b"x"
    assert vm.run("return 1") == 1


def test_a_handler_that_raises_leaves_nothing_of_ours_half_done(vm: VM) -> None:
    vm.run(
        "import signal\n"
        "class Late(Exception): pass\n"
        "def handler(*_): raise Late\n"
        "signal.signal(signal.SIGALRM, handler)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)"
    )
    late = 0
    for number in range(1000):
        size = 100_000 if number % 20 == 0 else 3
        request = vm.eval("print(n)\nreturn x", None, {"n": number, "x": "x" * size})
        try:
            assert vm.reply(request) == b"x" * size
        except PythonError as error:
            assert error.fields["exception"]["type"] == "Late"  # noqa: PT017 - some are, some are not
            late += 1
        vm.pending = [f for f in vm.pending if f[0] != PRINT]
    while True:
        try:
            vm.run("signal.setitimer(signal.ITIMER_REAL, 0)")
            break
        except PythonError:
            continue
    assert vm.run("return 1") == 1
    assert late < 1000


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("awaits", ["", "import asyncio\nawait asyncio.sleep(0)\n"])
def test_a_handler_that_raises_while_an_error_is_encoded_costs_no_answer(
    vm: VM,
    awaits: str,
    thread: bool,  # noqa: FBT001
) -> None:
    # As if a signal had come in the encoder.
    code = (
        "from snex._eval import runner\n"
        "real = runner.encode\n"
        "def encode(*_):\n    runner.encode = real\n    raise TimeoutError\n"
        "runner.encode = encode\n"
        f"{awaits}1 / 0"
    )
    with pytest.raises(PythonError) as caught:
        vm.run(code, thread=thread)
    assert caught.value.fields["exception"]["type"] == "TimeoutError"
    assert caught.value.fields["exception"]["cause"]["type"] == "ZeroDivisionError"
    assert vm.run("return 1") == 1


PRINTS = ["print('x')", "sys.stdout.flush()"]
# Python itself swallows exceptions in some places of `logging`.
LOGS = "logging.getLogger().error('x')"
WITH_TIMER = (
    "import logging, signal, sys, time\n"
    "from snex._eval import handlers\n"
    "logging.getLogger().addHandler(snex.LoggingHandler())\n"
    "called = []\n"
    "def handler(*_): called.append(1)\n"
    "def failing(*_): raise TimeoutError\n"
    "def start(handler):\n"
    "    signal.signal(signal.SIGALRM, handler)\n"
    "    signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
    # Far longer than the timer takes, however fast the machine is.
    "    return time.monotonic() + 30\n"
    # As if the signal had come while something of ours was under way.
    "def put_off(handler):\n"
    "    signal.signal(signal.SIGALRM, handler)\n"
    "    handlers._due[signal.SIGALRM] = handler\n"
)


@pytest.mark.parametrize("prints", PRINTS)
def test_a_timer_ends_code_that_does_nothing_but_print(vm: VM, prints: str) -> None:
    vm.run(WITH_TIMER)
    with pytest.raises(PythonError) as caught:
        vm.run(
            f"until = start(failing)\nwhile time.monotonic() < until: sum(range(1000)); {prints}"
        )
    assert caught.value.fields["exception"]["type"] == "TimeoutError"


@pytest.mark.parametrize("prints", [*PRINTS, LOGS])
def test_a_handler_is_called_once_by_code_that_does_nothing_but_print(vm: VM, prints: str) -> None:
    vm.run(WITH_TIMER)
    code = (
        "until = start(handler)\n"
        f"while time.monotonic() < until:\n    sum(range(1000)); {prints}\n    if called: break\n"
        f"for _ in range(1000): {prints}\nreturn called"
    )
    assert vm.run(code) == [1]


@pytest.mark.parametrize("prints", [*PRINTS, LOGS])
def test_a_call_that_was_put_off_is_made_after_a_print(vm: VM, prints: str) -> None:
    vm.run(WITH_TIMER)
    code = (
        "import threading\n"
        "put_off(failing)\n"
        # Not in another thread.
        f"thread = threading.Thread(target=lambda: {prints})\nthread.start()\nthread.join()\n"
        f"try: {prints}\n"
        # Once.
        f"except TimeoutError:\n    {prints}\n    return True"
    )
    assert vm.run(code) is True


def test_a_call_that_was_put_off_is_none_of_a_handler_that_was_replaced(vm: VM) -> None:
    vm.run(WITH_TIMER)
    code = (
        "put_off(failing)\n"
        "signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
        "print('x')\n"
        "signal.signal(signal.SIGALRM, failing)\n"
        "print('x')\nreturn 1"
    )
    assert vm.run(code) == 1


@pytest.mark.parametrize(
    "code",
    [
        "loop.add_signal_handler(signal.SIGUSR1, fail)\nos.kill(os.getpid(), signal.SIGUSR1)",
        "loop.call_soon(fail)",
        "asyncio.ensure_future(fails())",
        "weakref.finalize(Thing(), fail)",
        "Thing.__del__ = lambda self: fail()\nThing()",
        pytest.param(
            "gc.callbacks.append(lambda *_: fail())\ngc.collect()\ngc.callbacks.clear()",
            marks=pytest.mark.skipif(PYPY, reason="PyPy has no gc.callbacks"),
        ),
        "kept = Thing()\nref = weakref.ref(kept, lambda _: fail())\ndel kept",
        "loop.set_exception_handler(lambda *_: fail())\nloop.call_soon(fail)",
        "threading.Thread(target=fail).start()",
    ],
)
@pytest.mark.parametrize("error", ["ValueError", "SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize("hooks", [False, True])
def test_what_code_has_left_behind_may_raise(vm: VM, code: str, error: str, hooks: bool) -> None:  # noqa: FBT001
    vm.run(
        "import asyncio, gc, os, signal, sys, threading, weakref\n"
        "loop = asyncio.get_running_loop() if False else asyncio.get_event_loop_policy().get_event_loop()\n"
        "class Thing: pass\n"
        f"def fail(): raise {error}\n"
        f"async def fails(): raise {error}\n"
        "def hook(*_): raise KeyboardInterrupt\n"
        + ("sys.excepthook = sys.unraisablehook = threading.excepthook = hook" if hooks else "")
    )
    try:
        vm.run(code + "\nawait asyncio.sleep(0)")
    except PythonError as raised:
        assert raised.fields["exception"]["type"] in {error, "KeyboardInterrupt"}  # noqa: PT017
    assert vm.run("await asyncio.sleep(0.01)\nreturn 1") == 1
    vm.finish()


def test_a_function_that_traces_may_raise(vm: VM) -> None:
    for where in ("settrace", "setprofile"):
        with pytest.raises(PythonError) as caught:
            vm.run(f"import sys\ndef f(*_): raise KeyError\nsys.{where}(f)\n(lambda: 1)()")
        assert caught.value.fields["exception"]["type"] == "KeyError"
        assert vm.run("return 1") == 1


def test_what_is_registered_for_the_end_may_raise(vm: VM) -> None:
    for error in ("ValueError", "SystemExit(9)", "KeyboardInterrupt"):
        vm.run(f"import atexit\ndef f(): raise {error}\natexit.register(f)")
    vm.finish()


def stop_with_sigterm(vm: VM) -> None:
    vm.hang_up()
    vm.process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("stop", [stop_with_sigterm, VM.hang_up])
def test_a_handler_for_sigterm_does_not_keep_python_alive(
    vm: VM, stop: Callable[[VM], None]
) -> None:
    vm.run("import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('mine'))")
    vm.process.send_signal(signal.SIGTERM)
    printed(vm, 1, b"mine\n")
    if stop is stop_with_sigterm:
        blocked(vm, "import time\nwhile True: time.sleep(0.01)")
    stop(vm)
    assert vm.wait() == 0


def test_no_signal_is_lost_on_the_way_into_a_forked_child(vm: VM) -> None:
    code = (
        "import os, signal, time\n"
        "def status():\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        for _ in range(1000): time.sleep(0.01)\n"
        "        os._exit(3)\n"
        "    os.kill(pid, signal.SIGTERM)\n"
        "    return os.waitpid(pid, 0)[1]\n"
        "return [*{status() for _ in range(300)}], [*signal.pthread_sigmask(signal.SIG_BLOCK, [])]"
    )
    assert vm.run(code) == ([signal.SIGTERM], [])


def test_a_forked_child_has_the_handlers_of_user_code(vm: VM) -> None:
    code = (
        "import os, signal, time\n"
        "def status(number, handler):\n"
        "    signal.signal(number, handler)\n"
        "    r, w = os.pipe()\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        os.write(w, b'x')\n"
        # One that comes just before a long sleep would not be noticed, as in any Python.
        "        while True: time.sleep(0.01)\n"
        "    os.read(r, 1)\n"
        "    os.kill(pid, number)\n"
        "    return os.waitpid(pid, 0)[1]\n"
        "def leave(*_): os._exit(7)\n"
        "return [status(signal.SIGTERM, signal.SIG_DFL), status(signal.SIGTERM, leave) >> 8,\n"
        "        status(signal.SIGUSR1, leave) >> 8, status(signal.SIGURG, leave) >> 8]"
    )
    assert vm.run(code) == [signal.SIGTERM, 7, 7, 7]
