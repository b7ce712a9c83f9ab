"""Frames: the header that precedes every body on the wire.

A header is 20 bytes, little-endian: magic, kind, flags, id, length of the body. This module knows
nothing about descriptors or about what a body means.
"""

from __future__ import annotations

import struct

MAGIC = b"SX"
HEADER_SIZE = 20

# Towards Python.
HELLO = 0x01
EVAL = 0x02
MAKE_ENV = 0x03
DROP = 0x04
CANCEL = 0x05
CALL_RESULT = 0x06
CALL_ERROR = 0x07
EVAL_IN_THREAD = 0x08

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

BUFFERS = 0x01

# What Snex itself says (an error with its traceback, a log event) may be longer than the limit by so much.
# As in `frame.rs`.
SPARE = 1 << 20

INCOMING = frozenset({HELLO, EVAL, MAKE_ENV, DROP, CANCEL, CALL_RESULT, CALL_ERROR, EVAL_IN_THREAD})
# Between an interpreter and a process that it serves: from the interpreter, and towards it.
SERVED = frozenset({HELLO, CALL_RESULT, CALL_ERROR})
SERVING = frozenset({CALL, CAST, SEND, LOG})

_HEADER = struct.Struct("<2sBBQQ")
_pack = _HEADER.pack
# `(magic, kind, flags, id, length)` of the header at an offset, whatever it says.
unpack_header = _HEADER.unpack_from


class FrameError(Exception):
    """What was read is no frame of this protocol. The stream can't be trusted from here on."""


class Limit:
    """Bytes that the body of a frame to the VM may have: the option `limits: [reply: bytes]`. HELLO sets it."""

    reply = 2 << 30


class TooLargeError(ValueError):
    """A value is larger than `Limit.reply`."""

    def __init__(self, surplus: int) -> None:
        """Say how large it is at least: it has not been looked at further than that."""
        super().__init__(
            f"too large for Elixir: at least {Limit.reply + surplus} bytes, and the limit is {Limit.reply}, "
            "which the option limits: [reply: bytes] of the interpreter sets"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Return what pickles need: the sizes are in the text."""
        return ValueError, self.args


def encode_header(kind: int, request: int, length: int, flags: int = 0) -> bytes:
    """Return the 20 bytes that precede a body of `length` bytes.

    >>> encode_header(RESULT, 7, 2).hex(" ")
    '53 58 83 00 07 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00'
    """
    return _pack(MAGIC, kind, flags, request, length)


def parse_header(
    data: bytes | bytearray, offset: int = 0, kinds: frozenset[int] = INCOMING
) -> tuple[int, int, int, int]:
    r"""Return `(kind, flags, id, length)` of the header at `offset`; `kinds` may come.

    Raises:
        FrameError: for a wrong magic, an unknown kind or an unknown flag; it names what was seen.

    >>> parse_header(bytes.fromhex("5358 05 00 0900000000000000 0000000000000000"))
    (5, 0, 9, 0)
    >>> parse_header(b"GET / HTTP/1.1\r\nHost")
    Traceback (most recent call last):
    snex._wire.frame.FrameError: expected a frame, got b'GET / HTTP/1.1\r\nHost'
    """
    magic, kind, flags, request, length = unpack_header(data, offset)
    if magic != MAGIC:
        seen = bytes(data[offset : offset + HEADER_SIZE])
        msg = f"expected a frame, got {seen!r}"
        raise FrameError(msg)
    if kind not in kinds:
        msg = f"unknown frame kind {kind:#04x}"
        raise FrameError(msg)
    if flags & ~BUFFERS:
        msg = f"unknown flags {flags:#04x} on a frame of kind {kind:#04x}"
        raise FrameError(msg)
    return kind, flags, request, length
