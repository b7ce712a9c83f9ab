"""Promises about streams of Elixir's that Python iterates: `snex.Stream`."""

from __future__ import annotations

import pickle
import time
from typing import Any

import pytest
from support.etf import decode
from support.feeds import CLOSE, FEED, FEED_END, Feed, begin, dumps, failure, items, pulled
from support.vm import CALL, CALL_RESULT, CANCEL, CANCELLED, THREAD, VM, PythonError

import snex
from snex._wire.body import load_items, numbers_of_streams

FOR = "return list(rows)"
ASYNC = "return [row async for row in rows]"
IN_THREAD = "import asyncio\nreturn await asyncio.to_thread(list, rows)"
IN_LOOP = """
import asyncio
async def run(): return [row async for row in rows]
return await asyncio.to_thread(asyncio.run, run())
"""


@pytest.mark.parametrize("code", [FOR, ASYNC, IN_THREAD, IN_LOOP])
@pytest.mark.parametrize("flags", [0, THREAD])
def test_items_are_asked_for_and_taken_in_frames(vm: VM, code: str, flags: int) -> None:
    request = begin(vm, code, demand=8, flags=flags)
    assert pulled(vm) == (1, 8)
    vm.send(FEED, 1, items(1))
    # Less than a quarter of the demand is not worth a frame.
    vm.send(FEED, 1, items("two", (3, 4)))
    assert pulled(vm) == (1, 3)
    vm.send(FEED, 1, items())
    vm.send(FEED, 1, items(*range(4)))
    assert pulled(vm) == (1, 4)
    vm.send(FEED_END, 1)
    assert vm.reply(request) == [1, b"two", (3, 4), 0, 1, 2, 3]
    assert not [entry for entry in vm.pending if entry[0] == CLOSE]


def test_nothing_is_asked_for_before_somebody_takes_an_item(vm: VM) -> None:
    assert vm.reply(begin(vm, "return type(rows).__name__, isinstance(rows, snex.Stream)")) == (
        b"Stream",
        True,
    )
    assert vm.expect(CLOSE) == (1, b"")
    assert not vm.pending


@pytest.mark.parametrize("how", ["for", "async for"])
def test_a_failure_is_raised_once_behind_the_items(vm: VM, how: str) -> None:
    code = f"""
taken = []
try:
    {how} row in rows: taken.append(row)
except snex.ElixirError as error:
    return taken, error.kind, str(error), list(rows), [row async for row in rows]
"""
    request = begin(vm, code)
    pulled(vm)
    vm.send(FEED, 1, items(1, 2))
    vm.send(FEED_END, 1, failure("no good"))
    assert vm.reply(request) == ([1, 2], b"error", b"no good", [], [])


def test_what_cannot_be_loaded_is_raised_behind_the_items_before_it(vm: VM) -> None:
    code = """
taken = []
try:
    for row in rows: taken.append(row)
except ValueError as error:
    return taken, str(error), list(rows)
"""
    request = begin(vm, code)
    pulled(vm)
    bad = b"cbuiltins\nint\n(X\x01\x00\x00\x00xtRa"
    vm.send(FEED, 1, items(1, [2], bad=bad))
    taken, message, rest = vm.reply(request)
    assert (taken, rest) == ([1, [2]], [])
    assert b"invalid literal" in message
    assert vm.expect(CLOSE) == (1, b"")


def test_the_first_items_are_those_that_can_be_loaded() -> None:
    loaded, error = load_items(items(1, {"a": 2}), ())
    assert (loaded, error) == ([1, {"a": 2}], None)
    loaded, error = load_items(items(1, {"a": 2}, bad=b"}](e](esa"), ())
    assert loaded == [1, {"a": 2}]
    assert isinstance(error, TypeError)


def test_frames_for_a_stream_that_has_ended_are_ignored(vm: VM) -> None:
    request = begin(vm, "rows.close()\nreturn list(rows)")
    assert vm.expect(CLOSE) == (1, b"")
    assert vm.reply(request) == []
    vm.send(FEED, 1, items(1))
    vm.send(FEED, 99, items(1))
    vm.send(FEED_END, 1)
    vm.send(FEED_END, 99, failure("x"))
    assert vm.run("return 1") == 1


@pytest.mark.interrupts
@pytest.mark.parametrize("flags", [0, THREAD])
@pytest.mark.parametrize("code", [FOR, ASYNC])
def test_cancelling_ends_the_wait_and_closes_the_stream(vm: VM, code: str, flags: int) -> None:
    request = begin(vm, code, flags=flags)
    pulled(vm)
    vm.cancel(request)
    assert vm.expect(CLOSE) == (1, b"")
    assert vm.run("return 1") == 1


