"""Promises about streams that end early, badly, or not at all."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
from support.streams import stream, stream_call
from support.vm import CALL, CALL_RESULT, CANCEL, LOOP, PRINT, THREAD, VM, PythonError, wait_until

from snex._pypy import PYPY

if TYPE_CHECKING:
    from pathlib import Path

PLACES = [0, THREAD, LOOP]
AWAIT = "import asyncio\nawait asyncio.sleep(0)\n"
HOOK = (
    "import sys\nseen = []\n"
    "sys.unraisablehook = lambda args: seen.append((args.exc_type.__name__, str(args.exc_value)))"
)


@pytest.mark.interrupts
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wait", ["", AWAIT])
def test_a_generator_is_closed_by_the_thread_that_advances_it(
    vm: VM, place: int, wait: str
) -> None:
    vm.run("import threading\nthreads = set()\nexits = 0")
    code = (
        f"{wait}try:\n    while True:\n        threads.add(threading.get_ident())\n        yield 1\n"
        "except GeneratorExit:\n    exits += 1\n    threads.add(threading.get_ident())"
    )
    for taken in (False, True):
        endless = stream(vm, code, demand=3, flags=place)
        endless.wait_for(2)
        if taken:
            endless.take()
        vm.cancel(endless.request)
    # A task that awaits at that moment is cancelled there instead.
    assert vm.run("return exits") == 2 or wait
    assert vm.run("return len(threads)") in {1, 2}
    assert vm.run("return 1") == 1


@pytest.mark.interrupts
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wait", ["", AWAIT])
@pytest.mark.parametrize(
    ("reaction", "error"),
    [
        ("pass", (b"RuntimeError", b"ignored GeneratorExit")),
        ("raise KeyError('closing')", (b"KeyError", b"'closing'")),
        ("raise KeyboardInterrupt", (b"KeyboardInterrupt", b"")),
        ("raise SystemExit(3)", (b"SystemExit", b"3")),
    ],
)
def test_generators_that_ignore_their_end_or_fail_in_it_disturb_nobody(
    vm: VM, place: int, wait: str, reaction: str, error: tuple[bytes, bytes]
) -> None:
    vm.run(HOOK)
    code = (
        f"{wait}while True:\n    try: yield 1\n"
        f"    except GeneratorExit:\n        {reaction}\n        yield 2"
    )
    bad = stream(vm, code, demand=2, flags=place)
    bad.wait_for(2)
    vm.cancel(bad.request)
    ((kind, message),) = vm.run("return seen")
    assert (kind, error[1] in message) == (error[0], True)
    assert stream(vm, "yield 1").all() == [1]


def test_without_a_hook_of_the_users_it_is_printed(vm: VM) -> None:
    code = "try: yield 1\nfinally: 1 / 0"
    bad = stream(vm, code + "\nyield 2", demand=1)
    bad.wait_for(1)
    vm.cancel(bad.request)
    vm.finish()
    printed = vm.printed(bad.request, 2) + vm.errors().encode()
    assert b"snex: Exception ignored while a generator was closed: <generator object" in printed
    assert b'File "<Snex.Code>", line 2, in <module>' in printed
    assert b"Cancelled" not in printed


@pytest.mark.interrupts
@pytest.mark.skipif(PYPY, reason="PyPy cannot raise an exception in another thread")
@pytest.mark.parametrize("place", PLACES)
def test_code_that_does_not_yield_is_interrupted(vm: VM, place: int) -> None:
    vm.run("import time\nended = 0")
    code = (
        "yield 1\ntry:\n    print('begun')\n    while True: time.sleep(0.001)\n"
        "finally: ended += 1\nyield 2"
    )
    busy = stream(vm, code, flags=place)
    busy.wait_for(1)
    assert vm.expect(PRINT) == (busy.request, b"\x01begun\n")
    vm.cancel(busy.request)
    assert vm.run("return ended") == 1


@pytest.mark.interrupts
def test_code_that_awaits_for_ever_is_cancelled_there(vm: VM) -> None:
    vm.run("import asyncio\nended = []")
    code = (
        "yield 1\ntry:\n    print('begun')\n    await asyncio.sleep(1000)\n"
        "except asyncio.CancelledError: ended.append(1)\nyield 2\nyield 3"
    )
    for place in (0, THREAD):
        waits = stream(vm, code, flags=place)
        waits.wait_for(1)
        assert vm.expect(PRINT) == (waits.request, b"\x01begun\n")
        vm.cancel(waits.request)
        waits.look()
        assert waits.total is None
    assert vm.run("return ended") == [1, 1]


@pytest.mark.interrupts
def test_no_thread_is_left(vm: VM) -> None:
    for _ in range(5):
        ends = stream(vm, "while True: yield 1", demand=5)
        ends.wait_for(2)
        vm.cancel(ends.request)
    names = "return [t.name for t in __import__('threading').enumerate()]"
    assert len(vm.run(names)) <= 2
    assert vm.run("return len(__import__('gc').get_objects()) > 0") is True


def test_a_generator_that_runs_already_is_pythons_own_error(vm: VM) -> None:
    vm.run(
        "import threading\ngate = threading.Event()\nhere = threading.Event()\nclosed = 0\n"
        "def f():\n    global closed\n    try:\n        yield 1\n        here.set()\n        gate.wait()\n"
        "        yield 2\n    finally: closed += 1\n"
        "g = f()"
    )
    first = stream(vm, "return g")
    first.wait_for(1)
    vm.reply(vm.eval("here.wait()", thread=True))
    with pytest.raises(PythonError, match="generator already executing"):
        stream(vm, "return g").all()
    assert vm.run("gate.set()\nreturn closed") == 0
    assert first.all() == [1, 2]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wait", ["", AWAIT])
@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("raise SystemExit(3)", "3"),
        ("raise KeyboardInterrupt", "^"),
        ("raise StopIteration(5)", "raised StopIteration"),
        ("def f(): f()\nf()", "recursion"),
        ("raise MemoryError", "^"),
        ("raise GeneratorExit", "^"),
    ],
)
def test_whatever_a_generator_raises_is_its_error(
    vm: VM, place: int, wait: str, statement: str, match: str
) -> None:
    failing = stream(vm, f"{wait}yield 1\n{statement}", flags=place)
    with pytest.raises(PythonError, match=match):
        failing.all()
    assert failing.items == [1]
    assert vm.run("return 1") == 1


@pytest.mark.parametrize("place", PLACES)
def test_only_an_iterators_own_stop_is_its_end(vm: VM, place: int) -> None:
    vm.run(
        "def encoder(value): raise StopIteration(value)\n"
        "class C:\n    n = 0\n    def __iter__(self): return self\n"
        "    def __next__(self):\n        self.n += 1\n        if self.n > 3: raise StopIteration('more')\n"
        "        return self.n"
    )
    assert stream(vm, "return C()", flags=place).all() == [1, 2, 3]
    vm.run("snex.set_custom_encoder(encoder)")
    failing = stream(vm, "yield 1\nyield object()", flags=place)
    with pytest.raises(PythonError):
        failing.all()
    assert failing.items == [1]
    failing = stream(vm, "def f(): raise StopIteration\nf()\nyield 1", flags=place)
    with pytest.raises(PythonError):
        failing.all()


@pytest.mark.parametrize("place", PLACES)
def test_what_forks_in_a_generator_ends_the_child_at_its_next_item(
    vm: VM, place: int, tmp_path: Path
) -> None:
    vm.run("import os")
    code = (
        "yield 1\nchild = os.fork()\ntry:\n    yield 2\n"
        "finally:\n    if not child:\n        with open(path, 'w') as file: file.write('closed')\n"
        "yield os.waitpid(child, 0)[1]"
    )
    path = tmp_path / "child"
    assert stream(vm, code, {"path": str(path)}, flags=place).all() == [1, 2, 0]
    assert path.read_text() == "closed"
    assert vm.run("return 1") == 1


def test_a_child_of_async_code_ends_as_well(vm: VM, tmp_path: Path) -> None:
    path = tmp_path / "child"
    code = (
        f"{AWAIT}import os\nyield 1\nchild = os.fork()\ntry:\n    yield 2\n"
        "finally:\n    if not child:\n        with open(path, 'w') as file: file.write('closed')\n"
        "yield os.waitpid(child, 0)[1]"
    )
    assert stream(vm, code, {"path": str(path)}).all() == [1, 2, 0]
    assert path.read_text() == "closed"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wait", ["", AWAIT])
def test_the_end_of_the_interpreter_closes_generators(
    vm: VM, place: int, wait: str, tmp_path: Path
) -> None:
    path = tmp_path / "closed"
    code = f"{wait}try:\n    while True: yield 1\nfinally:\n    with open(path, 'w') as file: file.write('closed')"
    endless = stream(vm, code, {"path": str(path)}, flags=place)
    endless.wait_for(2)
    vm.finish()
    assert path.read_text() == "closed"
    endless.look()
    assert endless.total is None


def test_a_generator_that_blocks_does_not_keep_the_interpreter_from_its_end(vm: VM) -> None:
    blocks = stream(vm, "yield 1\nimport threading\nthreading.Event().wait()\nyield 2")
    blocks.wait_for(1)
    vm.finish()


def waiting(vm: VM) -> tuple[int, int]:
    """Return a request that waits on the event loop's thread, and its call."""
    request = vm.eval("return snex.call_sync('a', 'b', [])")
    return request, vm.expect(CALL)[0]


