"""Streams towards Python, as the VM sends them."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from typing import TYPE_CHECKING, Any

from snex._elixir import streams
from snex._etf.terms import Term

if TYPE_CHECKING:
    from support.vm import VM

FEED, FEED_END = 0x0B, 0x0C
PULL, CLOSE = 0x8D, 0x8E


class Feed:
    """Stands for a stream in a value that is pickled by `dumps`."""

    def __init__(self, number: int, demand: int = 4) -> None:
        self.fields = (number, demand)


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        return (streams.open, obj.fields) if type(obj) is Feed else NotImplemented


def dumps(value: object) -> bytes:
    """Pickle a value with streams."""
    buffer = io.BytesIO()
    _Pickler(buffer, 5).dump(value)
    return buffer.getvalue()


def items(*values: object, bad: bytes = b"") -> bytes:
    """Return the body of a FEED, behind whose items comes something that is no item."""
    parts = [pickletools.optimize(pickle.dumps(value, 2))[2:-1] + b"a" for value in values]
    return b"\x80\x05]\x94" + b"".join(parts) + bad + b"."


def failure(message: str) -> bytes:
    """Return the body of a FEED_END."""
    fields = {"kind": "error", "reason": Term(b"\x83a\x01"), "message": message, "stacktrace": []}
    return pickle.dumps(fields)


def pulled(vm: VM) -> tuple[int, int]:
    """Wait for a PULL; return the source and how many items it wants."""
    number, body = vm.expect(PULL)
    return number, struct.unpack("<I", body)[0]


def begin(vm: VM, code: str, demand: int = 4, **more: Any) -> int:
    """Run code that has a stream, `rows`, of source 1; return the number of the request."""
    fields = (0, code, None, 1, {"rows": Feed(1, demand)})
    number = vm.next_id
    vm.next_id += 1
    vm.send(0x02, number, dumps(fields), more.get("flags", 0))
    return number
