from __future__ import annotations

import array
import contextlib
import fcntl
import gc
import mmap
import os
import pickle
import select
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.etf import decode
from support.garbage import in_a_thread
from support.slots import needs_memory_files
from support.vm import AUTO, EVAL, RESULT, VM

import snex
from snex._etf import memory
from snex._etf.encoder import encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_memory_files

MEMORY = 1 << 63
SIZE = 300_000
# F_GET_SEALS, and all seals that there are but that against writing in future.
GET_SEALS, SEALS = 1034, 15


class Receiver:
    """The VM's end of the socket."""

    def __init__(self) -> None:
        self.socket, self.theirs = socket.socketpair()
        self.socket.settimeout(60)

    def receive(self) -> tuple[int, bytes]:
        """Return the number and the content of the next memory, after a look at its seals."""
        number, ancillary, _, _ = self.socket.recvmsg(8, socket.CMSG_SPACE(4))
        ((_, _, data),) = ancillary
        (fd,) = array.array("i", data)
        try:
            assert fcntl.fcntl(fd, GET_SEALS) == SEALS
            size = os.fstat(fd).st_size
            return struct.unpack("<Q", number)[0], os.pread(fd, size, 0)
        finally:
            os.close(fd)

    def is_empty(self) -> bool:
        self.socket.settimeout(0)
        try:
            self.socket.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(60)
        return False


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.theirs.settimeout(0)
    monkeypatch.setattr(memory.Channel, "socket", receiver.theirs)
    yield receiver
    receiver.socket.close()
    receiver.theirs.close()


def numbers(value: Any) -> list[Any]:
    return getattr(encode(value), "objects", [])


def test_memory_is_a_buffer_of_zeros_that_can_be_written_to() -> None:
    shared = snex.shared(10)
    assert bytes(shared) == bytes(10)
    shared[2:5] = b"abc"
    with memoryview(shared) as view:
        view[0] = 1
        assert bytes(view) == b"\1\0abc\0\0\0\0\0"
    for nonsense in (0, -1):
        with pytest.raises(ValueError, match="at least 1 byte of shared memory, got"):
            snex.shared(nonsense)
    with pytest.raises((TypeError, ValueError), match="cannot be resized: it has 10 bytes"):
        shared.resize(20)


def test_without_a_channel_it_is_encoded_like_bytes() -> None:
    shared = snex.shared(SIZE)
    shared[:3] = b"abc"
    assert decode(b"".join(encode([shared]))) == [b"abc" + bytes(SIZE - 3)]


def test_a_small_one_is_encoded_like_bytes(receiver: Receiver) -> None:
    shared = snex.shared(5)
    shared[:] = b"hello"
    assert decode(b"".join(encode(shared))) == b"hello"
    assert receiver.is_empty()


def test_it_is_handed_over_sealed_and_views_keep_its_content(receiver: Receiver) -> None:
    shared = snex.shared(SIZE)
    view = memoryview(shared)
    view[:5] = b"hello"
    assert numbers({"x": shared}) == [shared]
    # Nothing has happened yet: the value might not have been encoded to its end.
    view[:1] = b"j"
    number = memory.hand_over(shared)
    view[:5] = b"other"
    assert receiver.receive() == (number, b"jello" + bytes(SIZE - 5))
    assert number & MEMORY
    assert bytes(shared[:5]) == b"other"


def test_a_second_time_it_is_copied(receiver: Receiver) -> None:
    shared = snex.shared(SIZE)
    first = memory.hand_over(shared)
    shared[:1] = b"x"
    assert numbers(shared) == []
    assert decode(b"".join(encode(shared)))[:2] == b"x\0"
    # Two frames that are under way at once.
    second = memory.hand_over(shared)
    assert first != second
    assert receiver.receive() == (first, bytes(SIZE))
    assert receiver.receive() == (second, b"x" + bytes(SIZE - 1))


def test_what_is_mapped_elsewhere_is_copied(receiver: Receiver) -> None:
    shared = snex.shared(SIZE)
    shared[:1] = b"x"
    with mmap.mmap(shared._files[0], SIZE) as other:
        number = memory.hand_over(shared)
        other[:1] = b"y"
    assert receiver.receive() == (number, b"x" + bytes(SIZE - 1))


