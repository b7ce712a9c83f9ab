"""The plain bridge, on Python's side: asyncio streams, `exec` of compiled code as a task, ETF back.

Frames have a length of four bytes, big-endian, as ports with `packet: 4` do. A request is a number of
four bytes and code; its reply is the number and the value of `result`, an integer, as an ETF term.
"""

import asyncio
import functools
import struct
import sys


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout.buffer)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    compiled = functools.cache(lambda code: compile(code, "<bridge>", "exec"))
    tasks = set()

    async def answer(number: bytes, code: bytes) -> None:
        env: dict[str, int] = {}
        exec(compiled(code), env)
        reply = number + struct.pack(">BBi", 131, 98, env["result"])
        writer.write(struct.pack(">I", len(reply)) + reply)
        await writer.drain()

    while True:
        try:
            (length,) = struct.unpack(">I", await reader.readexactly(4))
            body = await reader.readexactly(length)
        except asyncio.IncompleteReadError:
            return
        task = asyncio.create_task(answer(body[:4], body[4:]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
