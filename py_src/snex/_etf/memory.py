"""Memory that is handed over to Elixir: `snex.shared` and `snex.shared_array`.

Each has a memory file of its own. When it is sent, a private mapping of the same file replaces its mapping, at the
same address: views of it stay valid, and later writes are seen only here. Then the file is sealed against writing.
That fails while any process, such as a forked child, maps it for writing; so the seal proves to the VM that nothing
will change. If any of this fails, a copy is sealed and sent.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import mmap
import os
import select
import socket
import struct
from contextlib import suppress
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, final

from .._wire.frame import Limit, TooLargeError
from .._wire.mappings import make_private, use_large_pages
from .handles import Layout
from .scalars import LARGE, LEAVES, Large, Raw, header

if TYPE_CHECKING:
    from collections.abc import Sequence

# Bytes. Smaller memories are copied, which costs less than a descriptor.
_WORTH = 256 * 1024
# The most memories of a frame. More would not fit into the socket.
_MOST = 64
# Set in the number of a memory, among those of objects. As in `handover.rs`.
_MEMORY = 1 << 63
_NUMBER = struct.Struct("<Q")
_PIECE = 1024 * 1024

# Constants of `fcntl` that PyPy does not define. The seals are all but that against future writing.
_ADD_SEALS = 1033
_SEALS = 0x1 | 0x2 | 0x4 | 0x8

# Errors of a sandbox, or of a limit on the size of files.
_FORBIDDEN = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EFBIG}


class Channel:
    """The socket to the VM. None if there is no shared memory: then everything is copied."""

    socket: socket.socket | None = None
    numbers = itertools.count(_MEMORY + 1)
    # Of memories that have been sent for a frame that was not written: the next frame with memories names them as well, so that the
    # VM lets go of them.
    unnamed: ClassVar[list[int]] = []

    @classmethod
    def open(cls, fd: int) -> bool:
        """Use a socket. Returns False if the descriptor was not passed on to us."""
        try:
            ours = socket.socket(fileno=fd)
        except OSError:
            return False
        ours.settimeout(0)
        ours.set_inheritable(False)
        cls.socket = ours
        return True

    @classmethod
    def has_room(cls) -> bool:
        """Return whether the socket takes the memories of another frame.

        The VM takes memory from it when it reads the frame that names it, which may be far behind. On Linux, a socket of a stream
        counts as writable while at most a quarter of its buffer is in use, and the rest has room for more than `_MOST`.
        """
        if cls.socket is None:
            return False
        poll = select.poll()
        poll.register(cls.socket, select.POLLOUT)
        return bool(poll.poll(0))


def forget() -> None:
    """Stop using the socket: in a forked child, it belongs to the parent."""
    Channel.socket = None
    Channel.unnamed.clear()


os.register_at_fork(after_in_child=forget)


@final
class SharedMemory(mmap.mmap):
    """Memory made by `shared`."""

    __module__ = "snex"

    # The descriptor, until it has been handed over.
    _files: list[int]

    def __new__(cls, nbytes: int) -> SharedMemory:
        """Make memory of `nbytes` bytes, all of them 0."""
        if nbytes < 1:
            msg = f"expected at least 1 byte of shared memory, got: {nbytes}"
            raise ValueError(msg)
        fd = None if Channel.socket is None else _file(nbytes)
        if fd is None:
            self = super().__new__(cls, -1, nbytes)
            self._files = []
            return self
        try:
            self = super().__new__(cls, fd, nbytes)
        except BaseException:
            os.close(fd)
            raise
        self._files = [fd]
        return self

    def __del__(self) -> None:
        """Close the file, unless it has been handed over."""
        for fd in getattr(self, "_files", ()):
            os.close(fd)

    def resize(self, newsize: int) -> None:
        """Raise an error: the size is fixed."""
        msg = f"shared memory cannot be resized: it has {len(self)} bytes"
        raise TypeError(msg) if newsize != len(self) else ValueError(msg)


def shared(nbytes: int) -> SharedMemory:
    """Return memory that can be sent to Elixir once without being copied.

    It is a writable buffer of bytes, all 0 at first: use slices, a `memoryview`, or
    `numpy.frombuffer`. In Elixir it arrives as a binary. Afterwards it keeps its content in Python, and later writes
    do not reach Elixir. If it is sent again, or if there is no shared memory, it is copied like `bytes`.

    Args:
        nbytes: how many bytes, at least 1.

    Raises:
        ValueError: for less than 1 byte.
        OSError: if there is no memory, or no free descriptor.

    >>> memory = shared(5)
    >>> memory[:] = b"hello"
    >>> bytes(memory)
    b'hello'
    """
    return SharedMemory(nbytes)


def shared_array(shape: int | Sequence[int], dtype: object = "float64") -> Any:  # noqa: ANN401 - numpy's
    """Return a numpy array of zeros that can be sent to Elixir once without copying its numbers.

    It arrives like any other array. Afterwards it keeps its content in Python, and later writes do not reach
    Elixir. Slices and transposed arrays are copied.

    Args:
        shape: the length of each axis, or the length of the only axis.
        dtype: anything that `numpy.dtype` accepts.

    Raises:
        ModuleNotFoundError: if numpy is not installed.
        ValueError: for an array without elements.
        OSError: if there is no memory, or no free descriptor.

    >>> array = shared_array((2, 3), "int32")
    >>> array.shape, int(array.sum())
    ((2, 3), 0)
    """
    try:
        import numpy as np
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        msg = (
            "snex.shared_array needs numpy: add numpy to Python's dependencies. "
            "Without numpy, write numbers through memoryview(memory).cast(format, shape), with memory = snex.shared(nbytes)"
        )
        raise ModuleNotFoundError(msg, name="numpy") from None
    axes = (shape,) if isinstance(shape, int) else tuple(shape)
    kind: Any = np.dtype(dtype)  # type: ignore[call-overload]
    return np.ndarray(axes, kind, SharedMemory(prod(axes) * kind.itemsize))


def hand_over(memory: SharedMemory) -> int:
    """Send a memory to the VM. Returns its number, for the frame that names it.

    Raises:
        OSError: if that cannot be done, not even with a copy.
    """
    channel = Channel.socket
    if channel is None:
        msg = "a forked child cannot hand over memory"
        raise OSError(msg)
    # If two threads send it at once, only one finds the file.
    files, memory._files = memory._files, []  # noqa: SLF001 - ours
    fd = files.pop() if files else -1
    try:
        if fd < 0 or not _seal(memory, fd):
            copy = _copy(memory)
            if fd >= 0:
                os.close(fd)
            fd = copy
        number = next(Channel.numbers)
        socket.send_fds(channel, [_NUMBER.pack(number)], [fd])
        return number
    finally:
        if fd >= 0:
            os.close(fd)


def hand_over_all(objects: Sequence[object]) -> tuple[dict[int, int], list[int]]:
    """Send the memories among the objects of a frame.

    Returns their numbers by their indexes, and others that the frame has to name behind all of these: nobody else will.

    Raises:
        OSError: as `hand_over`. None of them is to be named then.
    """
    sent: dict[int, int] = {}
    others: list[int] = []
    try:
        for index, obj in enumerate(objects):
            if type(obj) is SharedMemory:
                sent[index] = hand_over(obj)
        # Another thread may take some of them meanwhile.
        with suppress(IndexError):
            while sent:
                others.append(Channel.unnamed.pop())
    except BaseException:
        Channel.unnamed += [*sent.values(), *others]
        raise
    return sent, others


def piece(memory: SharedMemory, objects: list[object]) -> bytes | None:
    """Return what stands for a memory in its term, and add it to the term's objects; None if it must be copied."""
    size = len(memory)
    if Channel.socket is None or size < _WORTH or not memory._files:  # noqa: SLF001 - ours
        return None
    if size > Limit.reply:
        raise TooLargeError(size - Limit.reply)
    before = sum(type(obj) is SharedMemory for obj in objects)
    if before >= _MOST or not (before or Channel.has_room()):
        return None
    index: Any = LEAVES[int](len(objects))
    name: Any = LEAVES[str]("")
    objects.append(memory)
    return b"".join((Layout.before_number, index, Layout.before_type, name, Layout.end))


