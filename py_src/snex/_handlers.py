"""Signal handlers: ours, and those that user code installs.

User code finds `signal` as it is in any Python: what it installs is called, and is what `getsignal`
returns. Two things differ below the surface.

Two signals are ours for as long as the process lives: SIGTERM, and the one that interrupts a request.
A handler for one of them is called by ours. Nothing that user code or a library installs takes them away.

A handler that raises does so in user code, as in any Python. While code of ours or of asyncio runs it
would leave things half done, or end the event loop. There, the call of the handler is put off until
user code goes on; where none is running, the exception is printed.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from functools import wraps
from typing import TYPE_CHECKING, Any

from ._request import is_running
from ._traceback import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    Handler = Callable[[int, FrameType | None], Any]
    # As `signal.signal` takes it, and returns it.
    Action = Handler | int | signal.Handlers | None

# Interrupts a request. Programs and children ignore it by default, so one too many does no harm, and
# hardly any program has a use for it.
INTERRUPT = signal.SIGURG
# Seconds for which a call is put off, and how often: code that only prints is hardly ever met elsewhere.
_PAUSE = 0.01
_REPETITIONS = 20


class Guarded:
    """A handler of user code, as it is installed."""

    def __init__(self, handler: Handler, may_raise: Callable[[FrameType], bool]) -> None:
        """Call `handler`. Its exceptions pass where `may_raise(frame)`."""
        self.handler = handler
        self._may_raise = may_raise
        self._pid = os.getpid()
        self._put_off = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Call the handler now, or soon."""
        if frame is None or os.getpid() != self._pid or self._may_raise(frame):
            self._put_off = 0
            self.handler(number, frame)
        elif is_running() and self._put_off < _REPETITIONS and again(number):
            self._put_off += 1
        else:
            self._put_off = 0
            try:
                self.handler(number, frame)
            except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt most of all
                report(f"a handler of {_name(number)} has raised while no code was running", error)


def again(number: int) -> bool:
    """Have the handler of a signal called once more, soon. Returns whether there is a thread for that."""

    def wait() -> None:
        time.sleep(_PAUSE)
        poke(number)

    try:
        # Not `threading.Thread`: the code that was interrupted may hold one of its locks.
        _thread.start_new_thread(wait, ())
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

    def __init__(self, may_raise: Callable[[FrameType], bool]) -> None:
        """Stand in for the functions of `signal` that change handlers."""
        self._may_raise = may_raise
        self._ours: dict[int, Handler] = {}
        # What user code has installed for those.
        self._users: dict[int, Action] = {}
        self._signal: Callable[[int, Any], Action] = signal.signal
        self._getsignal: Callable[[int], Action] = signal.getsignal
        self._siginterrupt = signal.siginterrupt
        self._stand_in()
        self._install(signal.SIGINT, self._getsignal(signal.SIGINT))
        os.register_at_fork(after_in_child=self._forked)

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
            Guarded(handler, self._may_raise)(number, frame)

    def _install(self, number: int, action: Action) -> Action:
        if callable(action):
            action = Guarded(action, self._may_raise)
        return _action(self._signal(number, action))

    def _forked(self) -> None:
        """Give a forked child the handlers of user code, and none of ours."""
        for number in self._ours:
            action = self._users[number]
            self._signal(number, signal.SIG_DFL if action is None else action)
        self._ours.clear()

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
            if signalnum in self._ours:
                return self._users[signalnum]
            return _action(self._getsignal(signalnum))

        @wraps(signal.siginterrupt)
        def siginterrupt(signalnum: int, flag: bool) -> None:  # noqa: FBT001 - as it is
            # Code that blocks in a system call could not be interrupted any more.
            if signalnum not in self._ours:
                self._siginterrupt(signalnum, flag)

        signal.signal = stand_in
        signal.getsignal = getsignal
        signal.siginterrupt = siginterrupt
        change_mask = getattr(signal, "pthread_sigmask", None)
        if change_mask is not None:

            @wraps(change_mask)
            def pthread_sigmask(how: int, mask: Iterable[int]) -> set[int]:
                if how != signal.SIG_UNBLOCK and INTERRUPT in self._ours:
                    mask = set(mask) - {INTERRUPT}
                return change_mask(how, mask)  # type: ignore[no-any-return]

            signal.pthread_sigmask = pthread_sigmask


def _action(action: Action) -> Action:
    return action.handler if isinstance(action, Guarded) else action
