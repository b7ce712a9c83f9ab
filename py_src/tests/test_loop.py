from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from snex._loop import EagerLoop, new_loop


def test_the_loop_is_what_was_asked_for() -> None:
    for eager in (True, False):
        loop = new_loop(eager=eager)
        assert isinstance(loop, EagerLoop) is eager
        loop.close()


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
