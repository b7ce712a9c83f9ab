"""Elixir's own syntax for calls: `await Elixir.Enum.sum([1, 2, 3])`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import calls

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .calls import Name
    from .options import EncodingOpts


class BeamModuleProxy:
    """A module of the VM, or a function in one.

    Attributes are nested modules or functions; a call goes to the function with the last name. Use `getattr` for
    a function whose name is not a Python identifier: `getattr(Elixir.Keyword, "keyword?")`.

    Args:
        module: an Erlang module, such as `"erlang"`, an Elixir module with its full name, `"Elixir.Enum"`, or a
            function with its module, `"Elixir.Enum.sum"`. The name can also be a `snex.Term`.

    >>> Elixir.String.Chars
    snex.BeamModuleProxy('Elixir.String.Chars')
    >>> BeamModuleProxy("erlang").node
    snex.BeamModuleProxy('erlang.node')
    """

    __slots__ = ("_snex_function", "_snex_module")
    __module__ = "snex"

    def __init__(self, module: Name) -> None:
        """Represent the module or function of that name."""
        self._snex_module = str(calls.name_of(module))
        self._snex_function: str | None = None

    def __getattr__(self, name: str) -> BeamModuleProxy:
        """Return the proxy of a nested module or a function."""
        # Python asks objects for these to find out what they can do.
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        inner = BeamModuleProxy(self._snex_full())
        inner._snex_function = name
        return inner

    def _snex_full(self) -> str:
        return (
            self._snex_module
            if self._snex_function is None
            else f"{self._snex_module}.{self._snex_function}"
        )

    def __call__(
        self,
        *args: object,
        node: Name | None = None,
        result_encoding_opts: EncodingOpts | None = None,
        cast: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """Call the function; the result must be awaited.

        Args:
            *args: the function's arguments.
            node: where to call it; the VM's own node if left out.
            result_encoding_opts: how the result is encoded.
            cast: do not wait for the function; the result is `None`.

        Raises:
            TypeError: if this is a module.
        """
        module, function = self._snex_module, self._snex_function
        if function is None:
            # Made from one name.
            module, _dot, function = module.rpartition(".")
        if not module:
            msg = f"{function} is a module; call one of its functions"
            raise TypeError(msg)
        if cast:
            if result_encoding_opts is not None:
                msg = "a cast has no result: leave out result_encoding_opts"
                raise TypeError(msg)
            return calls.cast(module, function, args, node)
        return calls.call(module, function, args, node, result_encoding_opts=result_encoding_opts)

    def __repr__(self) -> str:
        """Show the name."""
        return f"snex.BeamModuleProxy({self._snex_full()!r})"

    def __eq__(self, other: object) -> bool:
        """Proxies of the same name are equal."""
        return isinstance(other, BeamModuleProxy) and self._snex_full() == other._snex_full()

    def __hash__(self) -> int:
        """Hash by name."""
        return hash((BeamModuleProxy, self._snex_full()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by name."""
        if self._snex_function is None:
            return BeamModuleProxy, (self._snex_module,)
        return getattr, (BeamModuleProxy(self._snex_module), self._snex_function)


Elixir = BeamModuleProxy("Elixir")
