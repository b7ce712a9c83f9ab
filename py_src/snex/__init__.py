"""Snex, the Python side: what code that runs in a Snex interpreter can use.

Every environment has this package as `snex`, and `Elixir` from it. Elsewhere it can be imported for
its types; whatever needs the VM raises a `RuntimeError` there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._calls import ElixirError, call, call_sync, cast, send, send_sync
from ._elixir import BeamModuleProxy, Elixir
from ._etf import set_custom_encoder
from ._request import Cancelled
from ._terms import Atom, DistinctAtom, Term
from ._version import VERSION

if TYPE_CHECKING:
    from ._options import EncodingOpt, EncodingOpts

__version__ = VERSION

__all__ = [
    "Atom",
    "BeamModuleProxy",
    "Cancelled",
    "DistinctAtom",
    "Elixir",
    "ElixirError",
    "EncodingOpt",
    "EncodingOpts",
    "Term",
    "__version__",
    "call",
    "call_sync",
    "cast",
    "send",
    "send_sync",
    "set_custom_encoder",
]


def __getattr__(name: str) -> object:
    # Interpreters start without these; few programs need them.
    if name in {"EncodingOpt", "EncodingOpts"}:
        from . import _options

        return getattr(_options, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
