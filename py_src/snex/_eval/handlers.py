"""Signal handlers: ours, and those that user code installs.

User code finds `signal` as it is in any Python: what it installs is called, and is what `getsignal`
returns. Two things differ below the surface.

Two signals are ours for as long as the process lives: SIGTERM, and the one that interrupts a request.
A handler for one of them is called by ours. Nothing that user code or a library installs takes them away.

A handler that raises does so in user code, as in any Python. While code of ours or of asyncio runs it
would leave things half done, or end the event loop. There, the call of the handler is put off until
user code goes on; where none is running, the exception is printed.

Signals reach code that only prints while it is in our code, and hardly ever elsewhere: other threads, and
so signals, get their turn while we write. So printing is a checkpoint: when it is done, it makes the calls
that were put off.
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
    # As `signal.signal` takes it, and returns it.
    Action = Handler | int | signal.Handlers | None

# Interrupts a request. Programs and children ignore it by default, so one too many does no harm, and
# hardly any program has a use for it.
INTERRUPT = signal.SIGURG
# Seconds until a signal that came at a bad moment is repeated, at first and later on.
_PAUSE = 0.01
_LONGEST_PAUSE = 0.1
_PACKAGE = __file__.removesuffix("_eval/handlers.py")
# Calls that have been put off, by signal. Changed on the main thread, by single operations: a signal may come
# between any two.
_due: dict[int, Handler] = {}
# Before we stand in for it.
_change_mask = getattr(signal, "pthread_sigmask", None)


class Guarded:
    """A handler of user code, as it is installed."""

    def __init__(self, handler: Handler, handlers: Handlers) -> None:
        """Call `handler` through `handlers`."""
        self.handler = handler
        self._handlers = handlers

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Call the handler now, or soon."""
        self._handlers.call(number, self.handler, frame)


class Repeater:
    """Interrupts the main thread again and again, from a thread that is there only while it is needed."""

    def __init__(self, is_needed: Callable[[], bool]) -> None:
        """Interrupt as long as `is_needed()`, which is called on any thread."""
        self._is_needed = is_needed
        self._runs = False

    def start(self) -> bool:
        """Begin, unless it has begun. Returns whether there is a thread for that."""
        if not self._runs:
            # Before the thread, which sets it back.
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
                # The main thread may have needed it again just before.
                if not self._is_needed():
                    return
                self._runs = True
            poke(INTERRUPT)
            pause = min(1.5 * pause, _LONGEST_PAUSE)


def checkpoint() -> None:
    """Make the calls that have been put off. For code of ours that user code calls, when it is done."""
    if _due and Handlers.installed is not None:
        Handlers.installed.checkpoint()


def again(number: int) -> bool:
    """Have the handler of a signal called once more, soon. Returns whether there is a thread for that."""

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
    """Have the main thread call the handler of a signal, whatever it blocks on."""
    # Does nothing if there is no handler by now, where the signal itself might end the process.
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
        """Stand in for the functions of `signal` that change handlers."""
        self._may_raise = may_raise
        self._pid = os.getpid()
        self._repeater = Repeater(lambda: bool(_due))
        self._ours: dict[int, Handler] = {}
        # What user code has installed for those.
        self._users: dict[int, Action] = {}
        self._signal: Callable[[int, Any], Action] = signal.signal
        self._getsignal: Callable[[int], Action] = signal.getsignal
        self._siginterrupt = signal.siginterrupt
        Handlers.installed = self
        self._stand_in()
        self._install(signal.SIGINT, self._getsignal(signal.SIGINT))
        # What signals each thread that is forking has held back before.
        self._masks: dict[int, set[int]] = {}
        os.register_at_fork(
            before=self._hold_back,
            after_in_parent=self._let_through,
            after_in_child=self._forked,
        )

    def begin(self, may_raise: Callable[[FrameType], bool]) -> None:
        """Be the handlers of this process, which may be a copy of the one that they were made in."""
        self._may_raise = may_raise
        self._pid = os.getpid()
        self._repeater = Repeater(lambda: bool(_due))

    def keep(self, number: int, handler: Handler) -> None:
        """Make a signal ours, for good; `handler` may raise wherever it likes."""
        pid = os.getpid()

        def ours(received: int, frame: FrameType | None) -> None:
            if os.getpid() == pid:
                handler(received, frame)
            else:
                # The signal has come before the hook for children has run.
                self._forked()
                signal.raise_signal(received)

        self._users[number] = self._getsignal(number)
        self._ours[number] = ours
        self._signal(number, ours)

    def call_users(self, number: int, frame: FrameType | None) -> None:
        """Call what user code has installed for a signal that is ours."""
        handler = self._users.get(number)
        if callable(handler):
            self.call(number, handler, frame)

    def call(self, number: int, handler: Handler, frame: FrameType | None) -> None:
        """Call a handler of user code now, or soon. Its exceptions pass where that does no harm."""
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
        """Make the calls that have been put off; see `call`."""
        for number, handler in list(_due.items()):
            # Unless the code has installed another one meanwhile.
            if self._getsignal_of_users(number) is handler:
                self.call(number, handler, frame)
            else:
                _due.pop(number, None)

    def checkpoint(self) -> None:
        """Make the calls that have been put off, if user code has called the code of ours that runs now."""
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
        """Give a forked child the handlers of user code, and none of ours."""
        for number in self._ours:
            action = self._users[number]
            self._signal(number, signal.SIG_DFL if action is None else action)
        self._ours.clear()
        _due.clear()
        self._let_through()

    def _hold_back(self) -> None:
        """Have our signals wait until a child has the handlers of user code.

        One that reaches the child before that would be noted for our handler, and then forgotten by Python, as all that its
        parent has noted. A pool of `multiprocessing` would wait for ever for a worker that it has ended like this.
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
            # Fails where it would: in another thread. And undoes what C code may have done.
            self._signal(signalnum, self._ours[signalnum])
            before = self._users[signalnum]
            self._users[signalnum] = signal.Handlers(handler) if type(handler) is int else handler
            return before

        @wraps(signal.getsignal)
        def getsignal(signalnum: int) -> Action:
            return self._getsignal_of_users(signalnum)

        @wraps(signal.siginterrupt)
        def siginterrupt(signalnum: int, flag: bool) -> None:  # noqa: FBT001 - as it is
            # Code that blocks in a system call could not be interrupted any more.
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
