"""Runs a program whose system call `memfd_create` fails, as sandboxes have it: `forbid.py PROGRAM ARGUMENT...`.

Exits with status 77 where the system has no such filters.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# <linux/prctl.h>, <linux/seccomp.h>, <linux/bpf_common.h>
NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
FAIL, ALLOW = 0x00050000, 0x7FFF0000

MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def main() -> None:
    number = MEMFD_CREATE.get(platform.machine())
    if number is None:
        sys.exit(77)
    # The number of a system call is the first field of what the filter sees.
    steps = [
        (LOAD, 0, 0, 0),
        (JUMP_IF_EQUAL, 0, 1, number),
        (RETURN, 0, 0, FAIL | errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    library = ctypes.CDLL(None)
    if library.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        sys.exit(77)
    if library.prctl(SET_SECCOMP, FILTER, ctypes.byref(Program(len(steps), code)), 0, 0) != 0:
        sys.exit(77)
    os.execvp(sys.argv[1], sys.argv[1:])


main()
