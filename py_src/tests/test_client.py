from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from support.etf import decode
from support.vm import CALL, CALL_RESULT, CAST

from snex._elixir.answers import Answer
from snex._elixir.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeWriter:
    def __init__(self) -> None:
        self.full = False
        self.broken = False
        self.frames: list[tuple[int, int, Any]] = []
        self.waiters: list[Callable[[], None]] = []

    def write(
        self, kind: int, number: int, parts: list[bytes], _flags: int = 0, _cause: int = 0
    ) -> None:
        self.frames.append((kind, number, decode(b"".join(parts))))

    def when_drained(self, wake: Callable[[], None]) -> bool:
        if self.full:
            self.waiters.append(wake)
        return self.full

    def forget(self, wake: Callable[[], None]) -> None:
        if wake in self.waiters:
            self.waiters.remove(wake)

    def drained(self) -> None:
        self.full = False
        for wake in self.waiters:
            wake()


def answer(value: object) -> Answer:
    return Answer(CALL_RESULT, pickle.dumps(value), ())


async def turns() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


def make() -> tuple[FakeWriter, Client]:
    writer: Any = FakeWriter()
    return writer, Client(writer, lambda _: None)


def test_requests_and_casts_wait_while_too_much_is_queued() -> None:
    async def main() -> None:
        writer, client = make()
        writer.full = True
        tasks = [
            asyncio.ensure_future(client.post(CAST, 1)),
            asyncio.ensure_future(client.request(CALL, 2)),
        ]
        given_up = asyncio.ensure_future(client.post(CAST, 3))
        await turns()
        assert writer.frames == []
        given_up.cancel()
        await turns()
        assert len(writer.waiters) == 2
        writer.drained()
        await turns()
        assert writer.frames == [(CAST, 0, 1), (CALL, 1, 2)]
        client.answer(1, answer("answer"))
        assert await asyncio.gather(*tasks) == [None, "answer"]

    asyncio.run(main())


def test_an_answer_to_nobody_is_dropped() -> None:
    async def main() -> None:
        _, client = make()
        task = asyncio.ensure_future(client.request(CALL, 1))
        await turns()
        assert 1 in client._waiting
        task.cancel()
        await turns()
        assert not client._waiting
        client.answer(1, answer(5))

    asyncio.run(main())


def test_after_the_end_requests_fail() -> None:
    async def main() -> None:
        _, client = make()
        task = asyncio.ensure_future(client.request(CALL, 1))
        await turns()
        client.close()
        for request in (task, client.request(CALL, 2), client.post(CAST, 3)):
            with pytest.raises(RuntimeError, match="closed"):
                await request

    asyncio.run(main())
