"""The VM's side of the wire, for tests: starts `python -m snex` and speaks frames with it."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

import snex
from snex._eval import objects
from support.etf import A, decode

PACKAGE = Path(snex.__file__).parents[1]
START = str(PACKAGE / "snex" / "__main__.py")
HELLO, EVAL, MAKE_ENV, DROP, CANCEL, CALL_RESULT, CALL_ERROR, _, INVOKE = range(1, 10)
READY, REFUSED, RESULT, ERROR, CALL, CAST, SEND, PRINT, CANCELLED, LOG, APPLY, ITEMS = range(
    0x81, 0x8D
)
CREDIT = 0x0A
BUFFERS, THREAD, AUTO, OBJECT, HANDLES, STREAM, LOOP, SHARED = 1, 2, 4, 8, 16, 32, 64, 128

HEADER = struct.Struct("<2sBBQQQ")
# Of the first frame of each side.
FIRST_HEADER = struct.Struct("<2sBBQQ")

# A test that waits this long for an event has failed.
PATIENCE = 60.0

# Whether `coverage` looks at our subprocesses, too.
MEASURED = any(name.startswith("COVERAGE_PROCESS") for name in os.environ)
UNMEASURABLE = (
    "our signal handlers raise wherever Python is, also where `coverage` holds a lock of its own, "
    "which nobody releases then: mark this test with pytest.mark.interrupts"
)

SET_HEAD = b"t\0\0\0\x02w\x0a__struct__w\x0dElixir.MapSetw\x03map"


class PythonError(Exception):
    """An ERROR frame; `fields` has text instead of binaries."""

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__(fields["reason"])
        self.fields = fields


def text(value: Any) -> Any:
    """Turn the binaries of an ERROR frame into text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [text(item) for item in value]
    if isinstance(value, dict):
        return {text(k): text(v) for k, v in value.items()}
    return value


def frame(kind: int, number: int, body: bytes = b"", flags: int = 0, cause: int = 0) -> bytes:
    if kind == HELLO:
        return FIRST_HEADER.pack(b"SX", kind, flags, number, len(body)) + body
    return HEADER.pack(b"SX", kind, flags, number, len(body), cause) + body


def with_buffers(obj: Any, buffers: list[tuple[int, bytes]]) -> bytes:
    """Return the body of a frame with BUFFERS; `obj` has a `PickleBuffer` in each one's place."""
    seen: list[Any] = []
    data = pickle.dumps(obj, 5, buffer_callback=seen.append)
    assert len(seen) == len(buffers)
    table = b"".join(struct.pack("<BQ", kind, len(content)) for kind, content in buffers)
    return struct.pack("<I", len(buffers)) + table + data + b"".join(c for _, c in buffers)


def place() -> pickle.PickleBuffer:
    """Return what stands for a buffer in the object given to `with_buffers`."""
    return pickle.PickleBuffer(bytearray())


class Ref:
    """An object of the interpreter's, in a request."""

    def __init__(self, number: int) -> None:
        self.number = number


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is Ref:
            return objects.get, (obj.number,)
        return "get" if obj is objects.get else NotImplemented


def dumps(fields: Any) -> bytes:
    """Pickle the fields of a request."""
    buffer = io.BytesIO()
    _Pickler(buffer, 5).dump(fields)
    return buffer.getvalue()


Self = TypeVar("Self", bound="VM")


