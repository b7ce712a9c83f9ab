"""Floors that Python measures alone: `floors.py NAME RUNS`. Prints nanoseconds, one for each run."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable

SIZE = 64 * 1024 * 1024
CHUNK = 1024 * 1024
PIPE_SIZE = 1031


def timed(runs: int, work: Callable[[], object]) -> list[int]:
    """Return the times of `work`, after one run that does not count. Garbage is collected in between."""
    times = []
    for _ in range(runs + 1):
        gc.collect()
        start = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - start)
    return times[1:]


def loads(value: object, runs: int) -> list[int]:
    """Unpickle, and nothing else."""
    data = pickle.dumps(value, 5)
    return timed(runs, lambda: pickle.loads(data))


def ints(runs: int) -> list[int]:
    return loads(list(range(1, 1_000_001)), runs)


def maps(runs: int) -> list[int]:
    tags = ["red", "round"]
    return loads(
        [{"id": i, "name": f"name {i}", "score": i / 7, "tags": list(tags)} for i in range(1, 100_001)], runs
    )


def pipe(runs: int) -> list[int]:
    """Read 64 MiB, which another Python writes, into a buffer that is there."""
    writer = (
        "import os, sys\n"
        f"data = bytes({SIZE})\n"
        "while sys.stdin.buffer.read(1):\n"
        "    view = memoryview(data)\n"
        "    while view:\n"
        f"        view = view[os.write(1, view[:{CHUNK}]):]\n"
    )
    child = subprocess.Popen([sys.executable, "-c", writer], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    fd = child.stdout.fileno()
    try:
        import fcntl

        fcntl.fcntl(fd, PIPE_SIZE, CHUNK)
    except OSError:
        pass
    buffer = bytearray(SIZE)

    def read() -> None:
        child.stdin.write(b"x")
        child.stdin.flush()
        with memoryview(buffer) as view:
            done = 0
            while done < SIZE:
                done += os.readv(fd, [view[done : done + CHUNK]])

    times = timed(runs, read)
    child.stdin.close()
    child.wait()
    return times


def pandas_frame() -> object:
    """Return 100,000 rows of six columns."""
    import numpy as np
    import pandas as pd

    count = 100_000
    numbers = np.arange(count)
    return pd.DataFrame(
        {
            "id": numbers,
            "score": numbers / 7,
            "name": [f"name {number}" for number in range(count)],
            "flag": numbers % 2 == 0,
            "at": pd.date_range("2026-01-01", periods=count, freq="s"),
            "colour": pd.Categorical.from_codes(numbers % 3, ["red", "green", "blue"]),
        }
    )


def frame(runs: int) -> list[int]:
    """Write a frame of pandas as an Arrow stream, and read that."""
    import pyarrow as pa
    import pyarrow.ipc

    value = pandas_frame()

    def work() -> None:
        table = pa.Table.from_pandas(value)
        sink = pa.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        pyarrow.ipc.open_stream(sink.getvalue()).read_all().to_pandas()

    return timed(runs, work)


def loop(runs: int) -> list[int]:
    """Unpickle a request, run its compiled code, pack the reply: all that a call needs but the way."""
    from snex._etf import encoder
    from snex._eval.code import compile_code
    from snex._eval.envs import Envs
    from snex._wire import body, frame

    request = pickle.dumps((1, "return 1", None, 1, {}), 5)
    envs = Envs()
    envs.make(1, [], {})
    count = 20_000

    def work() -> None:
        for number in range(count):
            env_id, source, file, line, variables = body.load(request, ())
            env = envs.get(env_id).names
            env.update(variables)
            parts = encoder.encode(compile_code(source, file, line).bind(env)())
            frame.encode_header(frame.RESULT, number, len(parts[0])) + parts[0]

    return [time // count for time in timed(runs, work)]


def each(runs: int) -> list[int]:
    """Unpickle each argument, call the function, encode each result."""
    from math import sqrt

    from snex._etf.encoder import encode

    arguments = [pickle.dumps(n, 5) for n in range(1, 1_000_001)]

    def work() -> None:
        loads = pickle.loads
        for argument in arguments:
            encode(sqrt(loads(argument)))

    return timed(runs, work)


def processors(runs: int) -> list[int]:
    """Run a loop alone, and then in as many processes at once as there are processors: two times for each run."""

    def spin() -> None:
        for _ in range(5_000_000):
            pass

    def together() -> None:
        children = []
        for _ in range(os.cpu_count() or 1):
            child = os.fork()
            if child == 0:
                spin()
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)

    times = []
    for _ in range(runs):
        times += timed(1, spin) + timed(1, together)
    return times


def start(runs: int) -> list[int]:
    """Start a Python that imports asyncio."""
    return timed(runs, lambda: subprocess.run([sys.executable, "-c", "import asyncio"], check=True))


if __name__ == "__main__":
    print(*globals()[sys.argv[1]](int(sys.argv[2])))
