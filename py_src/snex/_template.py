"""Copies of this process, made at the request of the warden.

A copy is a fork of the main thread, made between two turns of the event loop. It is not our child: an
intermediate process forks it and ends immediately, and the warden, a subreaper, adopts the copy. The
intermediate process announces the copy before it ends, so that the warden never has an unknown child.

Only the main thread survives a fork. In the copy, code that relies on another thread would wait for it
forever, so a template with such threads is refused, with their names. Some libraries end their threads
before a fork and start them again when they need them. Only a fork shows that, so the intermediate
process waits until its parent has checked which threads are left.

Who owns what: the descriptors of a request are ours until the copy has them; we close them in either
case. The copy puts them in the place of ours, closes our end of the warden's socket, and drops
everything else that belongs to our connection. See `docs/protocol.md`.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import struct
import sys
import threading
import warnings
from collections import deque
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NamedTuple

from ._fork import become_copy
from ._natives import describe, lost

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

_REQUEST = struct.Struct("<Qi?")
_ANSWER = struct.Struct("<Qi")
# Frames in and out, standard error and output, prints, interrupts; and perhaps shared memory in both directions.
_DESCRIPTORS = 6
_MOST_DESCRIPTORS = 8
_LONGEST_REASON = 4000
_GO = b"y"
# Seconds for threads that are about to end.
_PATIENCE = 0.1
_PAUSE = 0.001
_TASKS = "/proc/self/task"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Request(NamedTuple):
    """A request of the warden for a copy."""

    tree: int
    warden: int
    ignore_threads: bool
    descriptors: list[int]


class RefusedError(Exception):
    """Why there is no copy, as a sentence."""


class Template:
    """The socket for requests of copies. On the event loop's thread."""

    def __init__(
        self, fd: int, loop: asyncio.AbstractEventLoop, end_idle_threads: Callable[[], None]
    ) -> None:
        """Take over `fd`. `end_idle_threads` ends our idle threads.

        Raises:
            OSError: if there is no such socket, because the program that started us did not pass it on.
        """
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)
        self._socket.settimeout(0)
        self._loop = loop
        self._end_idle_threads = end_idle_threads
        self._requests: deque[Request] = deque()

    def start(self) -> None:
        """Begin to listen. The event loop stops for each request; then call `serve`."""
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, _REQUEST.size, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if len(data) != _REQUEST.size:
            # The warden is gone, and we will be soon.
            self._loop.remove_reader(self._socket.fileno())
            return
        tree, warden, ignore_threads = _REQUEST.unpack(data)
        self._requests.append(Request(tree, warden, ignore_threads, list(descriptors)))
        self._loop.stop()

    def serve(self, refusal: Callable[[], str | None]) -> Request | None:
        """Fork for each request, unless there is a `refusal()`.

        Returns None here, and in a copy the request for which it was made.
        """
        while self._requests:
            request = self._requests.popleft()
            try:
                if self._fork(request, refusal()):
                    return request
            except RefusedError as error:
                self._answer(request.tree, 0, str(error))
            except (OSError, MemoryError) as error:
                self._answer(request.tree, 0, f"the template cannot fork: {error}")
            for fd in request.descriptors:
                os.close(fd)
        return None

    def _fork(self, request: Request, refusal: str | None) -> bool:
        """Fork twice. Returns whether this is the copy."""
        if refusal is not None:
            raise RefusedError(refusal)
        if not hasattr(gc, "freeze"):
            msg = f"a copy needs CPython, but the template runs {sys.implementation.name}"
            raise RefusedError(msg)
        if len(request.descriptors) not in {_DESCRIPTORS, _MOST_DESCRIPTORS}:
            msg = (
                f"the template has too few free file descriptors: a copy needs {_MOST_DESCRIPTORS} for a moment. "
                "Close files in the template, or raise its option limits: [open_files: number]"
            )
            raise RefusedError(msg)
        if os.getppid() != request.warden:
            msg = "the template runs under another program (:wrap_exec), not directly under its warden"
            raise RefusedError(msg)
        libc = _libc()
        # Imported once here, and not in each copy.
        import resource  # noqa: F401

        if not request.ignore_threads:
            self._check_threads()
        _flush(libc)
        waiting, go = os.pipe()
        # The copy's garbage collector then does not touch the present objects, so their memory stays shared.
        gc.freeze()
        try:
            between = _fork_quietly() if request.ignore_threads else _fork_without_hooks()
        except BaseException:
            gc.unfreeze()
            os.close(waiting)
            os.close(go)
            raise
        if not between:
            return self._fork_again(request, waiting, go)
        gc.unfreeze()
        os.close(waiting)
        try:
            threads = [] if request.ignore_threads else _left(_native_threads)
            if not threads:
                os.write(go, _GO)
        finally:
            os.close(go)
            status = _wait_for(between)
        if threads:
            raise RefusedError(_complaint(describe(threads)))
        if status:
            msg = f"the process that was to fork the copy ended with status {status}"
            raise RefusedError(msg)
        return False

    def _fork_again(self, request: Request, waiting: int, go: int) -> bool:
        """Fork the copy, in the intermediate process, which then ends. Returns True in the copy."""
        try:
            os.close(go)
            if os.read(waiting, 1) == _GO:
                copy = _fork_quietly()
                if not copy:
                    os.close(waiting)
                    return True
                self._answer(request.tree, copy)
        except BaseException as error:  # noqa: BLE001 - nothing of it may get any further
            with suppress(BaseException):
                self._answer(request.tree, 0, f"the template cannot fork: {error}")
        os._exit(0)

    def _check_threads(self) -> None:
        """Refuse if Python has threads that would be missing in the copy."""
        self._end_idle_threads()
        executor = getattr(self._loop, "_default_executor", None)
        if executor is not None:
            # Its threads are idle, or else a reason to refuse. The loop makes a new one when it needs it.
            self._loop._default_executor = None  # type: ignore[attr-defined] # noqa: SLF001 - as above
            executor.shutdown(wait=False)
        threads = _left(lambda: [t for t in threading.enumerate() if t is not _MAIN])
        if threads:
            raise RefusedError(_complaint([thread.name for thread in threads]))

    def _answer(self, tree: int, pid: int, reason: str = "") -> None:
        message = _ANSWER.pack(tree, pid) + reason.encode("utf-8", "replace")[:_LONGEST_REASON]
        while True:
            try:
                self._socket.send(message)
            except BlockingIOError:
                select.select([], [self._socket], [])
            except OSError:
                # The warden is gone, and its copies with it.
                return
            else:
                return

    def become(self) -> None:
        """Make this process, a copy, the root of a process tree: with a session of its own, and as the subreaper of its descendants."""
        self._socket.close()
        become_copy()
        # Before Python 3.13, a fork does not update it.
        _MAIN._set_native_id()  # type: ignore[attr-defined] # noqa: SLF001 - nothing public does it
        signal.set_wakeup_fd(-1)
        os.setsid()
        _control(_libc(), _PR_SET_CHILD_SUBREAPER, 1)
        _reseed()