class Source:
    """Frames from one descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.data = bytearray()
        # The request that each frame names, and the numbers of objects in its table of handles, by kind and number.
        self.causes: dict[tuple[int, int], int] = {}
        self.handles: dict[tuple[int, int], list[int]] = {}
        # Of each ITEMS frame of a request: the number of items before, the body, and the numbers of objects.
        self.items: dict[int, list[tuple[int, bytes, list[int]]]] = {}
        # Frames whose bodies only say where in shared memory they lie, by kind and number.
        self.shared: set[tuple[int, int]] = set()

    def frame(self) -> tuple[int, int, bytes] | None:
        """Return the next frame if it has arrived as a whole."""
        data = self.data
        first = bytes(data[2:3]) in {bytes((READY,)), bytes((REFUSED,))}
        size = FIRST_HEADER.size if first else HEADER.size
        if len(data) < size:
            return None
        magic, kind, flags, number, length = FIRST_HEADER.unpack_from(data)
        assert magic == b"SX", data[:size]
        assert flags in {0, HANDLES, SHARED}, data[:size]
        end = size + length
        if len(data) < end:
            return None
        body = bytes(memoryview(data)[size:end])
        if flags == SHARED:
            self.shared.add((kind, number))
        elif flags:
            (count,) = struct.unpack_from("<I", body)
            self.handles[kind, number] = list(struct.unpack_from(f"<{count}Q", body, 4))
            body = body[4 + 8 * count :]
        if not first:
            self.causes[kind, number] = HEADER.unpack_from(data)[-1]
        if kind == ITEMS:
            handed = self.handles.pop((kind, number), [])
            entry = (self.causes.pop((kind, number)), body, handed)
            self.items.setdefault(number, []).append(entry)
        del data[:end]
        return int(kind), int(number), body

    def more(self) -> bool:
        """Read once. Returns False at the end."""
        chunk = os.read(self.fd, 1 << 20)
        self.data += chunk
        return bool(chunk)


class VM:
    """One interpreter. Use as a context manager; the process is gone afterwards.

    `full=False` starts it with two descriptors, without prints and interrupts.
    """

    def __init__(  # noqa: PLR0913 - each is a way to start one
        self,
        *,
        hello: dict[str, Any] | None = None,
        stdio: bool = False,
        full: bool = True,
        greet: bool = True,
        args: tuple[str, ...] = (),
        python: str = sys.executable,
        cwd: Path | None = None,
        python_path: str = os.environ.get("PYTHONPATH", ""),
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        python_in, self.out_fd = os.pipe()
        self.in_fd, python_out = os.pipe()
        paths = filter(None, [str(PACKAGE), python_path])
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        theirs = [python_in, python_out]
        self.print_fd = self.interrupt_fd = -1
        if full and not stdio:
            self.print_fd, prints = os.pipe()
            interrupts, self.interrupt_fd = os.pipe()
            theirs += [prints, interrupts]
        numbers = ("0", "1") if stdio else map(str, theirs)
        self.process = subprocess.Popen(
            [python, *args, *(("-m", "snex") if stdio else (START,)), *numbers],
            stdin=python_in if stdio else subprocess.DEVNULL,
            stdout=python_out if stdio else subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds if stdio else (*theirs, *pass_fds),
            cwd=cwd,
            env=env,
        )
        for fd in theirs:
            os.close(fd)
        self.next_id = 1
        self.pending: list[tuple[int, int, bytes]] = []
        self.frames = Source(self.in_fd)
        self.prints = Source(self.print_fd)
        # Where `read` reads from.
        self.sources: list[Source] = [self.frames, *([self.prints] if self.print_fd >= 0 else ())]
        if greet:
            self.greet(hello or {})

    def __enter__(self: Self) -> Self:  # noqa: PYI019 - `typing.Self` came with 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        if MEASURED:
            # It writes down at its end what it has run. Code that blocks has no such end.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
        self.process.kill()
        self.process.wait(PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        for fd in (self.in_fd, self.print_fd, self.interrupt_fd):
            if fd >= 0:
                os.close(fd)

    def greet(self, hello: dict[str, Any]) -> None:
        fields = {
            "protocol": 4,
            "version": "1.0.0",
            "eager": True,
            "buffer_limits": (4 << 20, 8 << 20),
            "cleanup_timeout": 100,
            "map_set": (SET_HEAD, b"j"),
        }
        self.send(HELLO, 0, pickle.dumps({**fields, **hello}))

    def ready(self) -> dict[Any, Any]:
        """Return the fields of READY."""
        return dict(text(decode(self.expect(READY)[1])))

    def hang_up(self) -> None:
        """Close the pipe towards Python."""
        if self.out_fd >= 0:
            os.close(self.out_fd)
            self.out_fd = -1

    def send(
        self, kind: int, request: int, body: bytes = b"", flags: int = 0, cause: int = 0
    ) -> None:
        """Write a frame; blocks while the pipe is full, as tests do not."""
        data = memoryview(frame(kind, request, body, flags, cause))
        while data:
            data = data[os.write(self.out_fd, data) :]

    def request(self, kind: int, fields: Any, flags: int = 0, cause: int = 0) -> int:
        number = self.next_id
        self.next_id += 1
        self.send(kind, number, dumps(fields), flags, cause)
        return number

    def eval(  # noqa: PLR0913 - the fields of the frame
        self,
        source: str,
        env: int | None = 0,
        variables: dict[str, Any] | None = None,
        file: str | None = None,
        line: int = 1,
        *,
        thread: bool = False,
        cause: int = 0,
    ) -> int:
        fields = (env, source, file, line, variables or {})
        return self.request(EVAL, fields, THREAD if thread else 0, cause)

    def run(self, source: str, *args: Any, **more: Any) -> Any:
        """Evaluate and return the result, or raise `PythonError`."""
        return self.reply(self.eval(source, *args, **more))

    def answer(self, call: int, value: Any = None) -> None:
        """Answer a call of Python's."""
        self.send(CALL_RESULT, call, pickle.dumps(value))

    def make_env(self, env: int, sources: list[Any], variables: dict[str, Any]) -> Any:
        return self.reply(self.request(MAKE_ENV, (env, sources, variables)))

    def invoke(
        self,
        path: str,
        *args: Any,
        root: Any = None,
        env: int | None = 0,
        flags: int = AUTO,
        **keywords: Any,
    ) -> int:
        """Ask for a call; objects are given as `Ref`."""
        return self.request(INVOKE, (env, root, path, list(args), keywords), flags)

    def handles(self, number: int, kind: int = RESULT) -> list[int]:
        """Return the numbers of the objects that came with an answer which was read."""
        return self.frames.handles.pop((kind, number), [])

    def drop_objects(self, *counts: tuple[int, int]) -> None:
        self.send(DROP, 0, b"".join(struct.pack("<BQI", 1, *pair) for pair in counts))

    def drop_envs(self, *envs: int) -> None:
        self.send(DROP, 0, b"".join(struct.pack("<BQI", 0, env, 1) for env in envs))

    def reply(self, request: int) -> Any:
        """Wait for the answer to a request, whatever else comes before."""
        while True:
            for entry in self.pending:
                kind, number, body = entry
                if number == request and kind in {RESULT, ERROR}:
                    self.pending.remove(entry)
                    if kind == RESULT:
                        return decode(body)
                    raise PythonError(text(decode(body)))
            self.pending.append(self.read())

    def expect(self, kind: int) -> tuple[int, bytes]:
        """Wait for a frame of a kind and return its id and body."""
        while True:
            for entry in self.pending:
                if entry[0] == kind:
                    self.pending.remove(entry)
                    return entry[1], entry[2]
            self.pending.append(self.read())

    def read(self, patience: float = PATIENCE) -> tuple[int, int, bytes]:
        """Read the next frame, from any descriptor. Raises `TimeoutError` where there is none."""
        while True:
            for source in self.sources:
                frame = source.frame()
                if frame is not None:
                    return frame
            if not self.sources:
                raise EOFError
            ready, _, _ = select.select([s.fd for s in self.sources], [], [], patience)
            if not ready:
                msg = "nothing arrived"
                raise TimeoutError(msg)
            for source in list(self.sources):
                if source.fd in ready and not source.more():
                    self.sources.remove(source)
                    if source is self.frames:
                        raise EOFError

    def cancel(self, request: int) -> None:
        """Cancel as the VM does: with interrupts, until CANCELLED comes."""
        self.send(CANCEL, request)
        deadline = time.monotonic() + PATIENCE
        while (CANCELLED, request, b"") not in self.pending:
            assert time.monotonic() < deadline, f"request {request} does not come back"
            try:
                self.pending.append(self.read(0.02))
            except TimeoutError:
                # A busy machine may only be slow. What needs an interrupt is not measured.
                if not MEASURED:
                    self.interrupt(request)
        self.pending.remove((CANCELLED, request, b""))

    def interrupt(self, request: int) -> None:
        assert not MEASURED, UNMEASURABLE
        os.write(self.interrupt_fd, struct.pack("<Q", request))
        self.process.send_signal(signal.SIGURG)

    def terminate(self) -> None:
        """Send SIGTERM, as the warden does."""
        assert not MEASURED, UNMEASURABLE
        self.process.send_signal(signal.SIGTERM)

    def printed(self, request: int, stream: int = 1) -> bytes:
        """Take what has been printed for a request, of the frames that were read by now."""
        mine = [f for f in self.pending if f[:2] == (PRINT, request) and f[2][0] == stream]
        for frame in mine:
            self.pending.remove(frame)
        return b"".join(body[1:] for _, _, body in mine)

    def answers(self, request: int) -> list[int]:
        """Return the kinds of all that came for a request, but for prints, and was not taken."""
        return [kind for kind, number, _ in self.pending if number == request and kind != PRINT]

    def finish(self) -> None:
        """End Python in good order, and read what it still had to say."""
        self.hang_up()
        while self.sources:
            try:
                self.pending.append(self.read())
            except EOFError:
                continue
        assert self.wait() == 0

    def wait(self) -> int:
        """Wait for the process to end and return its status."""
        return self.process.wait(PATIENCE)

    def errors(self) -> str:
        """Return all of standard error, once the process has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


def wait_until(condition: Any) -> None:
    """Wait for something that has no event of its own, outside of our process."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


__all__ = ["VM", "A", "PythonError", "decode", "frame", "place", "wait_until", "with_buffers"]
