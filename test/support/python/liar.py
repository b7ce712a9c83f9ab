"""A Python that is none: says what it is told to, instead of what a Snex would say.

`liar.py GREETING ANSWER END ... IN OUT [PRINTS INTERRUPTS]`: reads `HELLO`, writes GREETING, reads
the frame of a request, writes ANSWER, and then does END: `wait` for the end of its input, `close` its
output and wait, or `exit`. Both are names of files. The descriptors are the last arguments.
"""

from __future__ import annotations

import os
import struct
import sys


def main() -> None:
    greeting, answer, end = sys.argv[1:4]
    numbers = [int(argument) for argument in sys.argv[4:] if argument.isdigit()]
    in_fd, out_fd = numbers[:2]
    _read_frame(in_fd, 20)
    _write(out_fd, greeting)
    if _read_frame(in_fd, 28):
        _write(out_fd, answer)
    if end == "close":
        os.close(out_fd)
    if end != "exit":
        while os.read(in_fd, 65536):
            pass
    # Without the goodbyes of an interpreter, which might fail.
    os._exit(0)


def _read_frame(fd: int, header_size: int) -> bool:
    header = _read(fd, header_size)
    if len(header) < header_size:
        return False
    (length,) = struct.unpack_from("<Q", header, 12)
    return len(_read(fd, length)) == length


def _read(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(fd, size - len(data))
        if not piece:
            break
        data += piece
    return data


def _write(fd: int, path: str) -> None:
    with open(path, "rb") as file:
        data = file.read()
    try:
        while data:
            data = data[os.write(fd, data) :]
    except BrokenPipeError:
        # Nobody listens any more, and that is just as well.
        pass


main()
