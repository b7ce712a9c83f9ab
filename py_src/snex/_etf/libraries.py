"""Values of common libraries that have a form in Elixir.

Nothing is imported for it: a type can only be that of a library which is loaded.
"""

from __future__ import annotations

import sys
from typing import Any

_modules = sys.modules
# Kinds of numpy's dtypes: booleans, integers with and without sign, floats.
_NUMBERS = frozenset("biuf")


def converted(value: object) -> object:
    """Return a number of numpy's as one of Python's; None for anything else.

    Numbers that Python's float cannot hold (`longdouble`) stay what they are.
    """
    numpy: Any = _modules.get("numpy")
    # Another thread may be about to import it.
    generic = getattr(numpy, "generic", None)
    if generic is None or not issubclass(type(value), generic):
        return None
    number: Any = value
    if number.dtype.kind not in _NUMBERS:
        return None
    plain = number.item()
    return plain if type(plain) in {bool, int, float} else None
