"""What `Snex.Object` does with objects besides calling them. The VM names these functions."""

from __future__ import annotations

from typing import Any

from .invocation import resolve


def put(obj: object, path: str, value: object) -> None:
    """Set an attribute.

    >>> from types import SimpleNamespace
    >>> point = SimpleNamespace(inner=SimpleNamespace())
    >>> put(point, "inner.x", 1)
    >>> point.inner.x
    1
    """
    before, _dot, name = path.rpartition(".")
    setattr(resolve((obj,), before, {}), name, value)


def dumps(obj: object) -> tuple[bytes, list[memoryview]]:
    """Return an object's pickle and its out-of-band buffers."""
    import pickle

    buffers: list[Any] = []
    data = pickle.dumps(obj, 5, buffer_callback=buffers.append)
    return data, [buffer.raw() for buffer in buffers]


def loads(data: bytes, buffers: list[bytearray]) -> object:
    """Return the object that `dumps` pickled, perhaps in another process.

    >>> loads(*dumps({"a": 1}))
    {'a': 1}
    """
    import pickle

    return pickle.loads(data, buffers=buffers)  # noqa: S301 - from another of the VM's interpreters
