"""Items of a stream that wait to be sent, and how many of those that were sent have been taken.

Two threads use a batch: the one that produces adds items, and whoever holds the producer's lock takes them out, and
notes what the consumer has taken. What one of them changes, the other one only reads; all of it changes by single
operations, and counts only grow. So neither waits for the other.

Handles count over all items of a frame: an item is encoded with the index that it has if it goes into one frame with those
that wait by then. If these are sent meanwhile, it is encoded once more. If they are sent in the very last moment, their objects stand in
the table of its frame as well, and nobody refers to them.
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
    # Its parts, its size, the objects that its handles count among, and how many of these there were before and after it.
    Item = tuple[Parts, int, list[object], int, int]

# What is to be done after an item: send what has been collected; wait for the consumer. And why there is none.
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
        """Have at most `demand` items, and `most` bytes, sent or collected, that nobody has taken."""
        self._demand = demand
        self._most = most
        self._half = max(1, demand // 2)
        self._enough = min(_ENOUGH, most // 2)
        self._auto = bool(flags & AUTO)
        self._whole = bool(flags & OBJECT)
        self._items: deque[Item] = deque()
        # Changed by who produces.
        self._produced = self._produced_bytes = 0
        # Changed with the producer's lock held.
        self._sent = self._sent_bytes = 0
        self._taken = self._taken_bytes = 0
        self._in_flight: deque[tuple[int, int]] = deque()
        # No item is wanted any more.
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
        """Whether it is worth waking who waits for room: for few items it would cost more than they do."""
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
        """How many items there have been. Right while nobody adds or takes any."""
        return self._sent + len(self._items)

    def put(self, item: object) -> int:
        """Add an item. Returns what is to be done then."""
        items = self._items
        # Those of the items that wait. They may be taken at any moment.
        objects = _last_of(items)
        if self._whole:
            item = keep(item)
        before = len(objects)
        parts = self._encode(item, objects)
        if before and len(objects) > before and not items:
            # Those before it have been taken.
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
            # Handles in the part that could be encoded.
            del objects[before:]
            raise

    def fill(self, iterator: Iterator[object], most: int) -> int:
        """Add up to `most` items of an iterator, until something is to be done. Returns what."""
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
        """Take what has been collected, to be sent: the number of items before, and the body. With the lock held."""
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
        """Note that the consumer has taken so many items, those of the oldest frames. With the lock held."""
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
    """Join what is small, so that few parts are left."""
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
    """Return the class that does the same in the extension, if that is there."""
    if NAME == "pure":
        return Batch
    from .._etf import _native

    return _native.Batch  # type: ignore[return-value]


new_batch = _native_batch()
