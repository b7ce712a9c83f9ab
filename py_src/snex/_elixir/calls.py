"""The functions with which user code calls Elixir."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._etf.terms import Atom, Term, text_of
from .._eval import trace
from .._wire import frame
from .origin import notes_origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .client import Client
    from .options import EncodingOpts
    from .origin import Origin

    Name = str | Atom | Term


class ElixirError(Exception):
    """A called Elixir function has raised, exited or thrown, or could not be called.

    Attributes:
        kind: `"error"`, `"exit"` or `"throw"`.
        reason: the exception, exit reason or thrown value, as a `Term` that can be sent back.
        message: the exception as Elixir formats it, with its stack trace; `str` returns it as well.
        stacktrace: the entries of the stack trace.
    """

    __module__ = "snex"

    def __init__(self, kind: str, reason: object, message: str, stacktrace: Iterable[str]) -> None:
        """Keep the parts; all of them are in `args`, so that the error can be pickled."""
        self.kind = kind
        self.reason = reason
        self.message = message
        self.stacktrace = list(stacktrace)
        super().__init__(kind, reason, message, self.stacktrace)

    def __str__(self) -> str:
        """Return the exception as Elixir formats it, with its stack trace."""
        return self.message


def name_of(name: Name) -> Atom:
    """Return the name of a module, function or node as an atom.

    A `Term` must hold an atom or a string.

    >>> name_of("Elixir.Enum")
    snex.Atom('Elixir.Enum')
    """
    if isinstance(name, Atom):
        return name
    text = text_of(name) if isinstance(name, Term) else name
    if isinstance(text, str):
        return Atom(text)
    msg = f"expected a name as a str, snex.Atom, or snex.Term of an atom or a string, got {name!r}"
    raise TypeError(msg)


_TRACEPARENT = Atom("traceparent")


class _Fields(tuple[object, ...]):
    """The fields of a request. They have names, for messages about their values."""

    __slots__ = ()


class _Message(_Fields):
    __slots__ = ()
    _fields = ("to", "data")


class _Call(_Fields):
    __slots__ = ()
    _fields = ("node", "module", "function", "args", "result_encoding_opts")


class _Application(_Fields):
    __slots__ = ()
    _fields = ("signature", "function", "args", "result_encoding_opts")


def _request(
    module: Name,
    function: Name,
    args: Iterable[object],
    node: Name | None,
    result_encoding_opts: EncodingOpts | Mapping[str, object] | None,
) -> tuple[object, ...]:
    if isinstance(args, (str, bytes, dict)):
        msg = f"expected a list of arguments, got {args!r}"
        raise TypeError(msg)
    return _Call(
        (
            None if node is None else name_of(node),
            name_of(module),
            name_of(function),
            list(args),
            _opts(result_encoding_opts),
        )
    )


def _opts(result_encoding_opts: EncodingOpts | Mapping[str, object] | None) -> object:
    """Return the last field of a call: the encoding options of its result, and the caller's span."""
    opts: dict[Atom, object] = {}
    if result_encoding_opts is not None:
        from .options import wire_opts

        opts.update(wire_opts(result_encoding_opts))
    traceparent = trace.current()
    if traceparent is not None:
        opts[_TRACEPARENT] = traceparent
    return opts or None


def _application(
    function: bytes, signature: bytes, args: Iterable[object], opts: EncodingOpts | None
) -> tuple[object, ...]:
    return _Application((signature, bytes(memoryview(function)), list(args), _opts(opts)))


@notes_origin
async def send(_origin: Origin, to: object, data: object) -> None:
    """Send a message, and return when the VM has sent it.

    A message to a name under which no process is registered is dropped, and Elixir logs this at `:debug`.
    `send`, `cast` and `call` are thread-safe, and work on any event loop.

    Args:
        to: any destination of `Kernel.send/2`: a pid as a `Term`, a registered name as an `Atom`,
            or a tuple of a name and a node.
        data: the message.

    Raises:
        ElixirError: if `to` is not a valid destination.
        TypeError: if `to` or `data` can't be encoded.
        RuntimeError: outside of an interpreter.

    Example:
        `await snex.send(pid, {"progress": 0.5})`
    """
    await _client().request(frame.SEND, _Message((to, data)))


@notes_origin
async def cast(
    _origin: Origin,
    module: Name,
    function: Name,
    args: Iterable[object],
    node: Name | None = None,
) -> None:
    """Call an Elixir function in a new process, without waiting for it.

    Args:
        module: `"Elixir.Enum"`, or `"erlang"`.
        function: its name.
        args: its arguments.
        node: where to call it; the VM's own node if left out.

    Raises:
        TypeError: if something can't be encoded.
        RuntimeError: outside of an interpreter.

    Example:
        `await snex.cast("Elixir.IO", "puts", ["hello"])`
    """
    await _client().post(frame.CAST, _request(module, function, args, node, None))


@notes_origin
async def call(
    _origin: Origin,
    module: Name,
    function: Name,
    args: Iterable[object],
    node: Name | None = None,
    *,
    result_encoding_opts: EncodingOpts | None = None,
) -> Any:  # noqa: ANN401 - whatever the function returns
    """Call an Elixir function in a new process and return its result.

    If the waiting task is cancelled, the result is dropped; the function itself keeps running.

    Args:
        module: `"Elixir.Enum"`, or `"erlang"`.
        function: its name.
        args: its arguments.
        node: where to call it; the VM's own node if left out.
        result_encoding_opts: how the result is encoded, see `EncodingOpts`.

    Raises:
        ElixirError: if the function raises, exits, throws, does not exist or may not be called.
        TypeError: if something can't be encoded.
        RuntimeError: outside of an interpreter, or when the VM is gone.

    Example:
        `await snex.call("Elixir.Enum", "sum", [[1, 2, 3]])`
    """
    request = _request(module, function, args, node, result_encoding_opts)
    return await _client().request(frame.CALL, request)


def send_sync(to: object, data: object) -> None:
    """Like `send`, for code that can't await; see `call_sync`.

    Raises:
        RuntimeError: as `call_sync` does.
    """
    _client().request_sync("send_sync", frame.SEND, _Message((to, data)))


def call_sync(
    module: Name,
    function: Name,
    args: Iterable[object],
    node: Name | None = None,
    *,
    result_encoding_opts: EncodingOpts | None = None,
) -> Any:  # noqa: ANN401 - whatever the function returns
    """Like `call`, for code that can't await. Blocks the thread.

    On the thread of the interpreter's event loop, nothing else runs until the function has returned, except for
    calls that the function itself makes to this interpreter: code that does not await and, with `run: :thread`,
    any code.

    Raises:
        RuntimeError: also on the thread that runs the event loop of `snex.serve`, and in a `__del__` that has
            interrupted Snex itself.
    """
    request = _request(module, function, args, node, result_encoding_opts)
    return _client().request_sync("call_sync", frame.CALL, request)


async def apply(
    function: bytes, signature: bytes, args: Iterable[object], opts: EncodingOpts | None
) -> object:
    """Call an Elixir function that is given in external term format."""
    return await _client().request(frame.APPLY, _application(function, signature, args, opts))


def apply_sync(
    function: bytes, signature: bytes, args: Iterable[object], opts: EncodingOpts | None
) -> object:
    """Like `apply`; blocks the thread."""
    body = _application(function, signature, args, opts)
    return _client().request_sync("a callback", frame.APPLY, body)


def _client() -> Client:
    # It needs asyncio, which would take most of the time of `import snex`.
    from .client import current

    return current()
