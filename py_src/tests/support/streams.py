"""Streams as the VM takes them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from support.vm import CREDIT, ERROR, EVAL, INVOKE, ITEMS, RESULT, STREAM, PythonError, decode, text

if TYPE_CHECKING:
    from support.vm import VM


class Stream:
    """One stream. Nothing is taken but by `credit`."""

    def __init__(self, vm: VM, request: int) -> None:
        self.vm = vm
        self.request = request
        # Items that have arrived in order, and how many there are in the frames that have not been taken.
        self.items: list[Any] = []
        self.frames: list[int] = []
        # The objects that are items, and how many there are in all tables.
        self.handles: list[int] = []
        self.table: list[int] = []
        self._early: dict[int, tuple[bytes, list[int]]] = {}
        self.error: dict[str, Any] | None = None
        self.total: int | None = None

    @property
    def has_ended(self) -> bool:
        return self.total == len(self.items)

    def credit(self, count: int) -> None:
        self.vm.send(CREDIT, self.request, struct.pack("<I", count))

    def take(self) -> None:
        """Give credit for all that has arrived."""
        while self.frames:
            self.credit(self.frames.pop(0))

    def look(self) -> bool:
        """Look at what has been read. Returns whether there was anything."""
        seen = False
        for source in (self.vm.frames, self.vm.prints):
            for before, body, handles in source.items.pop(self.request, ()):
                assert before not in self._early
                self._early[before] = body, handles
        while len(self.items) in self._early:
            body, handles = self._early.pop(len(self.items))
            items = decode(body)
            assert items
            self.items += items
            self.frames.append(len(items))
            # The place of a handle has its index in the second field.
            self.handles += [handles[item[1]] for item in items if handles]
            self.table += handles
            seen = True
        for entry in list(self.vm.pending):
            kind, number, body = entry
            if number == self.request and kind in {RESULT, ERROR, ITEMS}:
                self.vm.pending.remove(entry)
                if kind == ITEMS:
                    continue
                assert self.total is None
                sources = (self.vm.frames, self.vm.prints)
                causes = [s.causes.pop((kind, number), None) for s in sources]
                self.total = next(cause for cause in causes if cause is not None)
                if kind == ERROR:
                    self.error = text(decode(body))
                else:
                    assert decode(body) is None
        return seen

    def more(self) -> None:
        """Wait for more items, or the end."""
        while not self.look() and not self.has_ended:
            self.vm.pending.append(self.vm.read())

    def wait_for(self, count: int) -> list[Any]:
        """Wait until so many items have arrived. Takes none."""
        self.look()
        while len(self.items) < count:
            assert not self.has_ended, (self.items, self.error)
            self.more()
        return self.items

    def ends(self) -> list[Any]:
        """Wait for the end, taking nothing."""
        self.look()
        while not self.has_ended:
            self.more()
        if self.error is not None:
            raise PythonError(self.error)
        return self.items

    def all(self) -> list[Any]:
        """Take everything, to the end."""
        self.look()
        while not self.has_ended:
            self.take()
            self.more()
        if self.error is not None:
            raise PythonError(self.error)
        return self.items


def stream(  # noqa: PLR0913 - the fields of the frame
    vm: VM,
    source: str,
    variables: dict[str, Any] | None = None,
    env: int | None = 0,
    demand: int | None = 256,
    flags: int = 0,
    cause: int = 0,
) -> Stream:
    """Stream what code yields, or returns."""
    fields = (env, source, None, 1, variables or {}, None, None, demand)
    return Stream(vm, vm.request(EVAL, fields, STREAM | flags, cause))


def stream_call(  # noqa: PLR0913 - as above
    vm: VM,
    path: str,
    *args: Any,
    root: Any = None,
    env: int | None = 0,
    demand: int | None = 256,
    flags: int = 0,
    **keywords: Any,
) -> Stream:
    """Stream what a function returns."""
    fields = (env, root, path, list(args), keywords, None, None, demand)
    return Stream(vm, vm.request(INVOKE, fields, STREAM | flags))