def test_nested_streams_are_served_during_a_wait(vm: VM) -> None:
    outer, call = waiting(vm)
    for code in ("yield from range(1000)", "return list(range(1000))", "return range(1000)"):
        assert stream(vm, code, cause=call).all() == list(range(1000))
    for code, place in (
        (f"{AWAIT}yield 1", 0),
        ("async def f(): yield 1\nreturn f()", 0),
        ("import asyncio\nreturn asyncio.sleep(0)", 0),
        ("yield 1", LOOP),
    ):
        with pytest.raises(PythonError, match="code that awaits cannot run here"):
            stream(vm, code, cause=call, flags=place).all()
    assert stream(vm, f"{AWAIT}yield 1", cause=call, flags=THREAD).all() == [1]
    vm.send(CALL_RESULT, call, pickle.dumps("answer"))
    assert vm.reply(outer) == b"answer"


def test_a_stream_gets_its_credit_while_the_event_loop_waits(vm: VM) -> None:
    endless = stream(vm, "i = 0\nwhile True:\n    i += 1\n    yield i", demand=4)
    endless.wait_for(2)
    outer, call = waiting(vm)
    endless.take()
    endless.wait_for(6)
    vm.send(CANCEL, endless.request)
    wait_until(lambda: reads_cancelled(vm, endless.request))
    vm.send(CALL_RESULT, call, pickle.dumps("answer"))
    assert vm.reply(outer) == b"answer"


