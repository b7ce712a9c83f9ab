"""The table of objects that the VM has handles of.

An object that is handed out again keeps its number, as long as the VM has a handle of it: one entry, with
a count of its handles. The VM gives handles back with `DROP` frames; with the last one the entry goes.

Handles are handed out on any thread, at the moment when their frame is sent, and given back on the event
loop's thread.
"""

from __future__ import annotations

import itertools
import struct
import threading
from typing import TYPE_CHECKING, Any

from .._etf.handles import WithHandles
from .._wire.frame import HANDLES
from .envs import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Parts = Sequence[bytes | memoryview]


class Objects:
    """The table. There is one for the process."""

    def __init__(self) -> None:
        """Begin empty."""
        self._objects: dict[int, object] = {}
        # The number of each object, by its identity. The table keeps the object, and so its identity.
        self._numbers: dict[int, int] = {}
        # Of objects with more than one handle: how many more.
        self._more: dict[int, int] = {}
        self._next = itertools.count(1)
        # Re-entrant: the garbage collector may run somebody's `__del__` in here, which hands something out.
        self._lock = threading.RLock()
        self._busy = False

    def __len__(self) -> int:
        """Count the objects."""
        return len(self._objects)

    def hand_out(self, handed: Sequence[object]) -> list[int]:
        """Count one more handle of each object, and return their numbers."""
        with self._lock:
            if self._busy:
                # Further up on this stack, the table is just being changed. Numbers of their own do no harm.
                numbers = list(itertools.islice(self._next, len(handed)))
                self._objects.update(zip(numbers, handed, strict=True))
                return numbers
            self._busy = True
            try:
                return [self._hand_out(obj) for obj in handed]
            finally:
                self._busy = False

    def _hand_out(self, obj: object) -> int:
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

    def drop(self, counts: Iterable[tuple[int, int]]) -> None:
        """Take back handles: pairs of a number, and how many there are. Unknown numbers are ignored."""
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
        # Outside of the lock: destructors of the user's run now.
        del obj
        gone.clear()


table = Objects()
# Pickles of the VM name this function.
get = table.get


def body_of(parts: Parts) -> tuple[int, Parts]:
    """Return the flags and the parts of a frame's body; handles in it are handed out now."""
    if type(parts) is not WithHandles:
        return 0, parts
    numbers = table.hand_out(parts.objects)
    return HANDLES, [struct.pack(f"<I{len(numbers)}Q", len(numbers), *numbers), *parts]
