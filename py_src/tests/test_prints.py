"""Promises about what Python prints."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.memory import TRACING
from support.vm import ERROR, PRINT, RESULT, VM, PythonError, decode
from test_writer import Bench, parse

from snex._eval.prints import STDERR, STDOUT, PrintBuffer, Printer, PrintStream
from snex._eval.request import Request, current
from snex._wire.frame import HEADER_SIZE
from snex._wire.vectored import writev as real_writev

if TYPE_CHECKING:
    from collections.abc import Iterator


def frames_of(vm: VM, request: int) -> list[bytes]:
    return [body for kind, number, body in vm.pending if (kind, number) == (PRINT, request)]


def test_a_print_is_one_frame_of_its_request(vm: VM) -> None:
    request = vm.eval("print('a', 'b', 3)\nprint('c', end='!\\n')")
    vm.reply(request)
    assert frames_of(vm, request) == [b"\x01a b 3\n", b"\x01c!\n"]


def test_prints_and_the_answer_share_a_descriptor_in_order(vm: VM) -> None:
    vm.sources = [vm.prints]
    requests = [vm.eval(f"print({i})\nprint({i}, end='')\nreturn {i}") for i in range(50)]
    failing = vm.eval("print('before')\n1/0")
    for i, request in enumerate(requests):
        assert vm.read() == (PRINT, request, b"\x01%d\n" % i)
        assert vm.read() == (PRINT, request, b"\x01%d" % i)
        kind, number, body = vm.read()
        assert (kind, number, decode(body)) == (RESULT, request, i)
    assert vm.read() == (PRINT, failing, b"\x01before\n")
    assert vm.read()[:2] == (ERROR, failing)
    # Who has not printed is answered on the other one.
    vm.sources = [vm.frames]
    assert vm.run("return 1") == 1


def test_calls_that_interleave_keep_their_prints_apart(vm: VM) -> None:
    source = (
        "import asyncio, random\n"
        "async def task():\n"
        "    for i in range(10):\n"
        "        print(name + f' task {i}\\n', end='')\n"
        "        await asyncio.sleep(0)\n"
        "def thread():\n"
        "    for i in range(10): print(name + f' thread {i}\\n', end='', flush=i % 2)\n"
        "t = asyncio.create_task(task())\n"
        "await asyncio.to_thread(thread)\n"
        "asyncio.get_running_loop().call_soon(print, name, 'callback')\n"
        "await t\n"
        "await asyncio.sleep(0)\n"
        "print(name, end=' last')"
    )
    requests = {
        n: vm.eval(source.replace("name", f"'n{n}'"), None, {"name": f"n{n}"}) for n in range(20)
    }
    for n, request in requests.items():
        vm.reply(request)
        lines = vm.printed(request).decode().splitlines()
        assert [x for x in lines if "task" in x] == [f"n{n} task {i}" for i in range(10)]
        assert [x for x in lines if "thread" in x] == [f"n{n} thread {i}" for i in range(10)]
        assert lines[-1] == f"n{n} last"
        assert len(lines) == 22
        assert vm.printed(0) == b""


def test_a_flush_shows_a_line_that_has_no_end_yet(vm: VM) -> None:
    vm.run("import asyncio\nevent = asyncio.Event()")
    request = vm.eval("print('half', end='', flush=True)\nawait event.wait()\nprint(' a line')")
    assert vm.expect(PRINT) == (request, b"\x01half")
    vm.run("event.set()")
    vm.reply(request)
    assert vm.printed(request) == b" a line\n"


def test_a_long_line_without_an_end_is_sent_before_it_ends(vm: VM) -> None:
    request = vm.eval("for _ in range(5000): print('0123456789', end='')\nwhile True: pass")
    seen = 0
    while seen < 40_000:
        number, body = vm.expect(PRINT)
        assert number == request
        seen += len(body) - 1


def test_the_two_streams_keep_their_order(vm: VM) -> None:
    request = vm.eval(
        "import sys\n"
        "print('a', end='')\nprint('b', end='', file=sys.stderr)\nprint('c')\nsys.stderr.write('d')"
    )
    vm.reply(request)
    assert frames_of(vm, request) == [b"\x01a", b"\x02b", b"\x01c\n", b"\x02d"]


def test_the_streams_are_as_good_as_real_ones(vm: VM) -> None:
    request = vm.eval(
        "import io, sys\n"
        "out = sys.stdout\n"
        "out.buffer.write(b'bytes\\xff')\n"
        "out.buffer.write(memoryview(bytearray(b' view\\n')))\n"
        "out.writelines(['two ', 'parts\\n'])\n"
        "n = out.write('lone \\ud800 \\u00e9\\r\\n')\n"
        "on_top = io.TextIOWrapper(out.buffer)\n"
        "on_top.write('wrapped')\n"
        "on_top.close()\n"
        "out.reconfigure(line_buffering=True)\n"
        "out.close()\n"
        "print()\n"
        "return [n, out.encoding, out.errors, out.isatty(), out.fileno(), sys.stderr.fileno(),"
        " out.writable(), out.readable(), out.name, out.mode, out is sys.__stdout__,"
        " isinstance(out, io.TextIOWrapper)]"
    )
    n, *rest = vm.reply(request)
    assert n == 10
    assert rest == [
        b"utf-8",
        b"backslashreplace",
        False,
        1,
        2,
        True,
        False,
        b"<stdout>",
        b"w",
        True,
        True,
    ]
    expected = b"bytes\xff view\ntwo parts\nlone \\ud800 \xc3\xa9\r\nwrapped\n"
    assert vm.printed(request) == expected


def test_what_c_code_and_children_write_goes_to_the_descriptor(vm: VM) -> None:
    request = vm.eval(
        "import faulthandler, os, subprocess, sys\n"
        "os.write(1, b'raw\\n')\n"
        "subprocess.run(['echo', 'child'], stdout=sys.stdout)\n"
        "faulthandler.dump_traceback()"
    )
    vm.reply(request)
    assert frames_of(vm, request) == []
    assert vm.process.stdout is not None
    assert vm.process.stdout.readline() == b"raw\n"
    assert vm.process.stdout.readline() == b"child\n"
    vm.finish()
    assert "most recent call first" in vm.errors()


def test_logging_belongs_to_the_request_that_logs(vm: VM) -> None:
    vm.run("import logging\nlogging.basicConfig(format='%(message)s')")
    request = vm.eval("logging.warning('careful')")
    vm.reply(request)
    assert vm.printed(request, STDERR) == b"careful\n"


def test_a_task_left_behind_prints_for_the_request_that_made_it(vm: VM) -> None:
    vm.run("import asyncio\nevent = asyncio.Event()")
    request = vm.eval(
        "async def f():\n    await event.wait()\n    print('late')\nasyncio.create_task(f())"
    )
    vm.reply(request)
    vm.run("event.set()")
    assert vm.expect(PRINT) == (request, b"\x01late\n")


@pytest.mark.skipif(
    bool(getattr(sys.flags, "thread_inherit_context", False)), reason="threads inherit the context"
)
def test_a_plain_thread_prints_for_nobody(vm: VM) -> None:
    vm.run("import threading\nt = threading.Thread(target=print, args=('x',))\nt.start()\nt.join()")
    assert vm.expect(PRINT) == (0, b"\x01x\n")


def test_what_unpickling_and_failing_print_belongs_to_the_request(vm: VM) -> None:
    request = vm.eval("class E(Exception):\n    def __str__(self): print('str')\nraise E")
    with pytest.raises(PythonError):
        vm.reply(request)
    assert set(vm.printed(request).splitlines()) == {b"str"}


def test_a_forked_child_prints_to_the_descriptor_and_nothing_twice(vm: VM) -> None:
    code = (
        "import os, sys\n"
        "log = sys.stdout\n"
        "print('parent', end='')\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    print('child')\n"
        "    sys.stdout.flush()\n"
        "    log.write('kept\\n')\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)"
    )
    request = vm.eval(code)
    vm.reply(request)
    assert vm.printed(request) == b"parent"
    assert vm.process.stdout is not None
    assert vm.process.stdout.readline() == b"child\n"
    assert vm.process.stdout.readline() == b"kept\n"


def test_what_was_printed_before_the_end_is_sent_and_the_rest_goes_to_the_descriptor(
    vm: VM,
) -> None:
    vm.sources = [vm.frames]
    vm.run(
        "import asyncio, atexit, sys\n"
        "atexit.register(print, 'atexit')\n"
        "async def f():\n"
        "    print('x' * 1_000_000, end='')\n"
        "    try: await asyncio.Event().wait()\n"
        "    finally: print('cancelled')\n"
        "t = asyncio.create_task(f())"
    )
    request = vm.next_id - 1
    vm.sources = [vm.prints, vm.frames]
    vm.finish()
    assert vm.printed(request) == b"x" * 1_000_000
    assert vm.process.stdout is not None
    assert vm.process.stdout.read() == b"cancelled\natexit\n"


def test_a_hundred_megabytes_pass_in_bounded_memory_and_hold_up_nobody(vm: VM) -> None:
    vm.run(TRACING + "import asyncio, sys\nwriter = sys.stdout.buffer._printer._writer")
    vm.sources = [vm.frames]
    line = 99_999
    printing = vm.eval(
        "trace()\n"
        f"def work():\n    for i in range(1000): print('x' * {line})\n"
        "await asyncio.to_thread(work)\n"
        "return peak()"
    )
    # The writer of the prints takes no more, and others are served all the same.
    until_still = (
        "sizes = [0]\n"
        "while not writer.full or len(set(sizes[-20:])) > 1:\n"
        "    sizes.append(writer._size)\n"
        "    await asyncio.sleep(0.01)\n"
        "return 1"
    )
    assert vm.run(until_still) == 1
    assert vm.run("return 2") == 2
    vm.sources = [vm.prints]
    seen = 0
    while (frame := vm.read())[0] == PRINT:
        seen += len(frame[2]) - 1
    assert seen == 1000 * (line + 1)
    assert frame[:2] == (RESULT, printing)
    assert decode(frame[2]) < 40_000_000


def test_one_giant_print_is_never_copied_as_a_whole(vm: VM) -> None:
    size = 50_000_000
    request = vm.eval(
        TRACING + f"import sys\ntext = 'é' * {size}\ntrace()\nprint(text)\nreturn peak()"
    )
    seen = 0
    while (frame := vm.read())[0] == PRINT:
        frame[2][1:].decode()
        seen += len(frame[2]) - 1
    assert seen == 2 * size + 1
    assert frame[:2] == (RESULT, request)
    assert decode(frame[2]) < 40_000_000


def test_a_print_that_blocks_the_loop_goes_on_when_it_is_read(vm: VM) -> None:
    vm.sources = [vm.frames]
    printing = vm.eval("for i in range(20): print('x' * 1_000_000)\nreturn 1")
    behind = vm.eval("return 2")
    vm.sources = [vm.prints, vm.frames]
    assert vm.reply(printing) == 1
    assert vm.reply(behind) == 2
    assert len(vm.printed(printing)) == 20 * 1_000_001


def test_blocking_code_shows_what_it_prints_although_the_pipe_was_full(vm: VM) -> None:
    vm.sources = [vm.frames]
    request = vm.eval(
        "import os, sys\nr, w = os.pipe()\nprint('x' * 1_000_000)\nwhile True: print('more')"
    )
    vm.sources = [vm.prints]
    seen = b""
    while not seen.endswith(b"more\n"):
        number, body = vm.expect(PRINT)
        assert number == request
        seen += body[1:]


def test_with_stdio_prints_travel_with_the_other_frames_in_order() -> None:
    with VM(stdio=True) as vm:
        vm.ready()
        request = vm.eval("import sys\nprint('one')\nprint('two', end='', file=sys.stderr)")
        assert vm.read() == (PRINT, request, b"\x01one\n")
        assert vm.read() == (PRINT, request, b"\x02two")
        assert vm.read()[:2] == (RESULT, request)


class Prints(Bench):
    def __init__(self) -> None:
        super().__init__()
        self.printer = Printer(self.writer)
        self.out = PrintStream(PrintBuffer(self.printer, STDOUT))


@pytest.fixture
def bench() -> Iterator[Prints]:
    b = Prints()
    yield b
    b.printer.closed = True
    b.loop.close()
    os.close(b.out_fd)
    os.close(b.in_fd)


def printed(frames: list[tuple[int, int, bytes]], request: int = 0) -> bytes:
    return b"".join(body[1:] for kind, number, body in frames if (kind, number) == (PRINT, request))


def test_a_print_in_the_middle_of_a_print_corrupts_nothing(
    bench: Prints, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a `__del__` or a signal handler would do it, in the innermost place there is.
    real = os.write
    depth = 0

    def write(fd: int, data: bytes) -> int:
        nonlocal depth
        depth += 1
        if depth < 4:
            print("inner", depth, file=bench.out, flush=True)
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    print("outer", file=bench.out)
    monkeypatch.undo()
    frames = parse(os.read(bench.in_fd, 10_000))
    assert [body for _, _, body in frames] == [
        b"\x01outer\n",
        *(b"\x01inner %d\n" % n for n in (1, 2, 3)),
    ]


def test_a_print_in_the_middle_of_a_write_does_not_wait_for_itself(
    bench: Prints, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = ["x" * 300_000]

    def writev(fd: int, parts: list[bytes]) -> int:
        while inner:
            print(inner.pop(), file=bench.out)
        return real_writev(fd, parts)

    monkeypatch.setattr("snex._wire.writer.writev", writev)
    bench.writer.write(RESULT, 1, [b"a" * 300_000])
    chunks = 300_001 // (64 * 1024) + 1
    frames = bench.everything(20 + 300_000 + 300_001 + chunks * 21 + 21)
    assert frames[0] == (RESULT, 1, b"a" * 300_000)
    assert printed(frames[1:]) == b"x" * 300_000 + b"\n"


def test_destructors_that_print_at_every_collection_neither_hang_nor_corrupt(
    bench: Prints,
) -> None:
    deleted: list[int] = []

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            deleted.append(1)
            print("deleted", file=bench.out)

    done = threading.Event()
    data = b""

    def read() -> None:
        nonlocal data
        while not (done.is_set() and data.endswith(b"END\n")):
            data += os.read(bench.in_fd, 1 << 16)

    def work() -> None:
        for i in range(300):
            Cycle()
            print("one", "two", file=bench.out)
            if i % 30 == 0:
                gc.collect()

    reader = threading.Thread(target=read)
    reader.start()
    # PyPy has no thresholds.
    threshold = gc.get_threshold() if hasattr(gc, "get_threshold") else None
    if threshold:
        gc.set_threshold(3, 1, 1)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    if threshold:
        gc.set_threshold(*threshold)
    done.set()
    print("END", file=bench.out)
    bench.printer.close(60)
    reader.join()
    text = printed(parse(data))
    assert text.count(b"deleted") == len(deleted) == 1200
    assert text.count(b"one") == text.count(b"two") == 1200


def test_threads_print_at_once_and_their_frames_do_not_mix(bench: Prints) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(number: int) -> None:
        current.set(Request(number))
        for i in range(200):
            print("x" * (i * 7), number, i, file=bench.out)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    expected = {
        n: b"".join(b"%s %d %d\n" % (b"x" * (i * 7), n, i) for i in range(200)) for n in range(1, 9)
    }
    frames = bench.everything(sum(map(len, expected.values())) + 8 * 200 * (HEADER_SIZE + 1))
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert {n: printed(frames, n) for n in expected} == expected


def test_an_answer_never_overtakes_the_print_of_another_thread(bench: Prints) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    rounds = 300
    stop = threading.Event()

    def noise() -> None:
        current.set(Request(1_000_000))
        while not stop.is_set():
            print("noise", end="", file=bench.out)
        bench.out.flush()

    data = b""

    def read() -> None:
        nonlocal data
        while not data.endswith(b"END\n"):
            data += os.read(bench.in_fd, 1 << 16)

    async def main() -> None:
        for n in range(1, rounds + 1):
            request = Request(n)
            current.set(request)
            await asyncio.to_thread(print, "x", end="", file=bench.out)
            bench.printer.answer(RESULT, 0, request, [b"r"])

    threads = [threading.Thread(target=noise), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    bench.loop.run_until_complete(main())
    stop.set()
    threads[0].join()
    print("END", file=bench.out)
    bench.printer.close(60)
    threads[1].join()
    bench.loop.run_until_complete(bench.loop.shutdown_default_executor())
    sys.setswitchinterval(interval)
    frames: list[Any] = [f for f in parse(data) if 0 < f[1] <= rounds]
    assert frames == [
        frame for n in range(1, rounds + 1) for frame in ((PRINT, n, b"\x01x"), (RESULT, n, b"r"))
    ]