def reads_cancelled(vm: VM, request: int) -> bool:
    try:
        vm.pending.append(vm.read(0.05))
    except TimeoutError:
        return False
    return any(entry[:2] == (0x89, request) for entry in vm.pending)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wait", ["", AWAIT])
def test_calls_and_prints_within_belong_to_the_request(vm: VM, place: int, wait: str) -> None:
    call = "await snex.call('a', 'b', [])" if wait else "snex.call_sync('a', 'b', [])"
    asks = stream(vm, f"{wait}for _ in range(3):\n    print('asks')\n    yield {call}", flags=place)
    for n in range(3):
        number, _ = vm.expect(CALL)
        assert vm.frames.causes[CALL, number] == asks.request
        vm.send(CALL_RESULT, number, pickle.dumps(n))
    assert asks.all() == [0, 1, 2]
    assert vm.printed(asks.request) == b"asks\n" * 3


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wait", ["", AWAIT])
def test_context_variables_and_names_are_kept(vm: VM, place: int, wait: str) -> None:
    vm.run(
        "import contextvars, decimal\nv = contextvars.ContextVar('v', default=0)\n"
        "decimal.getcontext().prec = 5"
    )
    code = (
        f"{wait}yield v.get()\nv.set(v.get() + 1)\nyield v.get()\ndecimal.getcontext().prec = 3\n"
        "name = 'set'\nyield str(+decimal.Decimal('1.2345678'))"
    )
    assert stream(vm, code, flags=place).all() == [0, 1, b"1.23"]
    assert vm.run("return v.get(), name, decimal.getcontext().prec") == (1, b"set", 3)
    assert stream(vm, code, flags=place).all() == [1, 2, b"1.23"]


def test_each_evaluation_of_no_environment_has_its_own_names(vm: VM) -> None:
    code = "x = n\nfor i in range(50):\n    yield x"
    both = [stream(vm, code, {"n": n}, env=None) for n in (1, 2)]
    assert [set(each.all()) for each in both] == [{1}, {2}]


def test_sources_and_places_are_those_of_the_code(vm: VM) -> None:
    code = (
        "import inspect\ndef f(): return 1  # here\nyield inspect.getsource(f)\n"
        "yield locals() is globals()\nyield __name__"
    )
    assert stream(vm, code).all() == [b"def f(): return 1  # here\n", True, b"__main__"]
    with pytest.raises(PythonError) as caught:
        stream(vm, "yield 1\nreturn 5\n1 +").all()
    assert "SyntaxError" in caught.value.fields["traceback"][-1]
    with pytest.raises(PythonError) as caught:
        vm.run("x = 1\nyield x")
    assert 'File "<Snex.Code>", line 2' in "".join(caught.value.fields["traceback"])
    assert "code that yields is for Snex.stream" in caught.value.fields["reason"]
    # Neither remembers the other's refusal.
    assert stream(vm, "x = 1\nyield x").all() == [1]


def test_missing_environments_and_functions_are_errors(vm: VM) -> None:
    for missing in (
        stream(vm, "yield 1", env=77),
        stream_call(vm, "no.such.function"),
        stream_call(vm, "range", "x"),
    ):
        with pytest.raises(PythonError):
            missing.all()


def test_bytes_in_flight_are_limited_and_a_large_item_goes_alone() -> None:
    with VM(hello={"buffer_limits": (1000, 2000)}) as vm:
        vm.ready()
        vm.run("made = 0")
        code = "for i in range(100):\n    made += 1\n    yield bytes(500)"
        limited = stream(vm, code)
        limited.wait_for(1)
        wait_until(lambda: vm.run("return made") == 4)
        assert len(limited.all()) == 100
        large = stream(vm, "for i in range(20): yield bytes(5000)")
        large.wait_for(1)
        assert large.frames == [1]
        items: Any = large.all()
        assert list(map(len, items)) == [5000] * 20
