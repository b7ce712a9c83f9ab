"""Processes that tests start from an interpreter, and what they do there."""

import asyncio
import logging
import socket
import sys
import threading

import snex


async def work(sock: socket.socket) -> None:
    """Do a bit of everything over the interpreter's connection."""
    async with snex.serve(*await asyncio.open_connection(sock=sock)):
        await use()
    try:
        await snex.Elixir.Enum.sum([1])
    except RuntimeError as error:
        assert "closed" in str(error)
    else:
        raise AssertionError


async def use() -> None:
    """Use what a process with a connection can use."""
    sums = await asyncio.gather(*(snex.Elixir.Enum.sum([i, i]) for i in range(200)))
    assert sums == [2 * i for i in range(200)]
    # Bodies with buffers, and a layout that only the VM knows.
    assert len(await snex.call("Elixir.String", "duplicate", ["x", 3_000_000])) == 3_000_000
    opts = {"binary_as": "bytearray"}
    one = await snex.call("Elixir.String", "duplicate", ["y", 100_000], result_encoding_opts=opts)
    assert one == bytearray(b"y" * 100_000)
    assert await snex.call("Elixir.MapSet", "size", [{1, 2}]) == 2
    try:
        await snex.Elixir.Enum.sum("x")
    except snex.ElixirError as error:
        assert error.kind == "error"
    else:
        raise AssertionError
    assert await asyncio.to_thread(snex.call_sync, "Elixir.Enum", "max", [[3, 1]]) == 3
    await snex.send(snex.Atom("served_test"), "sent")
    await snex.cast("Elixir.Kernel", "send", [snex.Atom("served_test"), "cast"])


def run(sock: socket.socket) -> None:
    """Be the target of a process of `multiprocessing`."""
    asyncio.run(work(sock))


def call_without_connection() -> str:
    """Say how a call fails in a process that has no connection."""
    try:
        asyncio.run(snex.call("Elixir.Enum", "sum", [[1]]))
    except RuntimeError as error:
        return str(error)
    return "no error"


def connect(path: str) -> None:
    """Connect a worker of a pool: the event loop runs in a thread, tasks use the `_sync` functions."""
    connected = threading.Event()

    async def main() -> None:
        streams = await asyncio.open_unix_connection(path)
        await snex.serve_forever(*streams, on_ready=connected.set)

    threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
    connected.wait()


def add(a: int, b: int) -> int:
    """Add, in Elixir."""
    return snex.call_sync("Elixir.Kernel", "+", [a, b])


def log(message: str) -> None:
    """Log from a worker, on its main thread."""
    logger = logging.getLogger("worker")
    handler = snex.LoggingHandler()
    logger.addHandler(handler)
    logger.warning(message)
    logger.removeHandler(handler)


if __name__ == "__main__":
    run(socket.socket(fileno=int(sys.argv[1])))
