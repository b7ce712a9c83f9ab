"""Memory files in the place of an arena, seen from the side of the VM."""

from __future__ import annotations

import os
import struct

import pytest

needs_memory_files = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="the system has no memory files"
)

SIZE = 1 << 26
BYTES, STR, BYTEARRAY, VIEW, MEMORY = range(5)
TAKEN, FREE = 0, 1


def memory_file() -> int:
    fd = os.memfd_create("test")
    os.ftruncate(fd, SIZE)
    return fd


def reports_of(body: bytes) -> list[tuple[int, int]]:
    return list(struct.iter_unpack("<BQ", body))