@pytest.mark.parametrize("flags", [0, THREAD])
@pytest.mark.parametrize("code", [IN_THREAD, IN_LOOP])
def test_a_thread_that_nobody_can_interrupt_ends_with_the_source(
    vm: VM, code: str, flags: int
) -> None:
    request = begin(vm, code, flags=flags)
    pulled(vm)
    vm.send(CANCEL, request)
    # As the VM does when the caller has given up.
    vm.send(FEED_END, 1, failure("cancelled"))
    assert vm.expect(CANCELLED) == (request, b"")
    assert vm.run("return 1") == 1


def test_a_stream_ends_with_its_request(vm: VM) -> None:
    request = begin(vm, "global kept\nkept = rows\nreturn next(rows)")
    pulled(vm)
    vm.send(FEED, 1, items(1, 2))
    assert vm.reply(request) == 1
    assert vm.expect(CLOSE) == (1, b"")
    for code in (
        "next(kept)",
        "await anext(kept)" if hasattr(__builtins__, "anext") else "next(kept)",
    ):
        with pytest.raises(PythonError, match="the stream ended with the call"):
            vm.run(code)
    assert vm.run("kept.close(); return list(kept)") == []


def test_a_thread_that_waits_is_told_when_the_request_ends(vm: VM) -> None:
    code = """
import threading
global thread, result
result = []
def run():
    try: list(rows)
    except RuntimeError as error: result.append(str(error))
thread = threading.Thread(target=run)
thread.start()
await snex.call("m", "f", [])
"""
    request = begin(vm, code)
    pulled(vm)
    vm.answer(vm.expect(CALL)[0])
    vm.reply(request)
    text = vm.run("thread.join(); return result")
    assert len(text) == 1
    assert b"ended with the call" in text[0]


def test_a_stream_that_is_returned_to_nobody_is_closed(vm: VM) -> None:
    code = """
import asyncio
task = asyncio.create_task(snex.call("m", "f", []))
await asyncio.sleep(0)
task.cancel()
"""
    assert vm.run(code) is None
    call, _ = vm.expect(CALL)
    vm.send(CALL_RESULT, call, dumps(["text", Feed(7), {"x": Feed(300)}, Feed(7)]))
    assert sorted(vm.expect(CLOSE)[0] for _ in range(3)) == [7, 7, 300]


def test_a_call_that_goes_on_remembers_only_the_streams_that_are_there(vm: VM) -> None:
    code = """
import asyncio, gc
from snex._eval.request import current
for i in range(3):
    kept = await snex.call("m", "f", [])
    list(kept)
while list(current.get().streams) != [kept._number]:
    gc.collect()
    await asyncio.sleep(0.01)
"""
    request = vm.eval(code)
    for source in (5, 6, 7):
        vm.send(CALL_RESULT, vm.expect(CALL)[0], dumps(Feed(source)))
        assert pulled(vm)[0] == source
        vm.send(FEED_END, source)
    assert vm.reply(request) is None


def test_numbers_of_streams_are_found_in_any_pickle() -> None:
    value = [Feed(1), "open", {"a": (Feed(2**40, 256), 5)}, Feed(3)]
    assert numbers_of_streams(dumps(value)) == [1, 2**40, 3]
    assert numbers_of_streams(pickle.dumps(["snex._elixir.streams", "open", 1])) == []


def test_a_stream_of_a_call_that_cannot_be_loaded_is_closed(vm: VM) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return int, ("x",)

    code = "try: await snex.call('m', 'f', [])\nexcept ValueError: return 1"
    request = vm.eval(code)
    call, _ = vm.expect(CALL)
    vm.send(CALL_RESULT, call, dumps([Feed(7), Bad(), Feed(8)]))
    assert vm.reply(request) == 1
    # The first may be closed twice: it was there for a moment.
    closed: set[int] = set()
    while closed != {7, 8}:
        closed.add(vm.expect(CLOSE)[0])


def test_the_other_way_is_closed(vm: VM) -> None:
    request = begin(vm, "return rows")
    with pytest.raises(PythonError, match="cannot be sent to Elixir"):
        vm.reply(request)
    request = begin(vm, "import copy\nreturn copy.copy(rows)")
    with pytest.raises(PythonError, match="neither copied nor pickled"):
        vm.reply(request)
    with pytest.raises(TypeError, match=r"Snex.Serde.stream/2"):
        snex.Stream()


