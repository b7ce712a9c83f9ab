"""The Python side of Snex, for code that runs in a Snex interpreter.

Every environment has this package as `snex`, and its `Elixir` as `Elixir`. Outside of an interpreter, it can be
imported for its types; functions that need the VM raise a `RuntimeError` there.
"""

import sys

if sys.argv[:1] == ["-m"]:
    # An interpreter starts: with `-m`, Python imports the package before it runs its main module.
    from ._path import narrow

    narrow()

from typing import TYPE_CHECKING

from ._elixir.calls import ElixirError, call, call_sync, cast, send, send_sync
from ._elixir.modules import BeamModuleProxy, Elixir
from ._etf.encoder import register_encoder, set_custom_encoder
from ._etf.handles import Handle, keep
from ._etf.memory import SharedMemory, shared, shared_array
from ._etf.terms import Atom, DistinctAtom, Term
from ._eval.request import Cancelled
from ._version import VERSION

if TYPE_CHECKING:
    from ._display.representation import register_renderer
    from ._elixir.logging import LoggingHandler
    from ._elixir.options import EncodingOpt, EncodingOpts
    from ._elixir.serve import io_loop_for_connection, serve, serve_forever
    from ._elixir.streams import Stream
    from ._etf.functions import Callback, Function

__version__ = VERSION

__all__ = [
    "Atom",
    "BeamModuleProxy",
    "Callback",
    "Cancelled",
    "DistinctAtom",
    "Elixir",
    "ElixirError",
    "EncodingOpt",
    "EncodingOpts",
    "Function",
    "Handle",
    "LoggingHandler",
    "SharedMemory",
    "Stream",
    "Term",
    "__version__",
    "call",
    "call_sync",
    "cast",
    "io_loop_for_connection",
    "keep",
    "register_encoder",
    "register_renderer",
    "send",
    "send_sync",
    "serve",
    "serve_forever",
    "set_custom_encoder",
    "shared",
    "shared_array",
]


# Few programs need these, so they are only imported when they are used.
_LATER = {
    "Callback": "_etf.functions",
    "EncodingOpt": "_elixir.options",
    "EncodingOpts": "_elixir.options",
    "Function": "_etf.functions",
    "LoggingHandler": "_elixir.logging",
    "Stream": "_elixir.streams",
    "io_loop_for_connection": "_elixir.serve",
    "register_renderer": "_display.representation",
    "serve": "_elixir.serve",
    "serve_forever": "_elixir.serve",
}


def __getattr__(name: str) -> object:
    module = _LATER.get(name)
    if module is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{module}"), name)
