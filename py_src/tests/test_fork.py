"""Promises about children that user code forks: they end as those of a script."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.vm import VM

# Plain Python has the same limit: asyncio forgets in the child which loop is running.
needs_child_tasks = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="a task of CPython 3.14 cannot await in a forked child"
)
FORK = "import asyncio, os, signal, sys\npid = os.fork()\nif not pid:\n"


def status(vm: VM, child: str) -> int:
    code = FORK + "".join(f"    {line}\n" for line in child.splitlines())
    return int(vm.run(code + "else: return os.waitpid(pid, 0)[1]"))


@pytest.mark.parametrize(
    ("child", "expected"),
    [
        ("pass", 0),
        ("return 17", 0),
        ("sys.exit()", 0),
        ("sys.exit(3)", 3),
        ("sys.exit(True)", 1),
        ("raise SystemExit(4)", 4),
        ("os._exit(5)", 5),
        ("sys.exit('why')", 1),
        ("1 / 0", 1),
        ("raise snex.Cancelled", 1),
        ("import atexit\natexit.register(os._exit, 6)", 6),
        pytest.param("await asyncio.sleep(0)\nsys.exit(7)", 7, marks=needs_child_tasks),
        ("async def f(): sys.exit(8)\nawait f()", 8),
    ],
)
def test_a_child_ends_with_its_own_status(vm: VM, child: str, expected: int) -> None:
    assert status(vm, child) == expected << 8
    # Nothing of it has reached the connection.
    assert vm.run("return 1") == 1
    vm.finish()


def test_a_child_that_is_interrupted_dies_of_it(vm: VM) -> None:
    assert status(vm, "raise KeyboardInterrupt") == signal.SIGINT


@pytest.mark.parametrize(
    "awaits", ["", pytest.param("await asyncio.sleep(0)\n", marks=needs_child_tasks)]
)
def test_the_traceback_of_a_child_is_on_standard_error(vm: VM, awaits: str) -> None:
    child = awaits + "print('printed')\nsys.stderr.write('said\\n')\nraise LookupError('lost')"
    assert status(vm, child) == 1 << 8
    assert status(vm, awaits + "sys.exit('why')") == 1 << 8
    vm.finish()
    errors = vm.errors()
    assert "said\n" in errors
    assert "Traceback (most recent call last):\n" in errors
    assert "LookupError: lost\n" in errors
    assert "why\n" in errors
    assert "_eval/runner.py" not in errors
    assert vm.process.stdout is not None
    assert vm.process.stdout.read() == b"printed\n"


def test_a_child_calls_the_hook_of_user_code(vm: VM) -> None:
    assert status(vm, "sys.excepthook = lambda *_: os._exit(9)\n1 / 0") == 9 << 8


def test_a_child_of_a_thread_ends_with_its_own_status(vm: VM) -> None:
    code = (
        "import asyncio, os, sys\n"
        "def work():\n"
        "    pid = os.fork()\n"
        "    if not pid: os._exit(3)\n"
        "    return os.waitpid(pid, 0)[1] >> 8\n"
        "return await asyncio.to_thread(work)"
    )
    assert vm.run(code) == 3


@pytest.mark.skipif(sys.version_info < (3, 14), reason="older Pythons let it await")
def test_a_child_that_awaits_ends_with_an_error(vm: VM) -> None:
    assert status(vm, "await asyncio.sleep(0)") == 1 << 8
    vm.finish()
    assert "is not the running loop" in vm.errors()


@needs_child_tasks
def test_a_child_answers_for_nobody_else(vm: VM) -> None:
    other = vm.eval("import asyncio\nawait asyncio.sleep(0.02)\nprint('other')\nreturn 'other'")
    waiting = vm.eval(
        FORK + "    for _ in range(5): await asyncio.sleep(0)\n    sys.exit(3)\n"
        "return os.waitpid(pid, 0)[1] >> 8"
    )
    queued = [vm.eval("print('once')\nreturn 1") for _ in range(20)]
    assert vm.reply(waiting) == 3
    assert vm.reply(other) == b"other"
    assert [vm.reply(request) for request in queued] == [1] * 20
    assert sum(len(vm.printed(request)) for request in queued) == 20 * 5
    vm.finish()
