from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import pytest
from support.vm import CANCEL, CANCELLED, PRINT, VM, PythonError

from snex._eval.loop import new_loop


def test_callbacks_of_callbacks_run_before_the_next_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    loop: Any = new_loop(eager=True)
    polls = 0
    select = loop._selector.select

    def count(timeout: Any) -> Any:
        nonlocal polls
        polls += 1
        return select(timeout)

    monkeypatch.setattr(loop._selector, "select", count)
    seen: list[int] = []

    def chain(left: int) -> None:
        seen.append(polls)
        if left:
            loop.call_soon(chain, left - 1)
        else:
            loop.stop()

    loop.call_soon(chain, 10)
    loop.run_forever()
    loop.close()
    assert seen == [1] * 11


@pytest.mark.parametrize("eager", [True, False])
def test_endless_callbacks_starve_neither_descriptors_nor_timers(eager: bool) -> None:  # noqa: FBT001
    loop = new_loop(eager=eager)
    read, write = os.pipe()
    events: set[str] = set()

    def endless() -> None:
        if len(events) == 2:
            loop.stop()
        else:
            loop.call_soon(endless)

    def readable() -> None:
        events.add("descriptor")

    loop.add_reader(read, readable)
    loop.call_later(0.0, events.add, "timer")
    os.write(write, b"x")
    loop.call_soon(endless)
    loop.run_forever()
    loop.remove_reader(read)
    loop.close()
    os.close(read)
    os.close(write)
    assert events == {"descriptor", "timer"}


def test_cancelled_callbacks_do_not_run() -> None:
    loop = new_loop(eager=True)
    ran: list[int] = []

    def first() -> None:
        loop.call_soon(ran.append, 1).cancel()
        loop.call_soon(loop.stop)

    loop.call_soon(first)
    loop.run_forever()
    loop.close()
    assert ran == []


def test_tasks_work_as_ever() -> None:
    async def work() -> list[int]:
        async def one(i: int) -> int:
            await asyncio.sleep(0)
            return i

        return await asyncio.gather(*(one(i) for i in range(200)))

    loop = new_loop(eager=True)
    assert loop.run_until_complete(work()) == list(range(200))
    loop.close()


@pytest.mark.parametrize(
    ("factory", "why"),
    [
        ("no_such_module:loop", "No module named 'no_such_module'"),
        ("asyncio:no_such_function", "has no attribute 'no_such_function'"),
        ("asyncio", "expected 'module:function'"),
        ("builtins:dict", "to make an event loop, got {}"),
    ],
)
def test_a_factory_that_makes_no_loop_is_named(factory: str, why: str) -> None:
    with pytest.raises(RuntimeError, match=why) as caught:
        new_loop(eager=True, factory=factory)
    assert repr(factory) in str(caught.value)


def test_an_interpreter_ends_when_its_loop_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNEX_LOOP_FACTORY", "nowhere:at_all")
    with VM() as vm:
        assert vm.wait() == 64
        assert vm.process.stderr is not None
        assert (
            b"SNEX_LOOP_FACTORY: 'nowhere:at_all' cannot make an event loop"
            in vm.process.stderr.read()
        )


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="uvloop is made for CPython")
def test_uvloop_runs_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNEX_LOOP_FACTORY", "uvloop:new_event_loop")
    with VM() as vm:
        vm.ready()
        code = "import asyncio\nawait asyncio.sleep(0)\nreturn type(asyncio.get_running_loop()).__module__"
        assert vm.run(code) == b"uvloop"
        assert len(vm.run("return b'x' * 3_000_000")) == 3_000_000
        vm.hang_up()
        assert vm.wait() == 0


@pytest.mark.parametrize(
    "code",
    [
        "asyncio.get_running_loop().set_debug(True)",
        "asyncio.get_running_loop().set_exception_handler(lambda loop, context: 1 / 0)",
        "asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())\nasyncio.set_event_loop(None)",
        "asyncio.get_event_loop().call_soon(asyncio.get_event_loop().stop)",
        "asyncio.get_running_loop().set_task_factory(getattr(asyncio, 'eager_task_factory', None))",
    ],
)
def test_code_that_changes_the_loop_harms_nobody(vm: VM, code: str) -> None:
    vm.run("import asyncio, warnings\nwarnings.simplefilter('ignore')\n" + code)
    assert vm.run("return 1") == 1
    assert vm.run("await asyncio.sleep(0.001)\nreturn 2") == 2
    assert vm.run("return sum(await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2)))") == 3
    assert vm.reply(vm.eval("await asyncio.sleep(0)\nreturn 4", thread=True)) == 4
    with pytest.raises(PythonError, match="division by zero"):
        vm.run("await asyncio.sleep(0)\n1 / 0")
    request = vm.eval("print('begun')\nawait asyncio.sleep(1000)")
    vm.expect(PRINT)
    vm.send(CANCEL, request)
    assert vm.expect(CANCELLED)[0] == request
    vm.finish()
    assert "Traceback" not in vm.errors()
