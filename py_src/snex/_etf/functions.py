"""Elixir functions that Python can call. Pickles from the VM name this module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .._elixir.origin import notes_origin
from . import encoder
from .terms import Term, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from inspect import Signature

    from .._elixir.options import EncodingOpts
    from .._elixir.origin import Origin

# Tags of the external term format.
_FUN = 112
_EXPORT = 113
# Offsets of a function's arity and module.
_FUN_ARITY = 6
_FUN_MODULE = 31
_ATOMS = {100: 2, 118: 2, 115: 1, 119: 1}


class Function(Term):
    """An Elixir function: `await function(argument, ...)` calls it in a new process and returns its result.

    It is also a `Term`: it can be kept, hashed, compared and sent back, and is the same function in Elixir.
    If the interpreter's option `:allow` restricts what Python may call, functions that Elixir has passed
    to this interpreter can still be called, but no others.

    Args:
        etf: a function in external term format.
        signature: proves to the VM that the function is its own.

    Raises:
        ValueError: if the term is not a function.
    """

    __module__ = "snex"

    _signature = b""
    # The result of `about`, once it has been called.
    _about: About | None = None

    def __new__(cls, etf: bytes, signature: bytes = b"") -> Function:  # noqa: PYI034 - as in `Term`
        """Check that the term is a function."""
        self = Term.__new__(cls, etf)
        assert isinstance(self, Function)  # noqa: S101 - it is made of this very class
        if self[1] not in {_FUN, _EXPORT}:
            msg = "not a function in external term format"
            raise ValueError(msg)
        if signature:
            self._signature = signature
        return self

    @notes_origin
    async def __call__(  # type: ignore[misc, override] # noqa: D417 - of `self`
        _origin: Origin,  # noqa: N805 - filled in by the decorator, in front of `self`
        self: Function,
        /,
        *args: object,
        result_encoding_opts: EncodingOpts | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        """Call the function.

        Args:
            *args: the function's arguments.
            result_encoding_opts: how the result is encoded, see `EncodingOpts`.

        Raises:
            ElixirError: if the function raises, exits, throws, or may not be called.
            TypeError: for a wrong number of arguments, or an argument that can't be encoded.
            RuntimeError: outside of an interpreter, or when the VM is gone.

        Example:
            `await function(1, 2)`
        """
        from .._elixir.calls import apply

        about(self).check(args)
        return await apply(self, self._signature, args, result_encoding_opts)

    def call_sync(self, /, *args: object, result_encoding_opts: EncodingOpts | None = None) -> Any:  # noqa: ANN401 - whatever the function returns
        """Call the function from code that can't await. Blocks the thread.

        Raises:
            RuntimeError: under the same conditions as `snex.call_sync`.
        """
        from .._elixir.calls import apply_sync

        about(self).check(args)
        return apply_sync(self, self._signature, args, result_encoding_opts)

    def __repr__(self) -> str:
        """Show the function as Elixir does, as far as its bytes tell."""
        return f"<snex.Function {about(self)}>"

    def __getnewargs__(self) -> tuple[bytes, bytes]:  # type: ignore[override]
        """Pickle and copy through the constructor."""
        return bytes(memoryview(self)), self._signature


class Callback:
    """An Elixir function as an ordinary Python function, made by `Snex.Serde.callback/1`.

    `callback(argument, ...)` blocks until the function has returned. It can be called wherever `snex.call_sync` can,
    takes only positional arguments, and becomes the function again in Elixir.

    Args:
        etf: a function in external term format.
        signature: see `Function`.

    Attributes:
        function: the `Function` that it calls.

    Raises:
        ValueError: if the term is not a function.
    """

    __module__ = "snex"

    def __init__(self, etf: bytes, signature: bytes = b"") -> None:
        """Wrap the function."""
        self.function = Function(etf, signature)
        description = about(self.function)
        self.__name__ = description.name
        self.__qualname__ = description.name
        self.__doc__ = f"Calls the Elixir function {description}."

    def __call__(self, /, *args: object, **kwargs: object) -> Any:  # noqa: ANN401 - whatever it returns
        """Call the function.

        Raises:
            ElixirError: if the function raises, exits, throws, or may not be called.
            TypeError: for a wrong number of arguments, keyword arguments, or an argument that can't be encoded.
        """
        if kwargs:
            msg = f"{self.__name__}() is an Elixir function and takes no keyword arguments, got {next(iter(kwargs))!r}"
            raise TypeError(msg)
        return self.function.call_sync(*args)

    def __getattr__(self, name: str) -> Signature:
        """Return the signature, from which libraries learn the number of arguments."""
        if name == "__signature__":
            signature = about(self.function).signature()
            if signature is not None:
                return signature
        msg = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(msg)

    def __eq__(self, other: object) -> bool:
        """Callbacks of the same function are equal."""
        return isinstance(other, Callback) and self.function == other.function

    def __hash__(self) -> int:
        """Hash by function."""
        return hash((Callback, self.function))

    def __repr__(self) -> str:
        """Show the function as Elixir does, as far as its bytes tell."""
        return f"<snex.Callback {about(self.function)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by function."""
        return Callback, self.function.__getnewargs__()


