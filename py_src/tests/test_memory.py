"""Promises about the end of an interpreter that has run out of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.vm import MEASURED, PRINT, VM, PythonError

from snex._pypy import PYPY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.mark import ParameterSet


@pytest.fixture
def limited() -> Iterator[VM]:
    with VM(hello={"end_on_memory_error": True}) as vm:
        vm.ready()
        yield vm


def reply(vm: VM, request: int) -> None:
    """Wait for an answer, also when the pipe of the other frames has ended by then."""
    try:
        vm.reply(request)
    except EOFError:
        vm.reply(request)


# As a limit of the option does, but at a point where Python has what it needs.
FILL = """
import resource
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
kept = []
size = 16 << 20
while size:
    try: kept.append(bytearray(size))
    except MemoryError: size //= 2
"""


def needs_all_memory(code: str) -> ParameterSet:
    return pytest.param(
        code,
        marks=[
            pytest.mark.skipif(MEASURED, reason="`coverage` needs memory of its own"),
            pytest.mark.skipif(
                PYPY, reason="PyPy aborts where there is no memory for small objects"
            ),
        ],
    )


@pytest.mark.parametrize(
    "code",
    [
        "print('said')\nraise MemoryError('all gone')",
        "import asyncio\nasync def f(): raise MemoryError\nawait asyncio.gather(f(), f())",
        "import asyncio\ndef f(): raise MemoryError\nawait asyncio.to_thread(f)",
        "return bytearray(1 << 62)",
        "def f(_): raise MemoryError\nsnex.set_custom_encoder(f)\nreturn object()",
        needs_all_memory(FILL + "x = []\nwhile True: x.append(str(len(x)))"),
        needs_all_memory(FILL + "return ['x' * 1000] * 1_000_000"),
    ],
)
def test_a_request_without_memory_is_answered_and_is_the_last(limited: VM, code: str) -> None:
    waiting = limited.eval("import asyncio\nawait asyncio.Event().wait()")
    with pytest.raises(PythonError) as caught:
        reply(limited, limited.eval(code))
    assert caught.value.fields["exception"]["type"] == "MemoryError"
    assert limited.wait() == 79
    assert limited.answers(waiting) == []
    assert limited.errors().count("MemoryError") <= 1


def test_what_it_has_printed_is_delivered(limited: VM) -> None:
    request = limited.eval("print('said')\nraise MemoryError")
    with pytest.raises(PythonError):
        reply(limited, request)
    assert (PRINT, request, b"\x01said\n") in limited.pending
    assert limited.wait() == 79


@pytest.mark.parametrize(
    "code",
    [
        "import threading\nthreading.Thread(target=fail).start()",
        "import asyncio\nasyncio.get_running_loop().call_soon(fail)\nawait asyncio.sleep(0)",
        "import asyncio, gc\nasync def f(): fail()\nt = asyncio.ensure_future(f())\n"
        "await asyncio.sleep(0)\ndel t\ngc.collect()",
    ],
)
def test_a_task_or_a_thread_that_nobody_waits_for_ends_it_too(limited: VM, code: str) -> None:
    limited.eval("def fail(): raise MemoryError\n" + code)
    assert limited.wait() == 79


def test_a_memory_error_that_code_has_caught_is_none(limited: VM) -> None:
    assert limited.run("try: raise MemoryError\nexcept MemoryError: return 1") == 1
    assert limited.run("return 2") == 2


def test_without_a_limit_it_is_an_error_like_any_other(vm: VM) -> None:
    with pytest.raises(PythonError):
        vm.run("raise MemoryError")
    assert vm.run("return 1") == 1


def test_what_cannot_even_be_read_ends_it_without_a_flood(vm: VM) -> None:
    vm.run(
        "import snex._wire.reader as r\n"
        "class Failing:\n"
        "    def __getattr__(self, name): raise MemoryError\n"
        "r.os = Failing()"
    )
    vm.eval("return 1")
    assert vm.wait() == 79
    assert vm.errors().count("MemoryError") <= 1


def test_a_request_in_a_thread_is_answered_and_is_the_last(limited: VM) -> None:
    request = limited.eval("raise MemoryError", thread=True)
    with pytest.raises(PythonError):
        reply(limited, request)
    assert limited.wait() == 79