def test_where_it_cannot_be_made_private_it_is_copied(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ImportError

    monkeypatch.setattr(memory, "make_private", refuse)
    shared = snex.shared(SIZE)
    shared[:1] = b"x"
    number = memory.hand_over(shared)
    shared[:1] = b"y"
    assert receiver.receive() == (number, b"x" + bytes(SIZE - 1))


def test_one_term_has_a_bounded_number_of_them(receiver: Receiver) -> None:
    many = [snex.shared(SIZE) for _ in range(70)]
    assert len(numbers(many)) == 64
    assert receiver.is_empty()


def test_the_limit_of_a_reply_holds(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snex._wire.frame.Limit.reply", SIZE - 1)
    with pytest.raises(ValueError, match="too large for Elixir"):
        encode(snex.shared(SIZE))
    assert receiver.is_empty()


def test_no_descriptor_is_left(receiver: Receiver) -> None:
    def used() -> None:
        shared = snex.shared(SIZE)
        memory.hand_over(shared)
        receiver.receive()
        snex.shared(SIZE)

    def descriptors() -> int:
        for _ in range(5):
            gc.collect()
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a number is all

    in_a_thread(used)
    before = descriptors()
    for _ in range(20):
        in_a_thread(used)
    assert descriptors() == before


@contextlib.contextmanager
def handing_over() -> Iterator[tuple[VM, Receiver]]:
    receiver = Receiver()
    fd = receiver.theirs.fileno()
    with VM(hello={"handover": fd}, pass_fds=(fd,)) as vm, receiver.socket, receiver.theirs:
        yield vm, receiver


def test_a_result_names_the_memory() -> None:
    with handing_over() as (vm, receiver):
        vm.eval("import snex; x = snex.shared(300000); x[:2] = b'hi'; return {'a': [1, x]}")
        number, _ = vm.expect(RESULT)
        (handle,) = vm.frames.handles[RESULT, number]
        assert receiver.receive() == (handle, b"hi" + bytes(SIZE - 2))
        # It is a copy from now on.
        vm.eval("return bytes(x[:2]), x")
        assert decode(vm.expect(RESULT)[1]) == (b"hi", b"hi" + bytes(SIZE - 2))


def test_what_a_full_socket_does_not_take_is_copied() -> None:
    with handing_over() as (vm, receiver):
        vm.run("import snex")
        taken: list[int] = []
        while True:
            vm.eval("return [snex.shared(300000) for _ in range(64)]")
            number, body = vm.expect(RESULT)
            if (RESULT, number) not in vm.frames.handles:
                break
            taken += vm.frames.handles[RESULT, number]
        assert decode(body) == [bytes(300000)] * 64
        # Those of several frames.
        assert len(taken) > 64
        assert [receiver.receive()[0] for _ in taken] == taken
        assert receiver.is_empty()
        # Then there is room again.
        vm.eval("return snex.shared(300000)")
        number, _ = vm.expect(RESULT)
        assert vm.frames.handles[RESULT, number] == [receiver.receive()[0]]


def test_what_was_sent_for_a_frame_that_failed_is_named_by_the_next_one() -> None:
    with handing_over() as (vm, receiver):
        sent, named = set(), set()

        def drain() -> None:
            while select.select([receiver.socket], [], [], 0)[0]:
                sent.add(receiver.receive()[0])

        # Without the look whether there is room, as if other threads took it.
        vm.run("import snex; from snex._etf.memory import Channel; Channel.has_room = lambda: True")
        for _ in range(100):
            vm.eval("return [snex.shared(300000) for _ in range(64)]")
            kind, number, _ = vm.read()
            if kind != RESULT:
                break
            named.update(vm.frames.handles[kind, number])
        drain()
        # A few more than those: the socket was full in the midst of a frame.
        assert named < sent
        assert len(named) % 64 == 0
        vm.request(EVAL, (0, "return [object(), snex.shared(300000)]", None, 1, {}), AUTO)
        number, _ = vm.expect(RESULT)
        drain()
        object_number, *memories = vm.frames.handles[RESULT, number]
        assert object_number < MEMORY
        assert named | set(memories) == sent
        assert len(named) + len(memories) == len(sent)


def test_a_forked_child_names_nothing_that_its_parent_has_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory.Channel, "unnamed", [MEMORY + 1])
    child = os.fork()
    if child == 0:
        os._exit(len(memory.Channel.unnamed))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert memory.Channel.unnamed == [MEMORY + 1]


def test_an_array_without_numpy_is_refused_with_what_does_the_same(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ModuleNotFoundError, match="needs numpy.*memoryview.*snex.shared") as caught:
        snex.shared_array((200, 200), "f8")
    assert caught.value.name == "numpy"
    shared = snex.shared(320_000)
    memoryview(shared).cast("d", (200, 200))[199, 199] = 1.5
    assert numbers(shared) == [shared]
    number = memory.hand_over(shared)
    assert receiver.receive() == (number, bytes(319_992) + struct.pack("<d", 1.5))


def test_a_numpy_that_cannot_be_imported_says_so_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath("numpy.py").write_text("import that_is_missing", encoding="utf-8")
    for name in [name for name in sys.modules if name.partition(".")[0] == "numpy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="No module named 'that_is_missing'"):
        snex.shared_array(10)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="numpy's wheels are for CPython")
def test_an_array_is_handed_over_as_a_whole(receiver: Receiver) -> None:
    np = pytest.importorskip("numpy")
    shared = snex.shared_array((100, 500), "f8")
    assert (shared.shape, shared.dtype, float(shared.sum())) == ((100, 500), np.dtype("f8"), 0.0)
    shared[0, 0] = 1.5
    for array_, count in [(shared, 1), (shared.reshape(-1), 1), (shared[1:], 0), (shared.T, 0)]:
        assert len(numbers(array_)) == count
    number = memory.hand_over(numbers(shared)[0])
    shared[0, 0] = 7
    assert receiver.receive() == (number, struct.pack("<d", 1.5) + bytes(399_992))
    assert shared[0, 0] == 7
    assert numbers(shared) == []
    assert pickle.loads(pickle.dumps(shared))[0, 0] == 7
