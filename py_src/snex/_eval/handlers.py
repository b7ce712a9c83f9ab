"""Signal handlers: ours, and those that user code installs.

For user code, `signal` works as in any Python: the handlers that it installs are called, and `getsignal`
returns them. Internally, two things differ.

Two signals are ours for as long as the process lives: SIGTERM, and the one that interrupts a request.
Our handler calls that of the user, and user code or a library cannot replace ours.

A handler may raise an exception in user code, as in any Python. In our code or that of asyncio, the exception
would leave things half done, or end the event loop. There, the call of the handler is put off until
user code continues; if none is running, the exception is printed.

Code that only prints is nearly always in our code when a signal arrives: other threads, and so signals, get
their turn while we write. So printing is a checkpoint: at its end, it makes the calls that were put off.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar

from .request import is_running
from .traceback import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    Handler = Callable[[int, FrameType | None], Any]
    # What `signal.signal` takes and returns.
    Action = Handler | int | signal.Handlers | None

# Interrupts a request. Programs ignore it by default, so that a superfluous one does no harm, even to
# children; and hardly any program uses it.
INTERRUPT = signal.SIGURG
# Seconds until a signal that came at a bad moment is repeated, the first time and later.
_PAUSE = 0.01
_LONGEST_PAUSE = 0.1
_PACKAGE = __file__.removesuffix("_eval/handlers.py")
# Calls that were put off, by signal. Changed on the main thread, by single operations: a signal may come between
# any two.
_due: dict[int, Handler] = {}
# The original, before we replace it.
_change_mask = getattr(signal, "pthread_sigmask", None)


class Guarded:
    """A handler of user code, in the form in which it is installed."""

    def __init__(self, handler: Handler, handlers: Handlers) -> None:
        """Call `handler` through `handlers`."""
        self.handler = handler
        self._handlers = handlers

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Call the handler now or soon."""
        self._handlers.call(number, self.handler, frame)


class Repeater:
    """Interrupts the main thread repeatedly, from a thread that exists only while it is needed."""

    def __init__(self, is_needed: Callable[[], bool]) -> None:
        """Interrupt as long as `is_needed()`, which is called on any thread."""
        self._is_needed = is_needed
        self._runs = False

    def start(self) -> bool:
        """Start the thread if it does not run. Returns whether it runs."""
        if not self._runs:
            # Before the thread starts, which resets it.
            self._runs = True
            if not _start_thread(self._run):
                self._runs = False
        return self._runs

    def _run(self) -> None:
        pause = _PAUSE
        while True:
            time.sleep(pause)
            if not self._is_needed():
                self._runs = False
                # The main thread may have needed it again in the meantime.
                if not self._is_needed():
                    return
                self._runs = True
            poke(INTERRUPT)
            pause = min(1.5 * pause, _LONGEST_PAUSE)


def checkpoint() -> None:
    """Make the calls that were put off. Called at the end of our functions that user code calls."""
    if _due and Handlers.installed is not None:
        Handlers.installed.checkpoint()


def again(number: int) -> bool:
    """Have the handler of a signal called again soon. Returns whether a thread could be started for that."""

    def wait() -> None:
        time.sleep(_PAUSE)
        poke(number)

    return _start_thread(wait)


def _start_thread(function: Callable[[], None]) -> bool:
    """Run a function in a thread of its own. Returns whether one could be started."""
    try:
        # Not `threading.Thread`: the code that was interrupted may hold one of its locks.
        _thread.start_new_thread(function, ())
    except (RuntimeError, MemoryError):
        return False
    return True


