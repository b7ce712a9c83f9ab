"""The table of objects that the VM has handles of."""

from __future__ import annotations

import gc
import os
import struct
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from support.etf import Bits
from support.garbage import collect_until, in_a_thread
from support.vm import (
    AUTO,
    CALL,
    CALL_RESULT,
    DROP,
    OBJECT,
    A,
    PythonError,
    Ref,
    dumps,
    frame,
    wait_until,
)

import snex
from snex._etf.encoder import encode
from snex._eval.envs import EnvError
from snex._eval.objects import Objects, body_of
from snex._wire.frame import HANDLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.vm import VM


class Thing:
    pass


class Hostile:
    """Answers nothing."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError

    __hash__ = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError


def hand_out(objects: Objects, obj: object) -> int:
    (number,) = objects.hand_out([obj])
    return number


def test_an_object_is_one_entry_with_as_many_handles_as_were_handed_out() -> None:
    objects, one, other = Objects(), Thing(), Thing()
    assert objects.hand_out([one, other, one]) == [1, 2, 1]
    assert hand_out(objects, one) == 1
    assert (len(objects), objects.get(1), objects.get(2)) == (2, one, other)
    objects.drop([(1, 2)])
    assert objects.get(1) is one
    objects.drop([(1, 1), (2, 1)])
    assert len(objects) == 0
    with pytest.raises(EnvError, match="no object with id 1") as caught:
        objects.get(1)
    assert caught.value.code == "object_not_found"


def test_a_number_is_never_used_again() -> None:
    objects, one = Objects(), Thing()
    for number in range(1, 10):
        assert hand_out(objects, one) == number
        objects.drop([(number, 1)])
    # Nor for another object at the same address.
    assert [hand_out(objects, Thing()) for _ in range(3)] == [10, 11, 12]


def test_equal_objects_are_different_ones_and_nothing_is_asked_of_them() -> None:
    objects = Objects()
    one, other = [1], [1]
    assert objects.hand_out([one, other]) == [1, 2]
    hostile = Hostile()
    assert objects.hand_out([hostile, hostile]) == [3, 3]
    objects.drop([(3, 2)])
    assert len(objects) == 2


def test_what_is_unknown_or_too_much_is_ignored() -> None:
    objects, one = Objects(), Thing()
    objects.drop([(1, 1), (0, 5), (2**64 - 1, 2**32 - 1)])
    number = hand_out(objects, one)
    objects.drop([(number, 2**32 - 1), (number, 1)])
    assert len(objects) == 0
    objects.drop([])


def test_dropped_objects_are_freed() -> None:
    objects = Objects()
    marks: weakref.WeakSet[Thing] = weakref.WeakSet()

    def use() -> None:
        for _ in range(100):
            mark = Thing()
            marks.add(mark)
            hand_out(objects, mark)
        objects.drop([(number, 1) for number in range(1, 91)])

    in_a_thread(use)
    collect_until(lambda: len(marks) <= 10)
    assert (len(objects), len(marks)) == (10, 10)
    in_a_thread(lambda: objects.drop([(number, 1) for number in range(1, 101)]))
    collect_until(lambda: len(marks) == 0)
    assert len(objects) == 0


def test_a_destructor_may_hand_out_and_give_back() -> None:
    objects = Objects()
    kept: list[int] = []

    class Last:
        def __del__(self) -> None:
            kept.append(hand_out(objects, self))
            kept.append(hand_out(objects, Thing()))
            objects.drop([(kept[-1], 1)])

    def use() -> None:
        objects.hand_out([Last() for _ in range(5)])
        objects.drop([(number, 1) for number in range(1, 6)])

    in_a_thread(use)
    collect_until(lambda: len(kept) >= 10)
    assert len(kept) == 10
    assert len(objects) == 5
    assert {type(objects.get(number)) for number in kept[::2]} == {Last}
    objects.drop([(number, 1) for number in kept[::2]])
    assert len(objects) == 0


@pytest.fixture
def eager_collector() -> Iterator[None]:
    """Have Python collect garbage wherever it can."""
    before = gc.get_threshold()
    gc.set_threshold(1)
    yield
    gc.set_threshold(*before)


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="its collector has no such threshold")
@pytest.mark.usefixtures("eager_collector")
def test_the_garbage_collector_may_run_destructors_that_hand_out_in_the_midst_of_it() -> None:
    objects = Objects()
    numbers: list[int] = []
    ended = 0

    class Cycle:
        def __init__(self) -> None:
            self.self = self

        def __del__(self) -> None:
            nonlocal ended
            ended += 1
            numbers.append(hand_out(objects, [ended]))

    given: list[int] = []
    for _ in range(2000):
        Cycle()
        given += objects.hand_out([[0], [1]])
        if len(given) > 20:
            objects.drop([(number, 1) for number in given])
            given.clear()
    gc.collect()
    objects.drop([(number, 1) for number in [*given, *numbers]])
    assert ended == len(numbers)
    assert ended > 1000
    assert len(set(numbers)) == len(numbers)
    assert len(objects) == 0
    assert not objects._numbers
    assert not objects._more


def test_what_is_just_being_given_back_may_be_handed_out_by_a_destructor() -> None:
    class Nosy(dict[int, int]):
        """Where the garbage collector may run."""

        def get(self, key: int, default: Any = None) -> Any:
            while todo:
                todo.pop()()
            return super().get(key, default)

    todo: list[Any] = []
    numbers: list[int] = []
    objects, thing = Objects(), Thing()
    objects._numbers = Nosy()
    number = hand_out(objects, thing)
    todo.append(lambda: numbers.extend(objects.hand_out([thing, numbers])))
    objects.drop([(number, 1)])
    assert [objects.get(number) for number in numbers] == [thing, numbers]
    objects.drop([(number, 1) for number in numbers])
    assert (len(objects), objects._numbers, objects._more) == (0, {}, {})


def test_threads_may_hand_out_and_give_back_at_once() -> None:
    objects = Objects()
    shared = [Thing() for _ in range(10)]
    start = threading.Barrier(4)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            start.wait()
            for _ in range(300):
                own = [Thing() for _ in range(5)]
                numbers = objects.hand_out([*shared, *own])
                assert [objects.get(number) for number in numbers] == [*shared, *own]
                objects.drop([(number, 1) for number in numbers])
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert failures == []
    assert (len(objects), objects._numbers, objects._more) == (0, {}, {})


def test_a_body_with_handles_begins_with_their_table(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects()
    monkeypatch.setattr("snex._eval.objects.table", objects)
    thing = Thing()
    parts = encode([thing, {"a": thing}, object()], auto=True)
    assert len(objects) == 0
    flags, (table, *rest) = body_of(parts)
    assert flags == HANDLES
    assert struct.unpack("<I3Q", table) == (3, 1, 1, 2)
    assert rest == list(parts)
    assert (len(objects), objects.get(1)) == (2, thing)
    plain = encode([1])
    assert body_of(plain) == (0, plain)


def test_the_vm_gives_handles_back_with_their_counts(vm: VM) -> None:
    vm.run(
        "import gc\nfrom snex._eval import objects\nclass Thing: pass\nt = Thing()\n"
        "def counts():\n  gc.collect()\n  return {n: 1 + objects.table._more.get(n, 0) for n in objects.table._objects}\n"
    )
    first = vm.invoke("eval", "[t, t, [t]]")
    (one, two, (three,)) = vm.reply(first)
    mark = Bits(b"snex.Object\x80", 1)
    assert [one, two, three] == [(mark, index, b"Thing") for index in range(3)]
    (number, same, same_again) = vm.handles(first)
    assert number == same == same_again
    assert vm.run("return counts()") == {number: 3}
    assert vm.reply(vm.invoke("eval", "x is t", {"x": Ref(number), "t": Ref(number)})) is True
    vm.drop_objects((number, 2))
    assert vm.run("return counts()") == {number: 1}
    # More than there are, of what is unknown, and of environments in between.
    vm.drop_objects((number + 7, 1), (number, 5))
    assert vm.run("return counts()") == {}
    with pytest.raises(PythonError, match=f"no object with id {number}") as caught:
        vm.reply(vm.invoke("len", Ref(number)))
    assert caught.value.fields["code"] == "object_not_found"
    assert vm.run("return 1") == 1


def test_a_result_that_nobody_waits_for_hands_out_nothing(vm: VM) -> None:
    vm.run("import asyncio\nfrom snex._eval import objects\ngate = asyncio.Event()")
    waits = vm.request(2, (0, "await gate.wait()\nreturn object()", None, 1, {}), AUTO)
    vm.cancel(waits)
    assert vm.run("gate.set()\nawait asyncio.sleep(0)\nreturn len(objects.table)") == 0


def test_what_is_given_back_behind_an_answer_is_there_until_the_answer_is_loaded() -> None:
    objects = Objects()
    one, two, three = objects.hand_out([Thing(), Thing(), Thing()])
    first, second = objects.hold(), objects.hold()
    objects.drop([(one, 1)])

    def load_the_first_two() -> None:
        third = objects.hold()
        objects.drop([(two, 1)])
        second.release()
        assert len(objects) == 3
        first.release()
        first.release()
        assert (len(objects), type(objects.get(two))) == (2, Thing)
        # Nobody loads this answer.
        del third

    in_a_thread(load_the_first_two)
    collect_until(lambda: len(objects) == 1)
    objects.drop([(three, 1)])
    assert len(objects) == 0


@pytest.mark.parametrize(
    "code",
    [
        "return await snex.call('m', 'f', [])",
        "return await asyncio.gather(asyncio.wait_for(snex.call('m', 'f', []), 60))",
        "return snex.call_sync('m', 'f', [])",
    ],
)
@pytest.mark.parametrize("thread", [False, True])
def test_the_vm_may_give_handles_back_right_behind_an_answer_with_them(
    vm: VM, code: str, *, thread: bool
) -> None:
    vm.run("import asyncio\nfrom snex._eval import objects")
    for _ in range(20):
        kept = vm.invoke("object", flags=OBJECT)
        vm.reply(kept)
        (number,) = vm.handles(kept)
        request = vm.eval(code, thread=thread)
        call, _ = vm.expect(CALL)
        answer = frame(CALL_RESULT, call, dumps([Ref(number)] * 2))
        os.write(vm.out_fd, answer + frame(DROP, 0, struct.pack("<BQI", 1, number, 1)))
        # It could not be encoded for want of a handle.
        with pytest.raises(PythonError, match="Cannot serialize object of <class 'object'>"):
            vm.reply(request)
        wait_until(lambda: vm.run("return len(objects.table)") == 0)


def test_a_drop_that_is_cut_short_ends_the_interpreter(vm: VM) -> None:
    vm.send(DROP, 0, struct.pack("<BQI", 1, 1, 1)[:-1])
    with pytest.raises(EOFError):
        vm.read()
    assert vm.wait() != 0
    assert "a DROP frame cannot be decoded" in vm.errors()


def test_the_layout_of_handles_is_the_vms() -> None:
    from support.vm import VM

    layout = (b"t\0\0\0\x03w\x01n", b"w\x01t", b"w\x01ew\x03end")
    with VM(hello={"object": layout}) as machine:
        machine.ready()
        one, two = machine.reply(machine.invoke("eval", "[object(), slice(1)]"))
        assert one == {A("n"): 0, A("t"): b"object", A("e"): A("end")}
        assert two == {A("n"): 1, A("t"): b"slice", A("e"): A("end")}


def test_objects_live_as_long_as_the_vm_wants(vm: VM) -> None:
    vm.run(
        "import gc, weakref\nclass Thing: pass\nmade = weakref.WeakSet()\n"
        "def make():\n  new = Thing()\n  made.add(new)\n  return new"
    )
    request = vm.invoke("make", flags=OBJECT)
    vm.reply(request)
    (number,) = vm.handles(request)
    assert vm.run("gc.collect(); return len(made)") == 1
    vm.drop_objects((number, 1))
    wait_until(lambda: vm.run("gc.collect(); return len(made)") == 0)


def test_outside_of_an_interpreter_a_handle_is_only_a_value() -> None:
    assert repr(snex.keep([1])) == "<snex.Handle of list>"
    handle = snex.keep(1)
    assert snex.keep(handle) is handle
