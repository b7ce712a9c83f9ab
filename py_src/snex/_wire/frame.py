"""Frames: the header that precedes every body on the wire.

A header has 28 bytes, little-endian: magic, kind, flags, id, length of the body, and the cause of the frame.
The header of each side's first frame lacks the cause, and is the same in all versions of the protocol.
This module knows nothing about descriptors or about what a body means.
"""

from __future__ import annotations

import struct

MAGIC = b"SX"
HEADER_SIZE = 28
FIRST_HEADER_SIZE = 20

# Towards Python.
HELLO = 0x01
EVAL = 0x02
MAKE_ENV = 0x03
DROP = 0x04
CANCEL = 0x05
CALL_RESULT = 0x06
CALL_ERROR = 0x07
INVOKE = 0x09
CREDIT = 0x0A
FEED = 0x0B
FEED_END = 0x0C
MAP = 0x0D

# From Python.
READY = 0x81
REFUSED = 0x82
RESULT = 0x83
ERROR = 0x84
CALL = 0x85
CAST = 0x86
SEND = 0x87
PRINT = 0x88
CANCELLED = 0x89
LOG = 0x8A
APPLY = 0x8B
ITEMS = 0x8C
PULL = 0x8D
CLOSE = 0x8E
SLOTS = 0x8F

# Flags of frames towards Python: a table of buffers; run in a worker thread; how the result is returned.
BUFFERS = 0x01
THREAD = 0x02
AUTO = 0x04
OBJECT = 0x08
# Flag of frames from Python: a table of handles.
HANDLES = 0x10
# More flags of requests: iterate the result; run on the event loop, whatever the code is.
STREAM = 0x20
LOOP = 0x40
# Flag of frames from Python: the body lies in shared memory, and the frame says where.
SHARED = 0x80
_KNOWN_FLAGS = BUFFERS | THREAD | AUTO | OBJECT | STREAM | LOOP

# Snex's own frames (an error with its traceback, a log event) may exceed the limit by this many bytes.
# As in `frame.rs`.
SPARE = 1 << 20

# Frames from Python whose bodies may lie in shared memory.
SHAREABLE = frozenset({RESULT, CALL, CAST, SEND, APPLY, ITEMS})

# Set in the cause of a request: the rest is the number of the source whose items the requesting process produces.
SOURCE = 1 << 63

# Kinds that may follow HELLO.
INCOMING = frozenset(
    {EVAL, INVOKE, MAKE_ENV, DROP, CANCEL, CALL_RESULT, CALL_ERROR, CREDIT, FEED, FEED_END, MAP}
)
_FIRST = frozenset({HELLO, READY, REFUSED})
# Kinds between an interpreter and a process that it serves, after HELLO: from the interpreter, and to it.
SERVED = frozenset({CALL_RESULT, CALL_ERROR})
SERVING = frozenset({CALL, CAST, SEND, LOG, APPLY})

_HEADER = struct.Struct("<2sBBQQQ")
_FIRST_HEADER = struct.Struct("<2sBBQQ")
_pack = _HEADER.pack
# `(magic, kind, flags, id, length, cause)` of the header at an offset, whatever it says.
unpack_header = _HEADER.unpack_from


class FrameError(Exception):
    """The bytes are not a frame of this protocol. Nothing that follows them can be trusted."""


class Limit:
    """The most bytes of the body of a frame to the VM: the option `limits: [reply: bytes]`. HELLO sets it."""

    reply = 2 << 30


class TooLargeError(ValueError):
    """A value is larger than `Limit.reply`."""

    def __init__(self, surplus: int) -> None:
        """Say how large it is at least: the encoder stopped there."""
        super().__init__(
            f"too large for Elixir: at least {Limit.reply + surplus} bytes, and the limit is {Limit.reply} "
            "(the interpreter's option limits: [reply: bytes])"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Return what pickles need: the sizes are in the text."""
        return ValueError, self.args


def encode_header(kind: int, number: int, length: int, flags: int = 0, cause: int = 0) -> bytes:
    """Return what precedes a body of `length` bytes.

    >>> encode_header(CALL, 7, 2, cause=9).hex(" ", 4)
    '53588500 07000000 00000000 02000000 00000000 09000000 00000000'
    """
    if kind in _FIRST:
        return _FIRST_HEADER.pack(MAGIC, kind, flags, number, length)
    return _pack(MAGIC, kind, flags, number, length, cause)


def parse_header(
    data: bytes | bytearray, offset: int = 0, kinds: frozenset[int] = INCOMING
) -> tuple[int, int, int, int, int]:
    r"""Return `(kind, flags, id, length, cause)` of the header at `offset`; only `kinds` are accepted.

    Raises:
        FrameError: for a wrong magic, an unknown kind or an unknown flag; it names what was seen.

    >>> parse_header(bytes.fromhex("5358 05 00 0900000000000000 0000000000000000 0000000000000000"))
    (5, 0, 9, 0, 0)
    >>> parse_header(b"GET / HTTP/1.1\r\nHost: localhost")
    Traceback (most recent call last):
    snex._wire.frame.FrameError: expected a frame, got b'GET / HTTP/1.1\r\nHost: localh'
    """
    _check(data, offset, HEADER_SIZE, kinds, _KNOWN_FLAGS)
    _magic, kind, flags, number, length, cause = unpack_header(data, offset)
    return kind, flags, number, length, cause


def parse_first_header(data: bytes, kind: int) -> int:
    """Return the length of the first frame's body, which has to be of that kind.

    Raises:
        FrameError: as `parse_header`.
    """
    _check(data, 0, FIRST_HEADER_SIZE, frozenset({kind}), 0)
    length: int = _FIRST_HEADER.unpack(data)[-1]
    return length


def _check(
    data: bytes | bytearray, offset: int, size: int, kinds: frozenset[int], known: int
) -> None:
    seen = bytes(data[offset : offset + size])
    magic, kind, flags = seen[:2], seen[2], seen[3]
    if magic != MAGIC:
        msg = f"expected a frame, got {seen!r}"
        raise FrameError(msg)
    if kind not in kinds:
        msg = f"unknown frame kind {kind:#04x}"
        raise FrameError(msg)
    if flags & ~known:
        msg = f"unknown flags {flags:#04x} on a frame of kind {kind:#04x}"
        raise FrameError(msg)