def form(memory: SharedMemory, objects: list[object]) -> object:
    """Return the encoded form of a memory."""
    place = piece(memory, objects)
    return memoryview(memory) if place is None else Raw(place)


class OnMemory:
    """A value that ends with a memory; what precedes the memory is encoded."""

    __slots__ = ("head", "memory")

    def __init__(self, head: bytes, memory: SharedMemory) -> None:
        self.head = head
        self.memory = memory

    def form(self, objects: list[object]) -> Raw:
        """Return the encoded value, with the memory itself, or a copy if it must be copied."""
        place = piece(self.memory, objects)
        if place is not None:
            return Raw(self.head + place)
        size = len(self.memory)
        head = self.head + header(109, size, "a binary of {} bytes")
        if size < LARGE:
            return Raw(head + bytes(self.memory))
        return Raw(Large(head, memoryview(self.memory)))


def below(array: Any) -> SharedMemory | None:  # noqa: ANN401 - numpy's
    """Return the memory that a numpy array consists of, if the array has all of it, in order."""
    base = array.base
    while isinstance(base, type(array)):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if type(base) is SharedMemory and array.flags.c_contiguous and array.nbytes == len(base):
        return base
    return None


def _file(nbytes: int) -> int | None:
    """Return a new file, or None if the system allows no memory files, or none of this size."""
    fd = -1
    try:
        fd = os.memfd_create("snex", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, nbytes)
        use_large_pages(fd, 0, nbytes)
        # Allocate its pages: if one were missing, a write would kill the process.
        os.posix_fallocate(fd, 0, nbytes)
    except BaseException as error:
        if fd >= 0:
            os.close(fd)
        if isinstance(error, OSError) and error.errno in _FORBIDDEN:
            return None
        raise
    return fd


def _copy(memory: SharedMemory) -> int:
    """Return a sealed file with the same content."""
    fd = os.memfd_create("snex", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with memoryview(memory) as view:
            done = 0
            while done < len(view):
                done += os.write(fd, view[done : done + _PIECE])
        fcntl.fcntl(fd, _ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _seal(memory: SharedMemory, fd: int) -> bool:
    """Seal a file, so that nobody can change it any more. Returns False if somebody still could."""
    try:
        make_private(memory, fd)
        fcntl.fcntl(fd, _ADD_SEALS, _SEALS)
    except (ImportError, AttributeError, OSError):
        return False
    return True
