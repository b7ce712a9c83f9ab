"""Our signals: SIGTERM, which ends the interpreter, and SIGURG, which interrupts one request.

They become exceptions only where that does no harm: in user code, in what it calls, and in those
functions of ours that change no state. Everywhere else, the work will soon end by itself,
or the signal is repeated.
"""

from __future__ import annotations

import os
import select
import signal
import struct
from collections import deque
from typing import TYPE_CHECKING

from .._etf import encoder, scalars
from . import batch, code, invocation, maps, prints, producer, toplevel, wait, waits
from .handlers import INTERRUPT, Handlers, Repeater, again
from .request import OUTSIDE, Cancelled, current, is_running, running_task

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from .._interpreter import Interpreter
    from .request import Request

    Handler = Callable[[int, FrameType | None], None]
    MayRaise = Callable[[FrameType], bool]

_NUMBER = struct.Struct("<Q")
_READ = 512 * _NUMBER.size
# How many ended requests are remembered, for which an interrupt would be too late.
_RECENT = 1024


class Interrupts:
    """The numbers of requests that the VM wants to be interrupted.

    A number comes after the CANCEL frame was written, but often before that is read. So it can be
    forgotten when CANCELLED is sent, and one that comes even later is known to be stale.
    Only changed by single operations: the signal handler may run between any two.
    """

    def __init__(self, fd: int | None) -> None:
        """Read from `fd`, which is non-blocking. With `None`, there are no interrupts."""
        self.fd = self._fd = fd
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self.wanted: set[int] = set()
        # The requests whose interrupts are repeated.
        self._repeated: set[Request] = set()
        self._repeater = Repeater(self._repeats)

    def read(self) -> None:
        """Take the numbers that have arrived."""
        while self._fd is not None:
            try:
                data = os.read(self._fd, _READ)
            except OSError:
                return
            # Each number is written atomically, and so read as a whole.
            whole = len(data) - len(data) % _NUMBER.size
            for (number,) in _NUMBER.iter_unpack(data[:whole]):
                if number not in self._recent:
                    self.wanted.add(number)
            if len(data) < _READ:
                return

    def wants(self, request: Request) -> bool:
        """Return whether a request should be interrupted, or one for which it runs."""
        wanted: Request | None = request
        while wanted is not None:
            if wanted.number in self.wanted:
                return True
            wanted = wanted.parent
        return False

    def settled(self, number: int) -> None:
        """Forget a request whose CANCELLED is about to be sent."""
        if self._fd is not None:
            self._recent.append(number)
            self.wanted.discard(number)

    def interrupt(self, request: Request) -> None:
        """Interrupt a request, without the VM, as soon as its code is on top of the stack."""
        if self._fd is not None:
            self.wanted.add(request.number)
            self.repeat(request)

    def repeat(self, request: Request) -> None:
        """Repeat an interrupt that came where it could do harm, until it comes at a harmless place."""
        request.interrupted = True
        self._repeated.add(request)
        if not self._repeater.start():
            # Without our thread, the VM still repeats its interrupts.
            self._repeated.clear()

    def _repeats(self) -> bool:
        for request in list(self._repeated):
            if not request.interrupted or not self.wants(request):
                self._repeated.discard(request)
        return bool(self._repeated)


def install(interpreter: Interpreter, in_fd: int, interrupts: Interrupts) -> None:
    """Take over the signals of this process; see `handlers`."""
    may_raise = _places()
    handlers = Handlers.installed or Handlers(may_raise)
    handlers.begin(may_raise)
    handlers.keep(signal.SIGTERM, _on_sigterm(interpreter, in_fd, may_raise, handlers))
    handlers.keep(INTERRUPT, _on_interrupt(interrupts, may_raise, handlers))


def _on_sigterm(
    interpreter: Interpreter, in_fd: int, may_raise: MayRaise, handlers: Handlers
) -> Handler:
    """End on SIGTERM, but only if the VM is gone.

    If code blocks the event loop, the end of input is not noticed; the warden's signal, which follows
    it, interrupts that code. A signal that comes while the VM is alive is part of a machine's
    shutdown, and the VM decides when Python ends: a handler of the user is called, but the default
    action, which would end Python, is not taken.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        if interpreter.stopped:
            return
        if not interpreter.ended:
            poll = select.poll()
            poll.register(in_fd, select.POLLIN)
            if not any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0)):
                handlers.call_users(number, frame)
                return
            interpreter.end()
        if frame is None or may_raise(frame):
            raise SystemExit(0)
        # Our code or that of asyncio is about to return to the event loop, which now stops, or to
        # user code, which may block.
        again(number)

    return handler


def _on_interrupt(interrupts: Interrupts, may_raise: MayRaise, handlers: Handlers) -> Handler:
    """Raise `Cancelled` in code of a request that should be interrupted.

    Python runs the handler in the context of the interrupted code.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        interrupts.read()
        handlers.call_due(frame)
        request = current.get()
        if not request.ended and frame is not None and interrupts.wants(request):
            if may_raise(frame):
                request.interrupted = False
                if request.interrupt(running_task()):
                    raise Cancelled
                handlers.call_users(number, frame)
                return
            # Code that does little but call us, such as a loop that prints, is nearly always in our code:
            # other threads, and so signals, get their turn while we write. Printing has a checkpoint.
            interrupts.repeat(request)
        handlers.call_users(number, frame)

    return handler


def _places() -> MayRaise:
    """Return a function that tells whether an exception may be raised in a frame."""
    import asyncio

    from .._wire import body

    package = __file__.removesuffix("_eval/signals.py")
    asyncios = asyncio.__file__.removesuffix("__init__.py")
    library = os.__file__.removesuffix("os.py")
    # Both user code and ours call the standard library: it counts as part of its caller.
    helpers = (library, "<frozen ", wait.__file__)
    others = (asyncios, f"{library}site-packages/", f"{library}dist-packages/")
    pure = {encoder.__file__, scalars.__file__, code.__file__, toplevel.__file__}
    # Updates the cache.
    impure = code.compile_code.__code__
    # Functions of ours and of asyncio in which nothing is half done except a call of user code, perhaps of C code.
    calling = {
        function.__code__
        for function in (
            body.unpickle,
            invocation.call,
            maps.call_each,
            producer.advance,
            batch.Batch.fill,
            prints.Printer._wait_for_room,  # noqa: SLF001 - as above
            waits.Waits._sleep,  # noqa: SLF001 - as above
        )
    }

    handle_run = asyncio.Handle._run.__code__  # noqa: SLF001 - a place, not a call

    def is_helper(file: str) -> bool:
        return file.startswith(helpers) and not file.startswith(others)

    def may_raise(frame: FrameType) -> bool:
        place: FrameType | None = frame
        while place is not None and is_helper(place.f_code.co_filename):
            place = place.f_back
        if place is None:
            return True
        running = place.f_code
        if running.co_name == "_run_once":
            # The code to be interrupted itself runs the event loop. A callback that the loop has taken out of its
            # queue belongs to others; while it waits, it has none.
            return place is not frame and is_running()
        if running is handle_run:
            # A callback that is C code; or no callback yet, if the code runs the loop as above.
            context = place.f_locals["self"]._context  # noqa: SLF001 - a place, not a call
            return context.get(current, OUTSIDE) is current.get() and is_running()
        file = running.co_filename
        if running in calling or (file in pure and running is not impure):
            # Otherwise the call may be one of our own, which must not get lost.
            return is_running()
        return not file.startswith((package, asyncios))

    return may_raise
