"""Items of a stream that wait to be sent, and how many of the sent items the consumer has taken.

Two threads use a batch: the producing one adds items; the one that holds the producer's lock takes them out, and notes
what the consumer has taken. Each thread only reads what the other one changes, all changes are single operations, and
counts only grow. So neither waits for the other.

The indexes of handles count over all items of a frame: an item is encoded as if it went into one frame with the items
that wait at that time. If those are sent meanwhile, it is encoded again. If they are sent at the last moment, the table
of its frame also has their objects, to which nothing refers.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Any

from .._etf.encoder import NAME, encode_item, frozen
from .._etf.handles import WithHandles, keep
from .._wire.frame import AUTO, OBJECT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Parts = Sequence[bytes | memoryview]
    # Its parts, its size, the list of objects of its frame, and the length of that list before and after it.
    Item = tuple[Parts, int, list[object], int, int]

# What to do after an item: send what was collected, or wait for the consumer; and why there was no item.
DUE = 1
FULL = 2
STOPPED = 4
END = 8

# Bytes that are worth a frame.
_ENOUGH = 64 * 1024
_LIST = struct.Struct(">BBI")
_END: Any = object()


class Batch:
    """The items of one stream."""

    def __init__(self, demand: int, most: int, flags: int) -> None:
        """Allow at most `demand` items and `most` bytes that are collected or sent, but not taken."""
        self._demand = demand
        self._most = most
        self._half = max(1, demand // 2)
        self._enough = min(_ENOUGH, most // 2)
        self._auto = bool(flags & AUTO)
        self._whole = bool(flags & OBJECT)
        self._items: deque[Item] = deque()
        # Changed by the producing thread.
        self._produced = self._produced_bytes = 0
        # Changed with the producer's lock held.
        self._sent = self._sent_bytes = 0
        self._taken = self._taken_bytes = 0
        self._in_flight: deque[tuple[int, int]] = deque()
        # Set once no more items are wanted.
        self.stopped = False

    @property
    def is_full(self) -> bool:
        """Whether no item may be added now."""
        return (
            self._produced - self._taken >= self._demand
            or self._produced_bytes - self._taken_bytes >= self._most
        )

    @property
    def has_room(self) -> bool:
        """Whether to wake the one that waits for room: for a few items, that would cost more than the items."""
        return (
            self._produced - self._taken <= self._demand - self._half
            and self._produced_bytes - self._taken_bytes <= self._most // 2
        )

    @property
    def is_due(self) -> bool:
        """Whether there is something that should be sent now."""
        count = len(self._items)
        return count > 0 and (
            count >= self._half
            or self._sent == self._taken
            or self._produced_bytes - self._sent_bytes >= self._enough
        )

    @property
    def total(self) -> int:
        """The number of all items so far. Exact only while no thread adds or takes any."""
        return self._sent + len(self._items)

    def put(self, item: object) -> int:
        """Add an item. Returns what to do next."""
        items = self._items
        # The objects of the items that wait, which may be taken at any moment.
        objects = _last_of(items)
        if self._whole:
            item = keep(item)
        before = len(objects)
        parts = self._encode(item, objects)
        if before and len(objects) > before and not items:
            # The items before it have been taken.
            objects, before = [], 0
            parts = self._encode(item, objects)
        size = sum(map(len, parts))
        if len(parts) > 1:
            parts = [frozen(part) for part in parts]
        items.append((parts, size, objects, before, len(objects)))
        self._produced_bytes += size
        self._produced += 1
        state = DUE if self.is_due or (before and len(items) == 1) else 0
        if self.is_full:
            state |= FULL
        return state | STOPPED if self.stopped else state

    def _encode(self, item: object, objects: list[object]) -> Parts:
        before = len(objects)
        try:
            return encode_item(item, objects, self._auto)
        except BaseException:
            # Remove the handles in the part that was encoded.
            del objects[before:]
            raise

    def fill(self, iterator: Iterator[object], most: int) -> int:
        """Add up to `most` items of an iterator, until there is something else to do. Returns what."""
        put = self.put
        for _ in range(most):
            item = next(iterator, _END)
            if item is _END:
                return END
            state = put(item)
            if state:
                return state
        return 0

    def take(self) -> tuple[int, Parts] | None:
        """Take what was collected, to be sent: the number of items before it, and the body. With the lock held."""
        items = self._items
        count = len(items)
        if not count:
            return None
        before, size = self._sent, 0
        body: list[bytes | memoryview] = [_LIST.pack(131, 108, count)]
        objects: list[object] = []
        for _ in range(count):
            parts, bytes_, all_objects, first, end = items.popleft()
            size += bytes_
            body += parts
            if end > first:
                objects = all_objects[:end]
        body.append(b"j")
        self._in_flight.append((count, size))
        self._sent_bytes += size
        self._sent += count
        return before, WithHandles(joined(body), objects) if objects else joined(body)

    def credit(self, count: int) -> None:
        """Note that the consumer has taken `count` items, those of the oldest frames. With the lock held."""
        frames = self._in_flight
        while frames and count >= frames[0][0]:
            items, size = frames.popleft()
            count -= items
            self._taken_bytes += size
            self._taken += items


def _last_of(items: deque[Item]) -> list[object]:
    try:
        return items[-1][2]
    except IndexError:
        return []


def joined(parts: list[bytes | memoryview]) -> Parts:
    """Join small parts, so that few are left."""
    joined: list[bytes | memoryview] = []
    small: list[bytes] = []
    for part in parts:
        if type(part) is bytes and len(part) < _ENOUGH:
            small.append(part)
        else:
            joined += (b"".join(small), part)
            small = []
    joined.append(b"".join(small))
    return joined


def _native_batch() -> type[Batch]:
    """Return the extension's class that does the same, or `Batch` without the extension."""
    if NAME == "pure":
        return Batch
    from .._etf import _native

    return _native.Batch  # type: ignore[return-value]


new_batch = _native_batch()
