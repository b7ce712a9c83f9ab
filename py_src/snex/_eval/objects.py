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


class _Entry:
    __slots__ = ("count", "object")

    def __init__(self, obj: object) -> None:
        self.object = obj
        self.count = 1


class Objects:
    """The table. There is one for the process."""

    def __init__(self) -> None:
        """Begin empty."""
        self._entries: dict[int, _Entry] = {}
        # The number of each object, by its identity. The entry keeps the object, and so its identity.
        self._numbers: dict[int, int] = {}
        self._next = itertools.count(1)
        # Re-entrant: the garbage collector may run somebody's `__del__` in here, which hands something out.
        self._lock = threading.RLock()
        self._busy = False

    def __len__(self) -> int:
        """Count the objects."""
        return len(self._entries)

    def hand_out(self, obj: object) -> int:
        """Count one more handle of an object, and return its number."""
        with self._lock:
            if self._busy:
                # Further up on this stack, the table is just being changed. A number of its own does no harm.
                number = next(self._next)
                self._entries[number] = _Entry(obj)
                return number
            self._busy = True
            try:
                number = self._numbers.get(id(obj), 0)
                entry = self._entries.get(number)
                if entry is not None:
                    entry.count += 1
                else:
                    number = next(self._next)
                    self._entries[number] = _Entry(obj)
                    self._numbers[id(obj)] = number
                return number
            finally:
                self._busy = False

    def get(self, number: int) -> Any:  # noqa: ANN401 - whatever it is
        """Return an object.

        Raises:
            EnvError: `object_not_found`.
        """
        entry = self._entries.get(number)
        if entry is None:
            raise EnvError("object_not_found", f"no object with id {number}")
        return entry.object

    def drop(self, counts: Iterable[tuple[int, int]]) -> None:
        """Take back handles: pairs of a number, and how many there are. Unknown numbers are ignored."""
        gone: list[_Entry] = []
        with self._lock:
            self._busy = True
            try:
                for number, count in counts:
                    entry = self._entries.get(number)
                    if entry is None:
                        continue
                    entry.count -= count
                    if entry.count <= 0:
                        del self._entries[number]
                        if self._numbers.get(id(entry.object)) == number:
                            del self._numbers[id(entry.object)]
                        gone.append(entry)
            finally:
                self._busy = False
        # Outside of the lock: destructors of the user's run now.
        gone.clear()


table = Objects()
# Pickles of the VM name this function.
get = table.get


def body_of(parts: Parts) -> tuple[int, Parts]:
    """Return the flags and the parts of a frame's body; handles in it are handed out now."""
    if type(parts) is not WithHandles:
        return 0, parts
    numbers = [table.hand_out(obj) for obj in parts.objects]
    return HANDLES, [struct.pack(f"<I{len(numbers)}Q", len(numbers), *numbers), *parts]
