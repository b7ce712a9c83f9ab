"""A template and its copies, with this process as their warden."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
from typing import Any

from support.vm import PATIENCE, VM, Source

_PR_SET_CHILD_SUBREAPER = 36


class Template(VM):
    """An interpreter that can be asked for copies."""

    def __init__(self, **more: Any) -> None:
        # As a warden does: copies become children of this process.
        assert not ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.forks, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.forks.settimeout(PATIENCE)
        hello = {"forks": theirs.fileno(), **more.pop("hello", {})}
        try:
            super().__init__(
                hello=hello, pass_fds=(theirs.fileno(), *more.pop("pass_fds", ())), **more
            )
        finally:
            theirs.close()
        self.trees = 0
        self.ready()

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        self.forks.close()

    def ask(
        self, descriptors: list[int], *, warden: int | None = None, ignore_threads: bool = False
    ) -> int:
        """Ask for a copy. Returns its number."""
        self.trees += 1
        message = struct.pack("<Qi?", self.trees, warden or os.getpid(), ignore_threads)
        socket.send_fds(self.forks, [message], descriptors)
        return self.trees

    def told(self) -> tuple[int, int, str]:
        """Return the next answer: the number of the copy, its process id, and why there is none."""
        message = self.forks.recv(8192)
        return (*struct.unpack_from("<Qi", message), message[12:].decode())

    def refusal(self, **more: Any) -> str:
        """Ask for a copy that there will not be, and return why."""
        pipe = os.pipe()
        try:
            tree = self.ask([pipe[0], *[pipe[1]] * 5], **more)
        finally:
            for fd in pipe:
                os.close(fd)
        number, pid, reason = self.told()
        assert (number, pid) == (tree, 0)
        return reason


class Copy(VM):
    """A copy of a template. Use as a context manager; it is gone and reaped afterwards."""

    def __init__(
        self, template: Template, hello: dict[str, Any] | None = None, **more: Any
    ) -> None:
        python_in, self.out_fd = os.pipe()
        self.in_fd, python_out = os.pipe()
        self.error_fd, errors = os.pipe()
        self.output_fd, output = os.pipe()
        self.print_fd, prints = os.pipe()
        interrupts, self.interrupt_fd = os.pipe()
        theirs = [python_in, python_out, errors, output, prints, interrupts]
        tree = template.ask(theirs, **more)
        for fd in theirs:
            os.close(fd)
        number, self.pid, reason = template.told()
        assert (number, reason) == (tree, "")
        self.status: int | None = None
        self.next_id = 1
        self.pending: list[tuple[int, int, bytes]] = []
        self.frames = Source(self.in_fd)
        self.prints = Source(self.print_fd)
        self.sources = [self.frames, self.prints]
        self.greet(hello or {})
        self.greeting = self.ready()

    def wait(self) -> int:
        """Reap the copy. Returns how it ended, as `os.waitstatus_to_exitcode` does."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def finish(self) -> None:
        """End the copy in good order."""
        self.hang_up()
        assert self.wait() == 0

    def written(self, fd: int) -> str:
        """Return all that was written to an output, to its end."""
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read().decode()

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        for fd in (self.in_fd, self.error_fd, self.output_fd, self.print_fd, self.interrupt_fd):
            os.close(fd)