def poke(number: int) -> None:
    """Have the main thread call the handler of a signal, whatever the thread waits for."""
    # Without a handler, this does nothing, whereas the signal itself might end the process.
    _thread.interrupt_main(number)  # type: ignore[arg-type]
    signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Handlers:
    """The handlers of this process. Made once, on the main thread."""

    installed: ClassVar[Handlers | None] = None

    def __init__(self, may_raise: Callable[[FrameType], bool]) -> None:
        """Replace the functions of `signal` that change handlers."""
        self._may_raise = may_raise
        self._pid = os.getpid()
        self._repeater = Repeater(lambda: bool(_due))
        self._ours: dict[int, Handler] = {}
        # The handlers of user code for our signals.
        self._users: dict[int, Action] = {}
        self._signal: Callable[[int, Any], Action] = signal.signal
        self._getsignal: Callable[[int], Action] = signal.getsignal
        self._siginterrupt = signal.siginterrupt
        Handlers.installed = self
        self._stand_in()
        self._install(signal.SIGINT, self._getsignal(signal.SIGINT))
        # By thread that is forking: the signals that it blocked before.
        self._masks: dict[int, set[int]] = {}
        os.register_at_fork(
            before=self._hold_back,
            after_in_parent=self._let_through,
            after_in_child=self._forked,
        )

    def begin(self, may_raise: Callable[[FrameType], bool]) -> None:
        """Become the handlers of this process, which may be a copy of the one that made them."""
        self._may_raise = may_raise
        self._pid = os.getpid()
        self._repeater = Repeater(lambda: bool(_due))

    def keep(self, number: int, handler: Handler) -> None:
        """Make a signal ours for good; `handler` decides itself where it raises."""
        pid = os.getpid()

        def ours(received: int, frame: FrameType | None) -> None:
            if os.getpid() == pid:
                handler(received, frame)
            else:
                # The signal came before the hook for forked children ran.
                self._forked()
                signal.raise_signal(received)

        self._users[number] = self._getsignal(number)
        self._ours[number] = ours
        self._signal(number, ours)

    def call_users(self, number: int, frame: FrameType | None) -> None:
        """Call the handler of user code for one of our signals."""
        handler = self._users.get(number)
        if callable(handler):
            self.call(number, handler, frame)

    def call(self, number: int, handler: Handler, frame: FrameType | None) -> None:
        """Call a handler of user code, now or soon. Its exceptions propagate where that does no harm."""
        _due.pop(number, None)
        if frame is None or os.getpid() != self._pid or self._may_raise(frame):
            handler(number, frame)
        elif not (is_running() and self._put_off(number, handler)):
            try:
                handler(number, frame)
            except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt most of all
                report(f"a handler of {_name(number)} raised while no code was running", error)

    def _put_off(self, number: int, handler: Handler) -> bool:
        _due[number] = handler
        if self._repeater.start():
            return True
        _due.pop(number, None)
        return False

    def call_due(self, frame: FrameType | None) -> None:
        """Make the calls that were put off; see `call`."""
        for number, handler in list(_due.items()):
            # Unless user code has installed another handler meanwhile.
            if self._getsignal_of_users(number) is handler:
                self.call(number, handler, frame)
            else:
                _due.pop(number, None)

    def checkpoint(self) -> None:
        """Make the calls that were put off, if user code called the function of ours that runs now."""
        if threading.current_thread() is not threading.main_thread():
            return
        frame: FrameType | None = sys._getframe()  # noqa: SLF001 - the only way to the stack
        while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
            frame = frame.f_back
        if frame is not None and is_running() and self._may_raise(frame):
            self.call_due(frame)

    def _install(self, number: int, action: Action) -> Action:
        if callable(action):
            action = Guarded(action, self)
        return _action(self._signal(number, action))

    def _forked(self) -> None:
        """Give a forked child the handlers of user code, without ours."""
        for number in self._ours:
            action = self._users[number]
            self._signal(number, signal.SIG_DFL if action is None else action)
        self._ours.clear()
        _due.clear()
        self._let_through()

    def _hold_back(self) -> None:
        """Block our signals until a forked child has the handlers of user code.

        Python would note an earlier one for our handler, and then forget it together with all that the parent had noted.
        A pool of `multiprocessing` would wait forever for a worker that it has terminated with such a signal.
        """
        if self._ours and _change_mask is not None:
            self._masks[threading.get_ident()] = _change_mask(signal.SIG_BLOCK, self._ours)

    def _let_through(self) -> None:
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is not None and _change_mask is not None:
            _change_mask(signal.SIG_SETMASK, mask)

    def _getsignal_of_users(self, number: int) -> Action:
        return self._users[number] if number in self._ours else _action(self._getsignal(number))

    def _stand_in(self) -> None:
        @wraps(signal.signal)
        def stand_in(signalnum: int, handler: Action) -> Action:
            if not (callable(handler) or isinstance(handler, int)) or signalnum not in self._ours:
                return self._install(signalnum, handler)
            # Fails in another thread, as `signal.signal` does. It also undoes changes by C code.
            self._signal(signalnum, self._ours[signalnum])
            before = self._users[signalnum]
            self._users[signalnum] = signal.Handlers(handler) if type(handler) is int else handler
            return before

        @wraps(signal.getsignal)
        def getsignal(signalnum: int) -> Action:
            return self._getsignal_of_users(signalnum)

        @wraps(signal.siginterrupt)
        def siginterrupt(signalnum: int, flag: bool) -> None:  # noqa: FBT001 - as it is
            # Not for ours: code that blocks in a system call could not be interrupted any more.
            if signalnum not in self._ours:
                self._siginterrupt(signalnum, flag)

        signal.signal = stand_in
        signal.getsignal = getsignal
        signal.siginterrupt = siginterrupt
        if _change_mask is not None:

            @wraps(_change_mask)
            def pthread_sigmask(how: int, mask: Iterable[int]) -> set[int]:
                if how != signal.SIG_UNBLOCK and INTERRUPT in self._ours:
                    mask = set(mask) - {INTERRUPT}
                return _change_mask(how, mask)  # type: ignore[no-any-return]

            signal.pthread_sigmask = pthread_sigmask


def _action(action: Action) -> Action:
    return action.handler if isinstance(action, Guarded) else action
