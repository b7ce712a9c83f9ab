"""Promises about what advances an iterator, with a pipe that is full or drained at will."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.etf import decode
from support.vm import wait_until

from snex._eval.batch import new_batch
from snex._eval.producer import Producer
from snex._eval.request import Cancelled, Request
from snex._wire.pressure import Pressure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Pipe(Pressure):
    """Takes frames, or is full."""

    def __init__(self, demand: int, *, full: bool) -> None:
        super().__init__(full=full)
        self.items: list[Any] = []
        self.frames: list[int] = []
        self.sent = threading.Event()
        self.request = Request(1)
        self.batch = new_batch(demand, 1 << 30, 0)
        self.producers: dict[int, Producer] = {}
        self.producer = Producer(
            self.request, self.batch, self.send, lambda _: self, self.producers
        )

    def send(self, request: Request, parts: Sequence[bytes | memoryview], before: int) -> None:
        assert request is self.request
        assert before == len(self.items)
        items = decode(b"".join(parts))
        self.items += items
        self.frames.append(len(items))
        self.sent.set()

    def drain(self) -> None:
        self.full = False
        self._wake_all()


def produced(pipe: Pipe, items: Any) -> tuple[threading.Thread, list[BaseException]]:
    """Produce in a thread."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            pipe.producer.produce(items)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, errors


def test_nothing_is_sent_into_a_full_pipe_until_it_is_drained() -> None:
    pipe = Pipe(10, full=True)
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(25):
            made.append(i)
            yield i

    thread, errors = produced(pipe, numbers())
    # All that may be collected, and no more.
    wait_until(lambda: len(made) == 10 and pipe.batch.is_full)
    assert pipe.items == []
    pipe.drain()
    wait_until(lambda: pipe.items == list(range(10)))
    assert pipe.frames == [10]
    while thread.is_alive():
        while pipe.frames:
            pipe.producer.credit(pipe.frames.pop(0))
        thread.join(0.001)
    assert pipe.items == list(range(25))
    assert (pipe.request.items, pipe.producers, errors) == (25, {}, [])


def test_the_rest_is_sent_at_the_end_and_nobody_is_woken_for_what_has_ended() -> None:
    pipe = Pipe(10, full=True)
    thread, errors = produced(pipe, range(3))
    thread.join()
    assert (pipe.items, errors) == ([0, 1, 2], [])
    assert not pipe._waiters


@pytest.mark.parametrize("full", [False, True])
def test_who_waits_for_room_is_stopped_at_once(full: bool) -> None:  # noqa: FBT001
    pipe = Pipe(2, full=full)
    exits: list[int] = []

    def numbers() -> Iterator[int]:
        try:
            while True:
                yield 1
        except GeneratorExit:
            exits.append(threading.get_ident())

    thread, errors = produced(pipe, numbers())
    wait_until(lambda: pipe.batch.is_full)
    ident = thread.ident
    pipe.producer.stop()
    thread.join()
    assert exits == [ident]
    assert [type(error) for error in errors] == [Cancelled]
    assert not pipe._waiters


@pytest.mark.parametrize("kind", ["async", "ordinary"])
def test_on_an_event_loop_others_have_their_turn(kind: str) -> None:
    pipe = Pipe(1 << 20, full=False)
    turns = 0

    def compute() -> None:
        # So long that all items take many slices.
        until = time.monotonic() + 0.0002
        while time.monotonic() < until:
            pass

    async def numbers() -> Any:
        for i in range(1000):
            compute()
            yield i

    def ordinary() -> Iterator[int]:
        for i in range(1000):
            compute()
            yield i

    async def run() -> None:
        nonlocal turns
        make: Callable[[], Any] = (
            (lambda: pipe.producer.produce_async(numbers()))
            if kind == "async"
            else (lambda: pipe.producer.produce_here(ordinary()))
        )
        task = asyncio.create_task(make())
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        await task

    asyncio.run(run())
    assert turns > 2
    assert pipe.items == list(range(1000))


def test_credit_from_another_thread_loses_nothing() -> None:
    for demand in (1, 2, 7, 256):
        pipe = Pipe(demand, full=False)
        thread, errors = produced(pipe, iter(range(3000)))
        while thread.is_alive():
            pipe.sent.wait(0.01)
            pipe.sent.clear()
            while pipe.frames:
                pipe.producer.credit(pipe.frames.pop(0))
        assert (pipe.items, errors) == (list(range(3000)), [])
