"""The selection of names."""

from __future__ import annotations

import difflib
import sys
from typing import Any


class Selection:
    """The names of `only` and `except`. `A.b` is a member of class `A`, or of submodule `A`."""

    def __init__(self, only: list[str] | None, left_out: list[str]) -> None:
        """Take both lists; without the first, all names that are not in the second are wanted."""
        self.only = None if only is None else set(only)
        self.left_out = set(left_out)

    def wanted(self, name: str) -> bool:
        """Return whether a function, a class, or a member of a class is wanted."""
        if name in self.left_out:
            return False
        if self.only is None or name in self.only or _any_below(name, self.only):
            return True
        owner = name.rpartition(".")[0]
        while owner:
            # All members of the class, unless some of them are listed.
            if owner in self.only and not _any_below(owner, self.only):
                return True
            owner = owner.rpartition(".")[0]
        return False

    def below(self, submodule: str) -> Selection:
        """Return the selection for a submodule: everything, unless some of its names are listed."""
        prefix = f"{submodule}."
        only = None
        if self.only is not None:
            only = [one.removeprefix(prefix) for one in self.only if one.startswith(prefix)] or None
        left_out = [one.removeprefix(prefix) for one in self.left_out if one.startswith(prefix)]
        return Selection(only, left_out)

    def unknown(self, modules: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
        """Return the wanted names that do not exist, each with a similar one that does."""
        known, near = set(), set()
        main = modules[0]["name"]
        for module in modules:
            prefix = f"{module['name']}.".removeprefix(f"{main}.")
            near |= {prefix + name for name in dir(sys.modules[module["name"]])}
            for member in module["members"]:
                name = prefix + member["name"]
                known |= {name, *(f"{name}.{one['name']}" for one in member.get("members", []))}
        missing = sorted((self.only or set()) - known)
        likely = sorted(near | known)
        return [
            (name, next(iter(difflib.get_close_matches(name, likely, 1)), None)) for name in missing
        ]


def _any_below(owner: str, names: set[str]) -> bool:
    return any(one.startswith(f"{owner}.") for one in names)
