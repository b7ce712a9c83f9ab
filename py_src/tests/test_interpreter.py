"""Promises about a whole interpreter, over real pipes."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.etf import A, MapSet, decode
from support.vm import (
    BUFFERS,
    CANCEL,
    CANCELLED,
    DROP,
    EVAL,
    HEADER,
    HELLO,
    PACKAGE,
    PRINT,
    READY,
    REFUSED,
    RESULT,
    VM,
    PythonError,
    frame,
    place,
    text,
    wait_until,
    with_buffers,
)

import snex
from snex._wire.frame import FIRST_HEADER_SIZE

if TYPE_CHECKING:
    from pathlib import Path


def test_ready_tells_who_answers() -> None:
    with VM() as vm:
        ready = vm.ready()
    assert ready["protocol"] == 4
    assert ready["version"] == snex.__version__
    assert ready["python"] == sys.version.split()[0]
    assert ready["implementation"] in {"CPython", "PyPy"}
    assert ready["pid"] == vm.process.pid
    assert ready["encoder"] == "pure"


def test_another_protocol_is_refused_with_both_versions() -> None:
    with VM(hello={"protocol": 9, "version": "9.8.7"}) as vm:
        _, body = vm.expect(REFUSED)
        fields = text(decode(body))
        assert vm.wait() == 76
    assert "9.8.7" in fields["reason"]
    assert fields["version"] == snex.__version__
    assert fields["protocol"] == 4


def test_names_live_on_in_the_environment(vm: VM) -> None:
    assert vm.run("x = 10") is None
    vm.run("y = x * z", variables={"z": 2})
    assert vm.run("return (x, y, z)") == (10, 20, 2)


def test_without_an_environment_a_copy_of_the_root_is_used_and_dropped(vm: VM) -> None:
    vm.run("x = 1")
    assert vm.run("x += 1\nreturn x", None) == 2
    assert vm.run("return x", None) == 1


def test_environments_copy_from_each_other(vm: VM) -> None:
    vm.run("base = 0")
    vm.make_env(1, [(0, 0, [])], {"a": 1, "b": 1})
    vm.make_env(2, [(0, 0, []), (1, 1, ["a"])], {"c": 3})
    vm.make_env(3, [(1, 2, ["a"]), (2, 0, [])], {"c": 4})
    look = "return {k: v for k, v in globals().items() if len(k) == 1 or k == 'base'}"
    assert vm.run(look, 2) == {b"base": 0, b"a": 1, b"c": 3}
    assert vm.run(look, 3) == {b"base": 0, b"a": 1, b"b": 1, b"c": 4}


def test_what_is_not_there_is_told_by_name(vm: VM) -> None:
    with pytest.raises(PythonError, match="17") as not_found:
        vm.run("return 1", 17)
    assert not_found.value.fields["code"] == "env_not_found"
    assert not_found.value.fields["exception"] is None
    with pytest.raises(PythonError, match="'nope'") as no_key:
        vm.make_env(1, [(0, 1, ["nope"])], {})
    assert no_key.value.fields["code"] == "env_key_not_found"


def test_dropped_environments_are_gone_and_their_functions_live_on(vm: VM) -> None:
    vm.make_env(1, [], {"x": 5})
    vm.run("import sys\ndef f(): return x\nsys.keep = f", 1)
    # Handles of objects, which nobody has, are given back as well.
    records = (
        struct.pack("<BQI", 0, 99, 1) + struct.pack("<BQI", 1, 1, 7) + struct.pack("<BQI", 0, 1, 1)
    )
    vm.send(DROP, 0, records)
    with pytest.raises(PythonError, match="1"):
        vm.run("return x", 1)
    assert vm.run("import sys\nreturn sys.keep()") == 5


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(3)",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "import asyncio\nraise asyncio.CancelledError",
        "import asyncio\nawait asyncio.sleep(0)\nraise SystemExit(3)",
        "import asyncio\nawait asyncio.sleep(0)\nraise KeyboardInterrupt",
        "import asyncio\nasyncio.current_task().cancel()\nawait asyncio.sleep(0)",
        "return object()",
        "return '\\ud800'",
        "l = []\nl.append(l)\nreturn l",
        "def f(): return f()\nf()",
        "raise ExceptionGroup('g', [ValueError()])"
        if sys.version_info >= (3, 11)
        else "raise ValueError",
        "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E",
        "this is no python",
        "a\0b",
        "import sys\nsys.exit()",
    ],
)
def test_whatever_code_raises_is_an_error_of_that_call_alone(vm: VM, code: str) -> None:
    with pytest.raises(PythonError) as caught:
        vm.run(code)
    assert caught.value.fields["code"] == "python_runtime_error"
    assert vm.run("return 1") == 1


def test_a_pickle_that_does_not_load_is_an_error_of_that_call(vm: VM) -> None:
    vm.send(EVAL, 100, b"junk")
    with pytest.raises(PythonError):
        vm.reply(100)
    vm.send(EVAL, 101, pickle.dumps(1))
    with pytest.raises(PythonError):
        vm.reply(101)
    assert vm.run("return 1") == 1


def test_buffers_arrive_as_what_they_are(vm: VM) -> None:
    contents = [b"one" * 100, "zwei é".encode() * 10_000, b"\0" * 300_000, b"four"]
    fields = (
        None,
        "return [type(x).__name__ for x in l] + l",
        None,
        1,
        {"l": [place() for _ in contents]},
    )
    vm.send(EVAL, 1, with_buffers(fields, list(enumerate(contents))), BUFFERS)
    assert vm.reply(1) == [b"bytes", b"str", b"bytearray", b"memoryview", *contents]


def test_a_buffer_that_is_not_utf8_is_an_error_of_that_call(vm: VM) -> None:
    fields = (None, "return 1", None, 1, {"x": place()})
    vm.send(EVAL, 1, with_buffers(fields, [(1, b"ab\xff")]), BUFFERS)
    with pytest.raises(PythonError, match="position 2") as caught:
        vm.reply(1)
    assert caught.value.fields["exception"]["type"] == "UnicodeDecodeError"
    assert vm.run("return 1") == 1


def test_long_bodies_travel_both_ways(vm: VM) -> None:
    size = 5_000_001
    assert vm.run("return x", variables={"x": b"x" * size}) == b"x" * size


def test_the_vms_layout_of_a_set_is_used() -> None:
    head = b"t\0\0\0\x03w\x0a__struct__w\x0dElixir.MapSetw\x07versiona\x02w\x03map"
    with VM(hello={"map_set": (head, b"j")}) as vm:
        vm.ready()
        request = vm.eval("return {1}")
        while (answer := vm.read())[1] != request:
            pass
    assert answer[2] == b"\x83" + head + b"t\0\0\0\x01a\x01j"
    assert decode(answer[2]) == MapSet(frozenset({1}))


def test_async_code_interleaves(vm: VM) -> None:
    vm.run("import asyncio\nevent = asyncio.Event()")
    waiting = vm.eval("await event.wait()\nreturn 'woken'")
    assert vm.run("return 'meanwhile'") == b"meanwhile"
    vm.run("event.set()")
    assert vm.reply(waiting) == b"woken"


def test_a_cancelled_request_is_cleaned_up_and_not_answered(vm: VM) -> None:
    vm.run("import asyncio\nstarted, ended = asyncio.Event(), asyncio.Event()")
    request = vm.eval(
        "started.set()\ntry:\n    await asyncio.Event().wait()\nfinally:\n    ended.set()\nreturn 1"
    )
    vm.run("await started.wait()")
    vm.send(CANCEL, request)
    vm.run("await ended.wait()")
    vm.run("await asyncio.sleep(0)")
    assert vm.answers(request) == [CANCELLED]


def test_a_request_that_swallows_its_cancellation_is_not_answered_either(vm: VM) -> None:
    vm.run("import asyncio\nstarted, ended = asyncio.Event(), asyncio.Event()")
    request = vm.eval(
        "started.set()\n"
        "try:\n    await asyncio.Event().wait()\nexcept asyncio.CancelledError:\n    ended.set()\n"
        "return 1"
    )
    vm.run("await started.wait()")
    vm.send(CANCEL, request)
    vm.run("await ended.wait()\nawait asyncio.sleep(0)")
    assert vm.answers(request) == [CANCELLED]


def test_cancelling_what_is_not_there_does_nothing(vm: VM) -> None:
    vm.send(CANCEL, 12345)
    assert vm.run("return 1") == 1
    assert vm.answers(12345) == [CANCELLED]


def test_code_that_cancels_every_task_leaves_nobody_without_an_answer(vm: VM) -> None:
    # One write, so that the second is scheduled but not begun when the first cancels all.
    source = "import asyncio\nfor t in asyncio.all_tasks(): t.cancel()\nreturn 1"
    bodies: list[Any] = [(0, "await nothing", None, 1, {}), (0, source, None, 1, {})]
    data = b""
    for number, fields in enumerate(bodies, 500):
        body = pickle.dumps(fields)
        data += frame(EVAL, number, body)
    os.write(vm.out_fd, data)
    assert vm.reply(501) == 1
    with pytest.raises(PythonError) as caught:
        vm.reply(500)
    assert caught.value.fields["exception"]["type"] == "CancelledError"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_an_eager_task_factory_does_no_harm(vm: VM) -> None:
    vm.run(
        "import asyncio\nasyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)"
    )
    assert vm.run("async def f(): return 3\nreturn await f()") == 3
    assert vm.run("await asyncio.sleep(0)\nreturn 4") == 4


def test_a_task_left_behind_may_exit_without_ending_the_interpreter(vm: VM) -> None:
    vm.run("import asyncio, sys\nasync def f(): sys.exit(1)\nt = asyncio.create_task(f())")
    assert vm.run("await asyncio.wait([t])\nreturn 1") == 1
    vm.finish()
    assert b"SystemExit" in vm.printed(0, 2)


def test_an_environment_holds_nothing_of_ours(vm: VM) -> None:
    names = vm.run("from os.path import *\nreturn sorted(k for k in globals() if k != 'join')")
    import posixpath

    expected = {"Elixir", "snex", *(n for n in posixpath.__all__ if n != "join")}
    assert {n.decode() for n in names if not n.startswith(b"__")} == expected


@pytest.mark.parametrize("stdio", [False, True])
def test_end_of_input_ends_python_in_good_order(stdio: bool) -> None:  # noqa: FBT001
    with VM(stdio=stdio) as vm:
        vm.ready()
        vm.run(
            "import asyncio, atexit, sys\n"
            "def say(text): print(text, file=sys.stderr, flush=True)\n"
            "atexit.register(say, 'atexit')\n"
            "async def f():\n"
            "    try: await asyncio.Event().wait()\n"
            "    finally: say('cancelled')\n"
            "t = asyncio.create_task(f())\n"
            "await asyncio.sleep(0)"
        )
        waiting = vm.eval("await asyncio.Event().wait()")
        assert waiting
        vm.hang_up()
        assert vm.wait() == 0
        assert vm.errors().splitlines() == ["cancelled", "atexit"]


def test_with_stdio_a_print_never_lands_among_the_frames() -> None:
    with VM(stdio=True) as vm:
        vm.ready()
        code = "import os\nos.write(1, b'raw\\n')\nos.system('echo child')\nprint('hello')"
        request = vm.eval(code)
        assert vm.reply(request) is None
        assert vm.printed(request) == b"hello\n"
        assert vm.run("return os.read(0, 1)") == b""
        vm.finish()
        assert vm.errors().splitlines() == ["raw", "child"]


def test_children_do_not_inherit_the_descriptors(vm: VM) -> None:
    code = (
        "import os, subprocess\n"
        "r = subprocess.run(['sh', '-c', 'ls /proc/self/fd 2>/dev/null || ls /dev/fd'],"
        " close_fds=False, capture_output=True)\n"
        "return [int(n) for n in r.stdout.split()]"
    )
    assert max(vm.run(code)) <= 4


def test_two_descriptors_serve_without_prints_and_interrupts() -> None:
    with VM(full=False) as vm:
        vm.ready()
        vm.run("print('one')")
        assert vm.process.stdout is not None
        assert vm.process.stdout.readline() == b"one\n"
        vm.send(CANCEL, 7)
        assert vm.expect(CANCELLED) == (7, b"")


def test_sigterm_is_ignored_while_the_vm_is_there(vm: VM) -> None:
    vm.process.send_signal(signal.SIGTERM)
    assert vm.run("return 1") == 1
    vm.hang_up()
    assert vm.wait() == 0


@pytest.mark.interrupts
def test_sigterm_ends_blocking_code_once_the_vm_is_gone(vm: VM) -> None:
    vm.run("import atexit, sys, time\natexit.register(print, 'atexit', file=sys.stderr)")
    vm.eval("print('blocked')\ntime.sleep(1000)")
    vm.expect(PRINT)
    vm.hang_up()
    vm.terminate()
    assert vm.wait() == 0
    assert vm.errors() == "atexit\n"


@pytest.mark.parametrize(
    ("garbage", "named"),
    [
        (b"Content-Type: text/plain", "Content-Type"),
        (b"oops", "oops"),
        (HEADER.pack(b"SX", 0x7F, 0, 1, 0, 0), "0x7f"),
        (HEADER.pack(b"SX", EVAL, 0x10, 1, 0, 0), "0x10"),
        (HEADER.pack(b"SX", EVAL, 1, 1, 4, 0) + b"\xff\xff\xff\xff", "4294967295"),
        (HEADER.pack(b"SX", EVAL, 1, 1, 13, 0) + struct.pack("<IBQ", 1, 9, 0), "table"),
        (HEADER.pack(b"SX", 1, 0, 1, 0, 0), "0x01"),
        (HEADER.pack(b"SX", DROP, 0, 0, 1, 0) + b"x", "DROP"),
        (frame(DROP, 0, struct.pack("<BQI", 2, 1, 1)), "DROP"),
    ],
)
def test_garbage_ends_the_interpreter_and_is_named(vm: VM, garbage: bytes, named: str) -> None:
    os.write(vm.out_fd, garbage)
    assert vm.wait() == 70
    assert named in vm.errors()


def test_frames_behind_garbage_are_not_looked_at(vm: VM) -> None:
    ready = frame(READY, 0)
    os.write(vm.out_fd, ready + ready + frame(DROP, 0, b"x"))
    assert vm.wait() == 70
    assert vm.errors() == "snex: invalid input: unknown frame kind 0x81\n"


@pytest.mark.parametrize(
    ("garbage", "named"),
    [
        (b"SSH-2.0-OpenSSH_9.6p1 whatever\n", "SSH-2.0"),
        (frame(EVAL, 1, b""), "unknown frame kind 0x02"),
        (
            frame(HELLO, 0, bytes((1 << 20) + 1))[:FIRST_HEADER_SIZE],
            "the HELLO frame has 1048577 bytes, more than the limit of 1048576",
        ),
        (frame(HELLO, 0, b"no pickle"), "the HELLO frame cannot be decoded"),
        (frame(HELLO, 0, pickle.dumps(["hello"])), "the HELLO frame is not a dict: ['hello']"),
    ],
)
def test_garbage_instead_of_hello_is_named_too(garbage: bytes, named: str) -> None:
    with VM(greet=False) as vm:
        os.write(vm.out_fd, garbage)
        assert vm.wait() == 70
        assert named in vm.errors()


def test_arguments_that_are_no_descriptors_are_told_what_they_should_be() -> None:
    for arguments in ([], ["3"], ["3", "four"]):
        command = [sys.executable, "-m", "snex", *arguments]
        done = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (64, "")
        assert done.stderr == "usage: python -m snex IN OUT [PRINTS INTERRUPTS]\n"


def test_half_a_hello_is_the_end() -> None:
    with VM(greet=False) as vm:
        os.write(vm.out_fd, frame(HELLO, 0, b"no pickle")[:-1])
        vm.hang_up()
        assert vm.wait() == 0
        assert vm.errors() == ""


def test_a_frame_cut_short_by_the_end_is_no_garbage(vm: VM) -> None:
    os.write(vm.out_fd, HEADER.pack(b"SX", EVAL, 0, 1, 1000, 0) + b"half")
    vm.hang_up()
    assert vm.wait() == 0
    assert vm.errors() == ""


def test_a_vm_that_reads_no_more_ends_python(vm: VM) -> None:
    os.close(vm.in_fd)
    vm.in_fd = -1
    vm.eval("return 1")
    assert vm.wait() == 0


def test_results_wait_for_a_slow_vm_in_order(vm: VM) -> None:
    big = 3_000_000
    requests = [vm.eval(f"return bytes([{i}]) * {big}") for i in range(10)]
    for i, request in enumerate(requests):
        kind, number, body = vm.read()
        assert (kind, number) == (RESULT, request)
        assert decode(body) == bytes([i]) * big


def test_a_forked_child_that_falls_through_ends_without_a_frame(vm: VM) -> None:
    assert vm.run("import os\nx = os.fork()\nif x: os.waitpid(x, 0)\nreturn x > 0") is True
    assert vm.run("return 1") == 1
    assert vm.pending == []


def test_a_forked_child_can_not_use_the_connection(vm: VM) -> None:
    code = (
        "import os\n"
        "r, w = os.pipe()\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    try: snex.send(1, 2).send(None)\n"
        "    except RuntimeError as e: os.write(w, str(e).encode())\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "return os.read(r, 1000)"
    )
    assert b"forked" in vm.run(code)


def test_a_forked_child_ends_on_sigterm(vm: VM) -> None:
    code = (
        "import os, signal, time\n"
        "r, w = os.pipe()\n"
        "pid = os.fork()\n"
        "if not pid:\n    os.write(w, b'x')\n    time.sleep(1000)\n    os._exit(0)\n"
        "os.read(r, 1)\n"
        "os.kill(pid, signal.SIGTERM)\n"
        "return os.WTERMSIG(os.waitpid(pid, 0)[1])"
    )
    assert vm.run(code) == signal.SIGTERM


def test_user_code_does_not_see_our_arguments(vm: VM) -> None:
    assert vm.run("import sys\nreturn sys.argv") == [b""]


def test_os_exit_does_end_the_interpreter(vm: VM) -> None:
    vm.eval("import os\nos._exit(9)")
    wait_until(lambda: vm.process.poll() is not None)
    assert vm.process.returncode == 9


def test_deep_values_travel(vm: VM) -> None:
    answer = vm.eval("l = []\nfor _ in range(100_000): l = [l]\nreturn l")
    while True:
        kind, number, body = vm.read()
        if number == answer:
            break
    assert kind == RESULT
    assert body == b"\x83" + b"l\0\0\0\x01" * 100_000 + b"j" * 100_001


def test_atoms_and_terms_come_and_go(vm: VM) -> None:
    values = {
        "a": snex.Atom("ok"),
        "d": snex.DistinctAtom("ok"),
        "t": snex.Term(b"\x83h\x01a\x05"),
    }
    assert vm.run("return (a, d, t, a == 'ok', d == 'ok')", variables=values) == (
        A("ok"),
        A("ok"),
        (5,),
        True,
        False,
    )


@pytest.mark.parametrize("eager", [True, False])
def test_both_kinds_of_loop_serve(eager: bool) -> None:  # noqa: FBT001
    with VM(hello={"eager": eager}) as vm:
        vm.ready()
        assert vm.run("import asyncio\nawait asyncio.sleep(0)\nreturn 1") == 1


def test_a_traceback_of_async_code_begins_with_the_users_code(vm: VM) -> None:
    with pytest.raises(PythonError) as caught:
        vm.run("import asyncio\nawait asyncio.sleep(0)\n1/0", file="lib/a.ex", line=10)
    lines = caught.value.fields["traceback"]
    assert lines[1].startswith('  File "lib/a.ex", line 12, in <module>\n    1/0\n')
    assert len(lines) == 3


def test_the_exception_of_a_task_left_behind_is_logged(vm: VM) -> None:
    vm.run(
        "import asyncio, gc\n"
        "async def f(): raise ValueError('left behind')\n"
        "t = asyncio.create_task(f())\n"
        "await asyncio.wait([t])\n"
        "del t"
    )
    vm.run("gc.collect()")
    vm.finish()
    assert b"left behind" in b"".join(body for kind, _, body in vm.pending if kind == PRINT)


def test_an_answer_does_not_wait_for_code_that_has_been_quick_so_far(
    vm: VM, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    vm.run("blocks = False")
    code = f"if blocks: return open({str(fifo)!r}).read()\nreturn 1"
    for _ in range(100):
        assert [vm.run(code), vm.run("blocks = True", None), vm.run("return 1")] == [1, None, 1]
    bodies = [pickle.dumps((0, c, None, 1, {})) for c in ("return 1", "blocks = True", code)]
    os.write(vm.out_fd, b"".join(frame(EVAL, 1001 + n, body) for n, body in enumerate(bodies)))
    assert [vm.reply(1001), vm.reply(1002)] == [1, None]
    # The third blocks until somebody writes.
    fifo.write_text("done")
    assert vm.reply(1003) == b"done"
