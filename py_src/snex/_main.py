"""`python .../snex/__main__.py IN OUT [PRINTS INTERRUPTS]`: an interpreter that speaks frames on descriptors.

With `0 1`, output is sent with all other frames, and there are no interrupts. With any other two
descriptors, the standard streams stay as they are, too.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys

# For the description of errors. Later imports may come from the working directory, too.
import tokenize  # noqa: F401
import traceback  # noqa: F401
from typing import Any

from ._etf import memory
from ._etf.encoder import NAME, Settings, encode, set_reply_limit
from ._etf.handles import Layout
from ._eval.loop import new_loop
from ._eval.request import Request
from ._eval.signals import Interrupts, install
from ._interpreter import Interpreter
from ._memory import prepare
from ._template import await_warden, limit
from ._version import PROTOCOL, VERSION
from ._wire import arena, frame
from ._wire.body import loads

_EXIT_USAGE = 64
_EXIT_GARBAGE = 70
_EXIT_REFUSED = 76
# A HELLO is a few hundred bytes.
_MAX_HELLO = 1024 * 1024


class _EndOfInputError(Exception):
    """The VM closed the connection before it was established."""


def main(argv: list[str]) -> int:
    """Run an interpreter. Returns the exit status."""
    try:
        fds = [int(argument) for argument in argv[1:]]
        in_fd, out_fd, *more = fds
        print_fd, interrupt_fd = more or (None, None)
    except ValueError:
        print("usage: python -m snex IN OUT [PRINTS INTERRUPTS]", file=sys.stderr)  # noqa: T201 - a command line
        return _EXIT_USAGE
    if in_fd <= 2 or out_fd <= 2:  # noqa: PLR2004 - the standard descriptors
        in_fd, out_fd = _move_away(in_fd, out_fd)
        print_fd = out_fd
    for fd in (in_fd, out_fd, print_fd, interrupt_fd):
        if fd is not None:
            os.set_inheritable(fd, False)
    # User code reads this to learn how it was started; our arguments would only confuse it.
    sys.argv[:] = [""]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    return _begin(in_fd, out_fd, print_fd, interrupt_fd, None)


def _begin(
    in_fd: int,
    out_fd: int,
    print_fd: int | None,
    interrupt_fd: int | None,
    template: Interpreter | None,
) -> int:
    """Answer the first frame, and serve. Returns the exit status. `template` is that of a copy."""
    try:
        hello = _read_hello(in_fd)
    except _EndOfInputError:
        return 0
    except frame.FrameError as error:
        print(f"snex: invalid input: {error}", file=sys.stderr)  # noqa: T201 - last words
        return _EXIT_GARBAGE
    if hello.get("protocol") != PROTOCOL:
        _write(out_fd, frame.REFUSED, _refusal(hello))
        return _EXIT_REFUSED
    if "map_set" in hello:
        Settings.set_head, Settings.set_member = map(bytes, hello["map_set"])
    if "structs" in hello:
        Settings.structs = hello["structs"]
    if "object" in hello:
        Layout.before_number, Layout.before_type, Layout.end = map(bytes, hello["object"])
    if not _finds_arenas(hello) or (template is not None and not template.has_arenas):
        hello["shared"] = None
    if hello.get("handover") is not None:
        memory.Channel.open(hello["handover"])
    if template is not None and template.copied is not None and hello.get("limits"):
        limit(hello["limits"], template.copied.warden)
    return _serve(in_fd, out_fd, print_fd, interrupt_fd, hello, template)


def _finds_arenas(hello: dict[str, Any]) -> bool:
    """Return whether there is shared memory. The program that started us may have closed its descriptors."""
    shared = hello.get("shared") or ()
    found = [fd for fd, size in shared if arena.is_there(fd, size)]
    for fd in found:
        os.set_inheritable(fd, False)
    return bool(shared) and len(found) == len(shared)


def _serve(  # noqa: PLR0913 - called in one place
    in_fd: int,
    out_fd: int,
    print_fd: int | None,
    interrupt_fd: int | None,
    hello: dict[str, Any],
    template: Interpreter | None,
) -> int:
    try:
        factory = os.environ.get("SNEX_LOOP_FACTORY", "")
        loop = new_loop(eager=bool(hello.get("eager", True)), factory=factory)
    except RuntimeError as error:
        print(f"snex: {error}", file=sys.stderr)  # noqa: T201 - last words
        return _EXIT_USAGE
    asyncio.set_event_loop(loop)
    prepare(ends=bool(hello.get("end_on_memory_error", False)))
    Request.cleanup_timeout = hello.get("cleanup_timeout", 5_000) / 1000
    if "reply_limit" in hello:
        set_reply_limit(hello["reply_limit"])
    limits = hello.get("buffer_limits", (4 << 20, 8 << 20))
    interrupts = Interrupts(interrupt_fd)
    interpreter = Interpreter(
        loop,
        in_fd,
        out_fd,
        limits,
        interrupts=interrupts,
        print_fd=print_fd,
        shared=hello.get("shared"),
        template=template,
    )
    if hello.get("forks") is not None:
        interpreter.listen_for_forks(hello["forks"])
    if interrupt_fd is not None:
        os.set_blocking(interrupt_fd, False)
    install(interpreter, in_fd, interrupts)
    if template is not None and template.copied is not None:
        await_warden(template.copied)
    _write(out_fd, frame.READY, {**_greeting(), "shared": hello.get("shared") is not None})
    for fd in (in_fd, out_fd, print_fd):
        if fd is not None:
            os.set_blocking(fd, False)
    status = interpreter.run()
    if interpreter.copied is not None:
        # This is another process now, in which the descriptors from the VM have the same numbers.
        return _begin(in_fd, out_fd, print_fd, interrupt_fd, interpreter)
    return status


def _move_away(in_fd: int, out_fd: int) -> tuple[int, int]:
    """Move our descriptors away from the standard ones, which other code reads or writes."""
    in_fd, out_fd = os.dup(in_fd), os.dup(out_fd)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return in_fd, out_fd


def _read_exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(fd, size - len(data))
        if not piece:
            raise _EndOfInputError
        data += piece
    return data


def _read_hello(fd: int) -> dict[str, Any]:
    # No byte beyond it: the frames that follow belong to the reader.
    first = _read_exactly(fd, frame.FIRST_HEADER_SIZE)
    length = frame.parse_first_header(first, frame.HELLO)
    if length > _MAX_HELLO:
        msg = f"the HELLO frame has {length} bytes, more than the limit of {_MAX_HELLO}"
        raise frame.FrameError(msg)
    try:
        hello = loads(_read_exactly(fd, length))  # from the VM
    except _EndOfInputError:
        raise
    except Exception as error:
        msg = f"the HELLO frame cannot be decoded: {error!r}"
        raise frame.FrameError(msg) from error
    if not isinstance(hello, dict):
        msg = f"the HELLO frame is not a dict: {hello!r}"
        raise frame.FrameError(msg)
    return hello


def _greeting() -> dict[str, object]:
    name = sys.implementation.name
    return {
        "protocol": PROTOCOL,
        "version": VERSION,
        "python": sys.version.split()[0],
        "implementation": {"cpython": "CPython", "pypy": "PyPy"}.get(name, name),
        # Bytes, because a path need not be text.
        "executable": os.fsencode(sys.executable or ""),
        "pid": os.getpid(),
        "encoder": NAME,
    }


def _refusal(hello: dict[str, Any]) -> dict[str, object]:
    reason = (
        f"snex {VERSION} for Python speaks protocol {PROTOCOL}, "
        f"Snex {hello.get('version')} speaks protocol {hello.get('protocol')}"
    )
    return {"protocol": PROTOCOL, "version": VERSION, "reason": reason}


def _write(fd: int, kind: int, body: object) -> None:
    """Write one frame, blocking; only before the event loop runs."""
    data = b"".join(encode(body, frame.SPARE))
    data = frame.encode_header(kind, 0, len(data)) + data
    while data:
        data = data[os.write(fd, data) :]
