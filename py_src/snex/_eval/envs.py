"""Environments: the global variables that code runs with, and its context variables.

The global variables are a plain `dict`. The VM chooses the id of an environment, and says when it is no
longer needed; running code, and functions that it defined, keep the `dict` alive.
"""

from __future__ import annotations

import builtins
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NoReturn

from .._pypy import PYPY
from .contexts import merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextvars import Context

ROOT = 0

ALL = 0
ONLY = 1
EXCEPT = 2


class Env:
    """One environment.

    Nothing that `names` or `context` refers to may refer to the `Env`: only the garbage collector
    could free such a cycle.
    """

    __slots__ = ("context", "names")

    def __init__(self, names: dict[str, Any], context: Context) -> None:
        """Put the two together. The context is never entered, only copies of it."""
        self.names = names
        self.context = context

    def keep(self, before: Context, after: Context) -> None:
        """Keep the variables that a call has set, which began with the context `before` and ended with `after`.

        Only on the event loop's thread.
        """
        if self.context is before:
            self.context = after
        else:
            # Other calls have ended meanwhile. For a variable that both have set, this call wins.
            self.context = merge(self.context, after, before)


class EnvError(Exception):
    """A request for something that is not there; `code` is that of the ERROR frame."""

    def __init__(self, code: str, reason: str) -> None:
        """Keep the code and the text."""
        super().__init__(reason)
        self.code = code


def fresh_names() -> dict[str, Any]:
    """Return the variables with which every environment starts."""
    import snex

    return {
        "__name__": "__main__",
        "__doc__": None,
        "__package__": None,
        "__loader__": None,
        "__spec__": None,
        "__builtins__": builtins,
        "snex": snex,
        "Elixir": snex.Elixir,
    }


class Envs:
    """The table of environments, on the event loop's thread only."""

    def __init__(self, root: Env | None = None) -> None:
        """Begin with only the root; in a copy, that of its template."""
        self.root = root or Env(fresh_names(), copy_context())
        self._envs: dict[int, Env] = {ROOT: self.root}

    def __len__(self) -> int:
        """Count the environments, with the root."""
        return len(self._envs)

    def get(self, env_id: int | None) -> Env:
        """Return an environment; for `None`, a copy of the root that is not in the table.

        Raises:
            EnvError: `env_not_found`.
        """
        if env_id is None:
            return Env(self.root.names.copy(), self.root.context)
        env = self._envs.get(env_id)
        return env if env is not None else self._unknown(env_id)

    def look_at(self, env_id: int | None) -> Env:
        """Return an environment to look up names in: like `get`, but for `None` nothing is copied."""
        if env_id is None:
            return Env(self.root.names, self.root.context)
        env = self._envs.get(env_id)
        return env if env is not None else self._unknown(env_id)

    @staticmethod
    def _unknown(env_id: int) -> NoReturn:
        raise EnvError("env_not_found", f"no environment with id {env_id}")

    def make(
        self,
        env_id: int,
        sources: Sequence[tuple[int, int, Sequence[str]]],
        variables: dict[str, object],
    ) -> None:
        """Make an environment: the root's variables, then each source's, then `variables`.

        Context variables come from the same sources in the same order, except sources of mode `ONLY`.

        Args:
            env_id: its id.
            sources: `(env_id, mode, names)` each; later ones win.
            variables: these win over all.

        Raises:
            EnvError: `env_not_found`, or `env_key_not_found` for a name of mode `ONLY`.
        """
        env = self.root.names.copy()
        context = self.root.context
        for source_id, mode, names in sources:
            found = self.get(source_id)
            source = found.names
            if mode != ONLY and found.context is not context:
                context = merge(context, found.context)
            if mode == ONLY:
                for name in names:
                    if name not in source:
                        reason = f"no variable {name!r} in environment {source_id}"
                        raise EnvError("env_key_not_found", reason)
                    env[name] = source[name]
            elif mode == EXCEPT:
                left_out = set(names)
                env.update((k, v) for k, v in source.items() if k not in left_out)
            else:
                env.update(source)
        env.update(variables)
        self._envs[env_id] = Env(env, context)

    def drop(self, counts: Iterable[tuple[int, int]]) -> None:
        """Forget environments: `(env_id, count)` each. The count is ignored, as the VM has one handle of each.

        Unknown ids are ignored; the root stays.
        """
        for env_id, _count in counts:
            if env_id != ROOT:
                self._envs.pop(env_id, None)
        if PYPY:
            # PyPy's dicts may keep deleted values alive in unused entries; a copy does not.
            self._envs = self._envs.copy()
