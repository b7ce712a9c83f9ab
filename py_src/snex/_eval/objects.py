"""The table of objects of which the VM has handles.

An object that is handed out again keeps its number as long as the VM has a handle of it: it has one entry, with
a count of its handles. The VM gives handles back with `DROP` frames; the last one removes the entry.

Handles are handed out on any thread, when their frame is sent, and given back on the event loop's thread.

An answer to a call may refer to an object whose last handle is given back by the very next frame. The thread that waits
for the answer may load it only after that. So the table is *held* from the arrival of such an answer until it is
loaded, and handles that are given back meanwhile are only noted.
"""

from __future__ import annotations

import itertools
import struct
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from .._etf.handles import FRAME, WithHandles
from .._etf.memory import SharedMemory, hand_over_all
from .._wire.frame import HANDLES
from .envs import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Parts = Sequence[bytes | memoryview]


class Objects:
    """The table, of which a process has one."""

    def __init__(self) -> None:
        """Begin empty."""
        self._objects: dict[int, object] = {}
        # The number of each object, by its `id`, which stays unique as the table keeps the object.
        self._numbers: dict[int, int] = {}
        # By number, for objects with more than one handle: how many more.
        self._more: dict[int, int] = {}
        self._next = itertools.count(1)
        # Re-entrant: in here, the garbage collector may run a `__del__` that hands something out.
        self._lock = threading.RLock()
        self._busy = False
        # The answers that are not loaded yet, by increasing numbers.
        self._holds: dict[int, None] = {}
        self._hold_numbers = itertools.count(1)
        # Handles that were given back meanwhile, with the number of the latest answer at that time.
        self._held: deque[tuple[int, list[tuple[int, int]]]] = deque()
        # Runs a function on the event loop's thread.
        self.later: Callable[[Callable[[], None]], None] = _at_once

    def __len__(self) -> int:
        """Count the objects."""
        return len(self._objects)

    def forget(self) -> None:
        """Forget all objects, in a copy: the VM has no handles of them."""
        for table in (self._objects, self._numbers, self._more, self._holds, self._held):
            table.clear()

    def hand_out(self, handed: Sequence[object]) -> list[int]:
        """Count one more handle of each object, and return their numbers."""
        with self._lock:
            if self._busy:
                # Further up on this stack, the table is being changed. Separate numbers do no harm.
                numbers = [0 if obj is FRAME else next(self._next) for obj in handed]
                self._objects.update(zip(numbers, handed, strict=True))
                self._objects.pop(0, None)
                return numbers
            self._busy = True
            try:
                return [self._hand_out(obj) for obj in handed]
            finally:
                self._busy = False

    def _hand_out(self, obj: object) -> int:
        if obj is FRAME:
            return 0
        number = self._numbers.get(id(obj))
        if number is None:
            number = next(self._next)
            self._objects[number] = obj
            self._numbers[id(obj)] = number
        else:
            self._more[number] = self._more.get(number, 0) + 1
        return number

    def get(self, number: int) -> Any:  # noqa: ANN401 - whatever it is
        """Return an object.

        Raises:
            EnvError: `object_not_found`.
        """
        try:
            return self._objects[number]
        except KeyError:
            raise EnvError("object_not_found", f"no object with id {number}") from None

    def hold(self) -> Hold:
        """Keep all objects until the hold is released. On the event loop's thread."""
        number = next(self._hold_numbers)
        self._holds[number] = None
        return Hold(self, number)

    def release(self, number: int) -> None:
        """End a hold, on any thread."""
        self._holds.pop(number, None)
        if self._held:
            self.later(self._catch_up)

    def drop(self, counts: Iterable[tuple[int, int]]) -> None:
        """Take back handles: pairs of a number and a count. Unknown numbers are ignored."""
        newest = max(list(self._holds), default=0)
        if newest:
            self._held.append((newest, list(counts)))
            # The last hold may have ended just now.
            self._catch_up()
        else:
            self._drop(counts)

    def _catch_up(self) -> None:
        while self._held:
            newest, counts = self._held[0]
            if any(number <= newest for number in list(self._holds)):
                return
            self._held.popleft()
            self._drop(counts)

    def _drop(self, counts: Iterable[tuple[int, int]]) -> None:
        gone: list[object] = []
        obj: object = None
        with self._lock:
            self._busy = True
            try:
                for number, count in counts:
                    if number not in self._objects:
                        continue
                    left = self._more.pop(number, 0) - count
                    if left >= 0:
                        if left:
                            self._more[number] = left
                        continue
                    obj = self._objects.pop(number)
                    gone.append(obj)
                    if self._numbers.get(id(obj)) == number:
                        del self._numbers[id(obj)]
            finally:
                self._busy = False
        # Outside of the lock, as user destructors run now.
        del obj
        gone.clear()


class Hold:
    """A hold on a table. It ends when it is released, or with the last reference to it."""

    __slots__ = ("_number", "_table")

    def __init__(self, table: Objects, number: int) -> None:
        """Represent the hold with a number."""
        self._table = table
        self._number = number

    def release(self) -> None:
        """End the hold. It can be called more than once."""
        self._table.release(self._number)

    __del__ = release


def _at_once(function: Callable[[], None]) -> None:
    function()


table = Objects()
# Pickles from the VM name this function.
get = table.get
NAME = __name__.encode()


def body_of(parts: Parts) -> tuple[int, Parts]:
    """Return the flags and the parts of a frame's body, and hand out its handles."""
    if type(parts) is not WithHandles:
        return 0, parts
    # First, because it may fail, and then no handle must have been handed out.
    memories, others = hand_over_all(parts.objects)
    numbers = table.hand_out([FRAME if type(obj) is SharedMemory else obj for obj in parts.objects])
    for index, number in memories.items():
        numbers[index] = number
    numbers += others
    return HANDLES, [struct.pack(f"<I{len(numbers)}Q", len(numbers), *numbers), *parts]
