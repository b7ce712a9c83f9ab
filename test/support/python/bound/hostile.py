"""A module with all that may get in the way: \"""quotes\""", #{interpolation}, \\backslashes."""

from __future__ import annotations

import sys
import warnings
from typing import Literal

print("noise")
print("more noise", file=sys.stderr)
warnings.warn("a warning", stacklevel=1)

# Words with a meaning in Elixir, functions of Kernel, and letters that Elixir doesn't take.
WORDS = """
after and_ case cond catch do else_ end ensure fn for_ import_ in_ module_info nil quote receive rescue require
reraise super true unquote unquote_splicing use when with_ alias __struct__ __block__ __aliases__ __info__
abs apply def_ defmodule defp elem hd inspect length max min node raise_ round self send spawn throw tl to_string
ªb µm ℌx
""".split()


def _make(name: str) -> None:
    def function(value: int = 1, *, end: int = 2, fn: int = 3) -> int:
        return value + end + fn

    function.__name__ = name
    function.__doc__ = f'{name}: \"""three\""" #{{not}} \\\\ \x00\x1b\u202e `open'
    globals()[name] = function


for _name in WORDS:
    _make(_name)

for _number in range(300):
    _make(f"f{_number}")


class Meta(type):
    def __getattribute__(cls, name: str) -> object:
        raise SystemExit(3)


class Hostile(metaclass=Meta):
    """A class that nobody can look at."""


def literal(a: Literal["<", "EUR", "a b", "x@y", "really?"] = "<", b: Literal["" , "nil"] = "") -> str:
    return a + b


def huge() -> None: ...


huge.__doc__ = "x" * 1_000_000
__all__ = [*WORDS, *(f"f{number}" for number in range(300)), "Hostile", "huge", "literal"]