class About(NamedTuple):
    """What the bytes of a function tell. An arity of -1 is unknown."""

    text: str
    name: str
    arity: int

    def __str__(self) -> str:
        return self.text

    def check(self, args: tuple[object, ...]) -> None:
        """Raise `TypeError` for a wrong number of arguments."""
        if self.arity not in {len(args), -1}:
            plural = "" if self.arity == 1 else "s"
            verb = "was" if len(args) == 1 else "were"
            msg = f"{self.name}() takes {self.arity} positional argument{plural} but {len(args)} {verb} given"
            raise TypeError(msg)

    def signature(self) -> Signature | None:
        """Return the signature for `inspect`, if the number of arguments is known."""
        from inspect import Parameter, Signature

        if self.arity < 0:
            return None
        names = (f"arg{index}" for index in range(1, self.arity + 1))
        return Signature([Parameter(name, Parameter.POSITIONAL_ONLY) for name in names])


_UNKNOWN = About("of unknown form", "function", -1)


def about(function: Function) -> About:
    r"""Return what the bytes of a function tell.

    >>> str(about(Function(b"\x83qw\x0bElixir.Enumw\x03suma\x01")))
    '&Enum.sum/1'
    """
    known = function._about  # noqa: SLF001 - written here alone
    if known is None:
        known = function._about = _read(bytes(memoryview(function)))  # noqa: SLF001 - as above
    return known


def _read(data: bytes) -> About:
    try:
        if data[1] == _EXPORT:
            names = _atoms(data, 2)
            module, _ = next(names)
            name, end = next(names)
            arity = data[end + 1]
            return About(f"&{_module(module)}.{name}/{arity}", name, arity)
        module, _ = next(_atoms(data, _FUN_MODULE))
        arity = data[_FUN_ARITY]
    except (IndexError, StopIteration, UnicodeDecodeError):
        # Python code made these bytes up. The VM will not accept them either.
        return _UNKNOWN
    return About(f"fn/{arity} of {_module(module)}", "fn", arity)


def _module(name: str) -> str:
    return name.removeprefix("Elixir.") if name.startswith("Elixir.") else f":{name}"


def _atoms(data: bytes, start: int) -> Iterator[tuple[str, int]]:
    """Yield the consecutive atoms from `start` on, each with its end."""
    while (size := _ATOMS.get(data[start])) is not None:
        end = start + 1 + size + int.from_bytes(data[start + 1 : start + 1 + size], "big")
        text = text_of(Term(b"\x83" + data[start:end]))
        if text is None or end > len(data):
            return
        yield text, end
        start = end


def _term(callback: object) -> Term:
    assert isinstance(callback, Callback)  # noqa: S101 - the encoder has looked
    return Term(bytes(memoryview(callback.function)))


encoder.add_converter(Callback, _term)