def await_warden(request: Request) -> None:
    """Wait in a copy until it is the warden's child, and end with the warden from then on.

    The intermediate process takes a moment to end, during which the copy does other work. Its end, too, would send the signal
    for the death of a parent, so that is requested only afterwards.
    """
    while os.getppid() != request.warden:
        if os.getppid() == 1 and request.warden != 1:
            # The warden is gone, too.
            os._exit(0)
        sleep(_PAUSE / 10)
    _control(_libc(), _PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != request.warden:
        os._exit(0)


_MAIN = threading.main_thread()


def limit(limits: dict[str, int | None], warden: int) -> None:
    """Limit this process, a copy, as the warden limits the processes that it starts."""
    import resource

    for name, which, hard_room in (
        ("memory", resource.RLIMIT_AS, 0),
        # SIGXCPU at the limit, SIGKILL a second later.
        ("cpu", resource.RLIMIT_CPU, 1),
        ("open_files", resource.RLIMIT_NOFILE, 0),
    ):
        wanted = limits[name]
        if wanted is not None:
            most = resource.getrlimit(which)[1]
            if most == resource.RLIM_INFINITY:
                most = wanted + hard_room
            resource.setrlimit(which, (min(wanted, most), min(wanted + hard_room, most)))
    nice = limits["nice"]
    if nice is not None:
        # Relative to the warden: the template may have a `nice` of its own.
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, warden) + nice)


def _libc() -> Any:  # noqa: ANN401 - a library of functions
    try:
        import ctypes

        return ctypes.CDLL(None, use_errno=True)
    except (ImportError, OSError) as error:
        msg = f"a copy needs the module ctypes, which this Python lacks: {error}"
        raise RefusedError(msg) from error


def _control(libc: Any, option: int, value: int) -> None:  # noqa: ANN401 - as above
    if libc.prctl(option, value, 0, 0, 0):
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _flush(libc: Any) -> None:  # noqa: ANN401 - as above
    """Write the buffers of Python and of C code, which each copy would otherwise write again."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    libc.fflush(None)


def _fork_quietly() -> int:
    with warnings.catch_warnings():
        # Python warns of other threads. We have checked for them, or the user ignores them on purpose.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _fork_without_hooks() -> int:
    """Fork as C code does: without the fork hooks of Python and its modules. The child can only fork the copy.

    Python must have no other thread: in the child, the locks of that thread would never be released.
    """
    import ctypes

    # With the GIL held, because the child needs it and could not acquire it.
    pid: int = ctypes.PyDLL(None, use_errno=True).fork()
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid


def _wait_for(pid: int) -> int:
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        # User code ignores SIGCHLD.
        return 0


def _left(threads: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    """Return the remaining threads, after a moment for those that are about to end."""
    end = monotonic() + _PATIENCE
    while (found := threads()) and monotonic() < end:
        sleep(_PAUSE)
    return found


def _native_threads() -> list[int]:
    """Return the threads of C code that a copy would lack. Python has only its main thread."""
    return lost(thread for thread in map(int, os.listdir(_TASKS)) if thread != _MAIN.native_id)  # noqa: PTH208 - as everywhere at the start


def _complaint(names: Sequence[str]) -> str:
    return (
        f"the template has threads of its own, which a copy would lack: {', '.join(names)}. "
        "Start none in the template, or start the copy with threads: :ignore if it does not need them"
    )


def _reseed() -> None:
    """Seed numpy's random numbers again, so that copies differ. `random` does so by itself."""
    numpy_random = sys.modules.get("numpy.random.mtrand")
    if numpy_random is not None:
        with suppress(Exception):
            numpy_random.seed()
