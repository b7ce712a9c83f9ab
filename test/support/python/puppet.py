"""A Python that is none: runs the code of each request as a script of what travels on the wire.

`puppet.py IN OUT PRINTS INTERRUPTS`: speaks the frames of docs/protocol.md, and nothing else. A script has the functions that
are defined in `Request`, as `items`, `end` and `taken`.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys

IN, OUT, PRINTS = (int(argument) for argument in sys.argv[1:4])


def binary(text: str) -> bytes:
    data = text.encode()
    return b"m" + struct.pack(">I", len(data)) + data


def etf_map(pairs: dict[str, bytes]) -> bytes:
    return (
        b"t"
        + struct.pack(">I", len(pairs))
        + b"".join(binary(key) + value for key, value in pairs.items())
    )


NIL = b"j"


def read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(IN, size - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data


def write(
    kind: int, request: int, body: bytes, cause: int = 0, fd: int = OUT, *, first: bool = False
) -> None:
    header = b"SX" + struct.pack("<BBQQ", kind, 0, request, len(body))
    if not first:
        header += struct.pack("<Q", cause)
    os.write(fd, header + body)


def frame() -> tuple[int, int, int, bytes]:
    """The next frame's kind, flags, id and body."""
    _magic, kind, flags, request, length, _cause = struct.unpack("<HBBQQQ", read(28))
    return kind, flags, request, read(length)


class Request:
    def __init__(self, number: int, flags: int, rest: tuple[object, ...]) -> None:
        self.number = number
        self.flags = flags
        self.rest = rest
        self.end = self.result

    def items(self, before: int, items: list[int], fd: int = OUT) -> None:
        body = (
            b"\x83l" + struct.pack(">I", len(items)) + b"".join(bytes([97, n]) for n in items) + NIL
        )
        write(0x8C, self.number, body, before, fd)

    def result(self, total: int, fd: int = OUT) -> None:
        write(0x83, self.number, b"\x83w\x03nil", total, fd)

    def error(self, total: int, reason: str, fd: int = OUT) -> None:
        fields = {
            "code": binary("python_runtime_error"),
            "reason": binary(reason),
            "traceback": NIL,
        }
        write(0x84, self.number, b"\x83" + etf_map({**fields, "exception": b"w\x03nil"}), total, fd)

    def printed(self, text: str) -> None:
        write(0x88, self.number, b"\x01" + text.encode(), 0, PRINTS)

    def taken(self) -> int:
        """Waits for CREDIT, and returns how many items have been taken."""
        kind, _flags, request, body = frame()
        assert (kind, request) == (0x0A, self.number), (kind, request)
        return struct.unpack("<I", body)[0]

    def cancelled(self) -> None:
        """Waits for CANCEL, and says that it has been heard."""
        while (kind_and_request := frame())[0] != 0x05 or kind_and_request[2] != self.number:
            pass
        write(0x89, self.number, b"")


def main() -> None:
    _magic, _kind, _flags, _request, length = struct.unpack("<HBBQQ", read(20))
    read(length)
    texts = {
        "version": "0",
        "python": "3",
        "implementation": "Puppet",
        "executable": "p",
        "encoder": "pure",
    }
    numbers = {"protocol": 4, "pid": 1}
    fields = {key: binary(text) for key, text in texts.items()}
    fields.update({key: bytes([97, number]) for key, number in numbers.items()})
    write(0x81, 0, b"\x83" + etf_map(fields), first=True)
    while True:
        kind, flags, number, body = frame()
        if kind == 0x0D:
            # The script is the first element: an expression, the body of the answer.
            _env, _root, _path, (elements, _unpack), *rest = pickle.loads(body)
            write(0x83, number, b"\x83" + eval(elements[0]))
        if kind == 0x02:
            _env, source, _file, _line, _vars, *rest = pickle.loads(body)
            request = Request(number, flags, tuple(rest))
            names = {
                name: getattr(request, name) for name in dir(request) if not name.startswith("__")
            }
            exec(source, {**names, "PRINTS": PRINTS, "os": os, "write": write})
        elif kind == 0x05:
            write(0x89, number, b"")


main()