def test_the_wait_goes_on_when_another_thread_has_taken_the_items(vm: VM) -> None:
    code = """
import threading
taken = []
thread = threading.Thread(target=lambda: taken.extend(rows))
thread.start()
mine = list(rows)
thread.join()
return sorted(taken + mine)
"""
    for _ in range(20):
        request = begin(vm, code, demand=1)
        for number in range(6):
            pulled(vm)
            vm.send(FEED, 1, items(number))
        pulled(vm)
        vm.send(FEED_END, 1)
        assert vm.reply(request) == list(range(6))


# The item of the pickle is what a function returns that comes back when it may: until then the stream is locked.
LOADED_ELSEWHERE = """
import asyncio, builtins, threading, time
loading, go = threading.Event(), threading.Event()

def load():
    loading.set()
    go.wait()
    return "slow"

def release():
    while not rows._waiting: time.sleep(0.001)
    go.set()

builtins.load = load
taken = []
thread = threading.Thread(target=lambda: taken.append(next(rows)))
thread.start()
await asyncio.to_thread(loading.wait)
threading.Thread(target=release).start()
mine = {take}
thread.join()
# Either of the two may come first to what has been loaded.
return sorted([*taken, mine])
"""
CLOSED_ELSEWHERE = """
import threading, time

def close():
    while not rows._waiting: time.sleep(0.001)
    rows.close()

threading.Thread(target=close).start()
return {take}
"""
both_ways = pytest.mark.parametrize("take", ["next(rows, 'none')", "await anext(rows, 'none')"])


@both_ways
@pytest.mark.parametrize("flags", [0, THREAD])
def test_who_waits_is_woken_when_another_thread_has_loaded_the_items(
    vm: VM, take: str, flags: int
) -> None:
    request = begin(vm, LOADED_ELSEWHERE.replace("{take}", take), flags=flags)
    pulled(vm)
    # Nothing else arrives that would have it look.
    vm.send(FEED, 1, items(bad=b"cbuiltins\nload\n)RaX\x04\x00\x00\x00nexta"))
    assert vm.reply(request) == [b"next", b"slow"]


@both_ways
@pytest.mark.parametrize("flags", [0, THREAD])
def test_who_waits_is_woken_when_another_thread_closes_the_stream(
    vm: VM, take: str, flags: int
) -> None:
    request = begin(vm, CLOSED_ELSEWHERE.replace("{take}", take), flags=flags)
    pulled(vm)
    assert vm.expect(CLOSE) == (1, b"")
    assert vm.reply(request) == b"none"


def test_large_frames_are_asked_for_by_their_bytes(vm: VM) -> None:
    request = begin(vm, "return sum(len(row) for row in rows)", demand=1000)
    assert pulled(vm) == (1, 1000)
    # Half of the high mark, of 8 MiB.
    for _ in range(5):
        vm.send(FEED, 1, items(b"x" * (1 << 20)))
    source, count = pulled(vm)
    assert (source, count) in {(1, 4), (1, 5)}
    vm.send(FEED_END, 1)
    assert vm.reply(request) == 5 << 20


SERVED = """
import asyncio, socket, sys, snex

async def main():
    streams = await asyncio.open_connection(sock=socket.socket(fileno=int(sys.argv[1])))
    async with snex.serve(*streams):
        try:
            await snex.call("m", "f", [])
        except RuntimeError as error:
            await snex.call("m", "said", [str(error)])

asyncio.run(main())
"""

SERVE = """
import asyncio, socket, sys
ours, theirs = socket.socketpair()
process = await asyncio.create_subprocess_exec(
    sys.executable, "-c", served, str(theirs.fileno()), pass_fds=[theirs.fileno()]
)
theirs.close()
await snex.io_loop_for_connection(*await asyncio.open_connection(sock=ours))
return await process.wait()
"""


def test_a_served_process_is_told_that_it_cannot_have_one_and_it_is_closed(vm: VM) -> None:
    request = vm.eval(SERVE, variables={"served": SERVED})
    call, _ = vm.expect(CALL)
    vm.send(CALL_RESULT, call, dumps([Feed(5)]))
    assert vm.expect(CLOSE) == (5, b"")
    call, body = vm.expect(CALL)
    assert b"cannot be used in a served process" in decode(body)[3][0]
    vm.answer(call)
    assert vm.reply(request) == 0


def test_the_end_of_the_interpreter_ends_a_wait(vm: VM) -> None:
    begin(vm, "list(rows)")
    pulled(vm)
    begun = time.monotonic()
    vm.hang_up()
    assert vm.wait() == 0
    assert time.monotonic() >= begun
