"""Promises about the batches of streams, as they are in Python and in the extension."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.etf import decode
from support.garbage import collect_until, in_a_thread

from snex import set_custom_encoder
from snex._etf.encoder import NAME, set_reply_limit
from snex._etf.handles import WithHandles
from snex._eval import batch
from snex._eval.batch import DUE, END, FULL, STOPPED
from snex._wire.frame import AUTO, OBJECT, Limit, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST = 1 << 40
IMPLEMENTATIONS = [batch.Batch, *([] if NAME == "pure" else [batch.new_batch])]
Make = type[batch.Batch]


@pytest.fixture(params=IMPLEMENTATIONS, ids=["pure", "native"][: len(IMPLEMENTATIONS)])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param  # type: ignore[no-any-return]


def taken(some: batch.Batch) -> tuple[int, list[Any]]:
    """Take what has been collected; handles as their objects."""
    found = some.take()
    assert found is not None
    before, parts = found
    items = decode(b"".join(parts))
    if type(parts) is WithHandles:
        items = [
            parts.objects[item[1]] if type(item) is tuple and len(item) == 3 else item
            for item in items
        ]
    return before, items


def test_the_first_item_is_due_and_the_next_when_half_of_the_demand_is_there(make: Make) -> None:
    some = make(10, MOST, 0)
    assert (some.is_due, some.is_full, some.take()) == (False, False, None)
    assert some.put("first") == DUE
    assert taken(some) == (0, [b"first"])
    assert some.fill(iter(range(100)), 100) == DUE
    assert taken(some) == (1, [0, 1, 2, 3, 4])
    assert some.fill(iter(range(100)), 100) == FULL
    assert (some.is_due, some.has_room, some.total) == (False, False, 10)
    some.credit(1)
    assert (some.is_due, some.is_full, some.has_room) == (False, False, False)
    some.credit(5)
    assert (some.is_due, some.has_room) == (True, True)
    assert taken(some) == (6, [0, 1, 2, 3])


def test_a_demand_of_one_item_has_room_for_the_next(make: Make) -> None:
    some = make(1, MOST, 0)
    for n in range(3):
        assert some.has_room
        assert some.put(n) == DUE | FULL
        assert not some.has_room
        assert taken(some) == (n, [n])
        assert not some.has_room
        some.credit(1)


def test_credit_takes_whole_frames(make: Make) -> None:
    some = make(4, MOST, 0)
    some.put(1)
    some.take()
    some.put(2)
    some.put(3)
    some.take()
    some.put(4)
    assert some.is_full
    some.credit(2)
    assert not some.is_due
    some.credit(1)
    assert not some.is_due
    some.credit(2)
    assert some.is_due
    some.credit(99)
    assert taken(some) == (3, [4])


def test_bytes_count_as_well(make: Make) -> None:
    some = make(1000, 10_000, 0)
    some.put(1)
    some.take()
    states = [some.put(bytes(1000)) for _ in range(10)]
    assert [bool(state & DUE) for state in states] == [False] * 4 + [True] * 6
    assert [bool(state & FULL) for state in states] == [False] * 9 + [True]
    some.take()
    some.credit(1)
    assert (some.is_full, some.has_room) == (True, False)
    some.credit(10)
    assert (some.is_full, some.has_room) == (False, True)
    assert some.put(bytes(50_000)) == DUE | FULL


def test_as_many_bytes_as_there_may_be_are_no_room_for_more(make: Make) -> None:
    # An item of 1005 bytes.
    for most, state in ((1005, DUE | FULL), (1006, DUE)):
        some = make(1000, most, 0)
        assert some.put(bytes(1000)) == state
    # A quarter, half, and more than half of them in flight.
    some = make(1000, 4 * 1005, 0)
    rooms = []
    for _ in range(3):
        some.put(bytes(1000))
        some.take()
        rooms.append(some.has_room)
    assert rooms == [True, True, False]


def test_large_items_count_with_all_their_bytes(make: Make) -> None:
    some = make(1000, 300_000, 0)
    some.put(1)
    some.take()
    assert [some.put(bytes(100_000)) for _ in range(3)] == [DUE, DUE, DUE | FULL]
    some.take()
    some.credit(4)
    assert not some.is_full
    assert some.put([bytes(100_000), bytes(200_000)]) == DUE | FULL


def test_its_end_and_a_limit_of_items_end_a_turn(make: Make) -> None:
    some = make(1000, MOST, 0)
    assert some.fill(iter(()), 5) == END
    some.put(0)
    some.take()
    numbers = iter(range(7))
    assert some.fill(numbers, 5) == 0
    assert some.total == 6
    assert some.fill(numbers, 5) == END
    assert taken(some) == (1, list(range(7)))
    some.stopped = True
    assert some.stopped
    assert some.fill(iter(range(7)), 5) == STOPPED


def test_what_an_iterator_raises_comes_out_and_what_came_before_stays(make: Make) -> None:
    def fails() -> Iterator[object]:
        yield 1
        yield 2
        raise KeyError("no")

    some = make(1000, MOST, 0)
    some.put(0)
    some.take()
    with pytest.raises(KeyError):
        some.fill(fails(), 100)
    with pytest.raises(TypeError, match="iterator"):
        some.fill([1], 1)  # type: ignore[arg-type]
    assert taken(some) == (1, [1, 2])


@pytest.mark.parametrize("bad", [object(), [1, [object()]], {"a": 1, b"a": 2}])
def test_an_item_that_cannot_be_encoded_leaves_nothing_behind(make: Make, bad: object) -> None:
    some = make(1000, MOST, 0)
    some.put(0)
    some.take()
    some.put(1)
    with pytest.raises((TypeError, ValueError)):
        some.put(bad)
    some.put(2)
    assert some.total == 3
    assert taken(some) == (1, [1, 2])


@pytest.fixture
def limit() -> Iterator[Callable[[int], None]]:
    """Return what sets how many bytes an item may have."""
    before = Limit.reply
    yield set_reply_limit
    set_reply_limit(before)


def test_an_item_that_is_too_large_says_so(make: Make, limit: Callable[[int], None]) -> None:
    limit(1000)
    some = make(1000, MOST, AUTO)
    assert some.put(bytes(994)) == DUE
    with pytest.raises(TooLargeError, match="at least 1001 bytes"):
        some.put(bytes(995))
    with pytest.raises(TooLargeError):
        some.put([object()] * 40)
    assert len(taken(some)[1]) == 1


def test_handles_of_an_item_count_with_their_numbers(
    make: Make, limit: Callable[[int], None]
) -> None:
    some = make(1000, MOST, AUTO)
    item = [object() for _ in range(50)]
    some.put(item)
    found = some.take()
    assert found is not None
    # With the leading 131, and without what makes a list of it.
    size = 1 + len(b"".join(found[1])) - len(b"\x83l\0\0\0\1j") + 8 * len(item)
    for _ in range(2):
        limit(size)
        some.put(item)
        limit(size - 1)
        with pytest.raises(TooLargeError, match=f"at least {size} bytes"):
            some.put(item)
    found = some.take()
    assert found is not None
    assert type(found[1]) is WithHandles
    assert found[1].objects == item * 2


def test_large_items_are_as_they_were_when_they_were_made(make: Make) -> None:
    some = make(1000, MOST, 0)
    data = bytearray(100_000)
    kept = b"x" * 100_000
    for item in (1, data, "small", memoryview(data), kept, [kept, data, 2], 3):
        some.put(item)
    data[:] = b"y" * len(data)
    zeros = bytes(100_000)
    assert taken(some) == (0, [1, zeros, b"small", zeros, kept, [kept, zeros, 2], 3])


def test_handles_count_over_the_items_of_a_frame(make: Make) -> None:
    objects = [object() for _ in range(6)]
    for flags in (AUTO, OBJECT):
        some = make(1000, MOST, flags)
        for one in objects[:3]:
            some.put(one)
        assert taken(some) == (0, objects[:3])
        some.put(objects[3])
        found = some.take()
        assert found is not None
        assert type(found[1]) is WithHandles
        assert found[1].objects == objects[3:4]
    some = make(1000, MOST, AUTO)
    some.put(1)
    some.put(objects[0])
    with pytest.raises(ValueError, match="contains itself"):
        some.put(cyclic([objects[1]]))
    some.put(objects[2])
    found = some.take()
    assert found is not None
    assert type(found[1]) is WithHandles
    # Without those of what could not be encoded.
    assert found[1].objects == [objects[0], objects[2]]
    items = decode(b"".join(found[1]))
    assert [item[1] for item in items[1:]] == [0, 1]


def test_what_is_encoded_anew_leaves_no_handles_of_the_first_time(make: Make) -> None:
    class Key:
        pass

    objects = [Key() for _ in range(4)]
    some = make(1000, MOST, AUTO)
    some.put(objects[0])
    # The extension leaves keys that become handles to the pure encoder, and knows only when it has come to them.
    some.put([objects[1], {objects[2]: 1}])
    some.put(objects[3])
    found = some.take()
    assert found is not None
    assert type(found[1]) is WithHandles
    assert found[1].objects == objects
    first, (second, keys), last = decode(b"".join(found[1]))
    assert [handle[1] for handle in (first, second, *keys, last)] == [0, 1, 2, 3]


def cyclic(items: list[Any]) -> list[Any]:
    items.append(items)
    return items


def test_what_is_taken_while_an_item_is_encoded_does_not_confuse_its_handles(make: Make) -> None:
    objects = [object() for _ in range(4)]
    some = make(1000, MOST, AUTO)
    some.put(0)
    some.take()
    for one in objects[:2]:
        some.put(one)
    found: list[Any] = []

    class Custom:
        pass

    def encoder(value: object) -> object:
        if type(value) is not Custom:
            raise TypeError
        if not found:
            found.append(some.take())
        return None

    set_custom_encoder(encoder)
    # One of its handles is there before the others are taken, one comes behind.
    some.put([objects[2], Custom(), objects[3]])
    before, body = found[0]
    assert before == 1
    assert type(body) is WithHandles
    assert body.objects == objects[:2]
    last = some.take()
    assert last is not None
    assert last[0] == 3
    assert type(last[1]) is WithHandles
    assert last[1].objects == objects[2:]
    [[first, none, second]] = decode(b"".join(last[1]))
    assert (first[1], none, second[1]) == (0, None, 1)
    # An item without handles has no table, though those before it had one.
    for one in objects[:2]:
        some.put(one)
    found.clear()
    some.put([Custom()])
    assert len(found) == 1
    last = some.take()
    assert last is not None
    assert type(last[1]) is list


def test_an_iterator_may_use_the_batch_it_fills(make: Make) -> None:
    some = make(1000, MOST, AUTO)
    found = []

    def uses() -> Iterator[object]:
        for i in range(5):
            yield i
            found.append(some.take())
            some.credit(1)
            some.put("more")
            assert some.total == 2 * i + 2

    while not some.fill(uses_once := uses(), 3) & END:
        for _ in range(10):
            if some.fill(uses_once, 3) & END:
                break
        break
    assert found


def test_another_thread_may_take_at_any_moment(make: Make) -> None:
    some = make(50, MOST, AUTO)
    got: list[Any] = []
    ended = threading.Event()
    lock = threading.Lock()

    def take(last: bool = False) -> None:  # noqa: FBT001, FBT002
        with lock:
            while some.is_due or last:
                found = some.take()
                if found is None:
                    return
                before, parts = found
                assert before == len(got)
                items = decode(b"".join(parts))
                got.extend(items)
                some.credit(len(items))

    def taker() -> None:
        while not ended.is_set():
            take()

    thread = threading.Thread(target=taker)
    thread.start()
    numbers = ((i, "x" * (i % 7)) for i in range(20_000))
    while not some.fill(numbers, 64) & END:
        take()
    ended.set()
    thread.join()
    take(last=True)
    assert got == [(i, b"x" * (i % 7)) for i in range(20_000)]


def test_nothing_is_kept_of_what_has_been_taken(make: Make) -> None:
    class Thing:
        living = 0

        def __init__(self) -> None:
            Thing.living += 1

        def __del__(self) -> None:
            Thing.living -= 1

    some = make(1000, MOST, AUTO)

    def use() -> None:
        for _ in range(3):
            some.fill(iter([Thing() for _ in range(100)]), 100)
            some.take()

    in_a_thread(use)
    collect_until(lambda: Thing.living == 0)


def test_both_make_the_same_bytes(make: Make) -> None:
    values: list[Callable[[], object]] = [lambda: [1, 2.5, "é", None, True, b"\0", 2**70, (), {}]]
    some, other = make(1000, MOST, 0), batch.Batch(1000, MOST, 0)
    for value in values:
        for each in (some, other):
            each.put(value())
            each.put({"a": value()})
    assert some.take() == other.take()
