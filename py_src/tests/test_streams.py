"""Promises about streams: generators and other iterators, item by item."""

from __future__ import annotations

from typing import Any

import pytest
from support.streams import Stream, stream, stream_call
from support.vm import AUTO, LOOP, OBJECT, THREAD, VM, PythonError, Ref, wait_until

PLACES = [0, THREAD, LOOP]
GENERATORS = [
    "for i in range({n}): yield i",
    "import asyncio\nfor i in range({n}):\n    await asyncio.sleep(0)\n    yield i",
    "yield from range({n})",
    "def f():\n    for i in range({n}): yield i\nreturn f()",
    "async def f():\n    for i in range({n}): yield i\nreturn f()",
    "return range({n})",
    "return list(range({n}))",
    "return iter(list(range({n})))",
    "return map(int, range({n}))",
    "import asyncio\nawait asyncio.sleep(0)\nreturn range({n})",
    "import asyncio\nawait asyncio.sleep(0)\nreturn map(int, range({n}))",
    "class C:\n    def __iter__(self): return iter(range({n}))\nreturn C()",
    "class C:\n    def __init__(self): self.n = -1\n"
    "    async def __anext__(self):\n        self.n += 1\n"
    "        if self.n == {n}: raise StopAsyncIteration\n        return self.n\n"
    "return C()",
    "class C:\n    async def f(self):\n        for i in range({n}): yield i\n"
    "    def __aiter__(self): return self.f()\n    def __await__(self): 1 / 0\nreturn C()",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("code", GENERATORS)
def test_what_code_yields_or_returns_arrives_in_order(vm: VM, code: str, place: int) -> None:
    for demand in (1, 2, 3, 256):
        numbers = stream(vm, code.format(n=300), demand=demand, flags=place).all()
        assert numbers == list(range(300))
    assert stream(vm, code.format(n=0), flags=place).all() == []


@pytest.mark.parametrize("place", PLACES)
def test_functions_are_called_and_awaited(vm: VM, place: int) -> None:
    vm.run(
        "import asyncio\n"
        "def plain(n): yield from range(n)\n"
        "async def asynchronous(n):\n    for i in range(n): yield i\n"
        "async def awaited(n):\n    await asyncio.sleep(0)\n    return range(n)\n"
        "async def twice(n):\n    await asyncio.sleep(0)\n    return asynchronous(n)\n"
        "async def ordinary(n):\n    await asyncio.sleep(0)\n    return plain(n)"
    )
    for name in ("range", "plain", "asynchronous", "awaited", "twice", "ordinary"):
        assert stream_call(vm, name, 5, flags=place).all() == [0, 1, 2, 3, 4]
    assert stream_call(vm, "plain", n=2, flags=place).all() == [0, 1]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("code", ["return 5", "pass", "async def f(): return 5\nreturn await f()"])
def test_what_cannot_be_iterated_is_pythons_own_error(vm: VM, code: str, place: int) -> None:
    with pytest.raises(
        PythonError,
        match=r"^'(int|NoneType)' object is not iterable; the code of a stream must yield ",
    ):
        stream(vm, code, flags=place).all()


def test_no_more_is_produced_than_is_wanted(vm: VM) -> None:
    for place in PLACES:
        vm.run("made = 0")
        ten = stream(vm, "while True:\n    made += 1\n    yield made", demand=10, flags=place)
        # The first one alone, the next when half of the demand is there; the rest waits until these are taken.
        assert ten.wait_for(6) == list(range(1, 7))
        assert ten.frames == [1, 5]
        wait_until(lambda: vm.run("return made") == 10)
        # Half of the demand is to be free before the generator goes on.
        ten.credit(ten.frames.pop(0))
        assert vm.run("return made") == 10
        ten.credit(ten.frames.pop(0))
        assert ten.wait_for(15) == list(range(1, 16))
        assert ten.frames == [4, 5]
        wait_until(lambda: vm.run("return made") == 16)
        vm.cancel(ten.request)


def test_each_item_arrives_at_once_while_the_consumer_keeps_up(vm: VM) -> None:
    vm.run("import threading\nsteps = threading.Semaphore(0)")
    slow = stream(vm, "for i in range(5):\n    steps.acquire()\n    yield i")
    for i in range(5):
        vm.run("steps.release()")
        assert slow.wait_for(i + 1)[-1] == i
        assert slow.frames == [1]
        slow.take()
    assert slow.all() == list(range(5))


def test_what_has_been_collected_arrives_when_all_else_is_taken_while_the_generator_blocks(
    vm: VM,
) -> None:
    vm.run("import threading\ngate = threading.Event()\nhere = threading.Event()")
    code = "yield from range(5)\nhere.set()\ngate.wait()\nyield 5"
    blocks = stream(vm, code)
    blocks.wait_for(1)
    vm.reply(vm.eval("here.wait()", thread=True))
    assert blocks.items == [0]
    blocks.take()
    assert blocks.wait_for(5) == [0, 1, 2, 3, 4]
    assert blocks.frames == [4]
    blocks.take()
    vm.run("gate.set()")
    assert blocks.all() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wait", ["", "import asyncio\nawait asyncio.sleep(0)\n"])
def test_an_error_comes_after_all_items(vm: VM, place: int, wait: str) -> None:
    code = f"{wait}for i in range(100): yield i\nraise KeyError('no')"
    failing = stream(vm, code, flags=place)
    with pytest.raises(PythonError) as caught:
        failing.all()
    assert failing.items == list(range(100))
    assert caught.value.fields["traceback"][0] == "Traceback (most recent call last):\n"
    line = code.count("\n") + 1
    assert caught.value.fields["traceback"][-2].startswith(
        f'  File "<Snex.Code>", line {line}, in <module>\n'
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wait", ["", "import asyncio\nawait asyncio.sleep(0)\n"])
def test_an_item_that_has_no_form_in_elixir_is_an_error_and_closes_the_generator(
    vm: VM, place: int, wait: str
) -> None:
    vm.run("closed = 0")
    code = f"{wait}try:\n    yield 1\n    yield 2\n    yield object()\nfinally: closed += 1"
    failing = stream(vm, code, flags=place)
    with pytest.raises(PythonError, match="Cannot serialize object of <class 'object'>"):
        failing.all()
    assert failing.items == [1, 2]
    assert vm.run("return closed") == 1


def test_each_item_is_encoded_when_it_is_made(vm: VM) -> None:
    code = "l = []\nfor i in range(50):\n    l.append(i)\n    yield l\n    l[0] = 'changed'"
    assert stream(vm, code).all()[1] == [b"changed", 1]
    code = "b = bytearray(100_000)\nfor i in range(50):\n    b[0] = i\n    yield b"
    assert [item[0] for item in stream(vm, code).all()] == list(range(50))


@pytest.mark.interrupts
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wait", ["", "import asyncio\nawait asyncio.sleep(0)\n"])
def test_cancelling_closes_the_generator(vm: VM, place: int, wait: str) -> None:
    vm.run("ended = []")
    code = (
        f"{wait}try:\n    for i in range(10**9): yield i\n"
        "except GeneratorExit: ended.append('exit')\nfinally: ended.append('finally')"
    )
    endless = stream(vm, code, flags=place)
    endless.wait_for(100)
    vm.cancel(endless.request)
    assert vm.run("return ended")[-1] == b"finally"
    endless.look()
    assert endless.total is None


def test_objects_are_handles_that_count_over_the_frame(vm: VM) -> None:
    vm.run("class C:\n    def __init__(self, n): self.n = n")
    for flags in (AUTO, OBJECT):
        for place in PLACES:
            objects = stream(vm, "for n in range(1000): yield C(n)", flags=flags | place)
            items = objects.all()
            assert len(items) == len(objects.handles) == 1000
            for n in (0, 1, 17, 999):
                number = objects.handles[n]
                assert vm.reply(vm.invoke("n.__int__", root=(Ref(number),))) == n
            vm.drop_objects(*((number, 1) for number in objects.table))
    vm.run("import gc")
    wait_until(
        lambda: vm.run("gc.collect()\nreturn sum(type(o) is C for o in gc.get_objects())") == 0
    )


def test_prints_belong_to_the_request_and_nothing_gets_lost_between_the_descriptors(vm: VM) -> None:
    for place in PLACES:
        talks = stream(
            vm, "for i in range(500):\n    if i > 100: print(i)\n    yield i", flags=place
        )
        assert talks.all() == list(range(500))
        printed = b"".join(b"%d\n" % i for i in range(101, 500))
        assert vm.printed(talks.request) == printed


def test_streams_side_by_side(vm: VM) -> None:
    streams: list[Stream] = [
        stream(vm, "for i in range(2000): yield i, n", {"n": n}, env=None, flags=PLACES[n % 3])
        for n in range(12)
    ]
    while not all(each.has_ended for each in streams):
        for each in streams:
            each.look()
            each.take()
        if not all(each.has_ended for each in streams):
            vm.pending.append(vm.read())
    for n, each in enumerate(streams):
        assert each.items == [(i, n) for i in range(2000)]


def test_credit_for_what_is_unknown_is_ignored(vm: VM) -> None:
    unknown: Any = Stream(vm, 999)
    unknown.credit(5)
    ended = stream(vm, "yield 1")
    assert ended.all() == [1]
    ended.credit(1)
    assert vm.run("return 1") == 1
