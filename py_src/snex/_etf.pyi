# The encoder as an extension: `native/snex_etf`. It is not there on every Python.

from collections.abc import Callable

def set_up(
    atom: type,
    distinct_atom: type,
    term: type,
    settings: object,
    convert: Callable[[object], object],
    custom: type,
    leaf: Callable[[bytearray | memoryview], bytes | list[bytes | memoryview]],
    pure: Callable[[object], list[bytes | memoryview]],
    /,
) -> None: ...
def encode(obj: object, /) -> list[bytes | memoryview]: ...

class Room:
    def __init__(self, size: int, mutable: bool, /) -> None: ...
    def view(self, start: int, /) -> memoryview: ...
    def finish(self) -> bytes | bytearray: ...
