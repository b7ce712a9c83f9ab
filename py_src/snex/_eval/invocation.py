"""Calls of functions by name, and lookups of attributes: the INVOKE frames.

The first name of a path is looked up in the environment, and then among Python's own functions; otherwise it names
a module, which is imported. The other names are attributes, or modules in packages.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import BuiltinFunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from .overload import Durations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    # The name of a module; an object, alone in a tuple; or None for a name in the environment.
    Root = str | tuple[object] | None

_MISSING = object()
_sys_modules = sys.modules
_BUILTINS = sys.modules["builtins"]
_NAMES_OF_BUILTINS = _BUILTINS.__dict__
# How many paths are cached, and the most characters of such a path.
_MOST = 512
_LONGEST = 1024
_paths: dict[object, Path] = {}
_SUGGESTIONS = 3
_NOTHING: dict[str, object] = {}
# Most results are of these types.
_NEVER_AWAITED = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})


class Path:
    """A parsed path, and how long calls of its function have lately taken.

    The function is looked up for each call: a name may have been reassigned meanwhile, or a module reloaded.
    """

    __slots__ = ("attributes", "durations", "first", "text")

    def __init__(self, root: Root, text: str) -> None:
        """Parse the path."""
        self.text = text
        # The name that is looked up in an environment. With a root, all names are attributes.
        self.first: str | None = None
        if root is None:
            self.first, _, text = text.partition(".")
        self.attributes = text.split(".") if text else ()
        self.durations = Durations()


class Invocation:
    """One call of a function, or lookup of an attribute, to be run like a `Program`."""

    __slots__ = (
        "_arguments",
        "_copies",
        "_keywords",
        "_names",
        "_path",
        "_root",
        "durations",
        "is_call",
    )

    # Only the result tells whether it must be awaited.
    is_async = False

    def __init__(
        self,
        root: Root,
        path: str,
        arguments: Sequence[object] | None,
        keywords: Mapping[str, object] | None,
        copies: bool,  # noqa: FBT001 - internal
    ) -> None:
        """Call what `path` leads to from `root`; with `None` as arguments, only look it up.

        With `copies`, the function only gets a copy of the environment's names.
        """
        self._root = root
        self._arguments = arguments
        self._keywords = keywords
        self._copies = copies
        # Whether it is a call, whose result is awaited if possible.
        self.is_call = arguments is not None
        # For most types, the methods of all objects are the same functions.
        key = path if root is None else (id(type(root[0])) if type(root) is tuple else root, path)
        self._path = known = _paths.get(key) or _path(key, root, path)
        self.durations = known.durations

    def bind(self, names: dict[str, Any]) -> Callable[[], Any]:
        """Return a function that makes the call or lookup, with the names of an environment."""
        self._names = names
        return self._run

    def _run(self) -> object:
        names = self._names
        found = _follow(self._path, self._root, names)
        arguments = self._arguments
        if arguments is None:
            return found
        if type(found) is BuiltinFunctionType:
            found = function_for(found, names, self._copies)
        return call(found, arguments, self._keywords or _NOTHING)


def call(function: Any, arguments: Sequence[object], keywords: Mapping[str, object]) -> object:  # noqa: ANN401
    """Call a user's function. In here nothing of ours is half done, so a signal handler may raise."""
    return function(*arguments, **keywords)


# They use the variables of their caller, which must be those of the environment, not ours.
_RUNNING_CODE = frozenset({eval, exec})
_AMONG_NAMES = frozenset({globals, locals, vars, dir}) | _RUNNING_CODE


def function_for(function: Any, names: dict[str, Any], copies: bool) -> Any:  # noqa: ANN401, FBT001 - internal
    """Return what to call: Python's own functions that use the caller's variables get those of the environment.

    With `copies`, they only get a copy of its names.
    """
    if type(function) is not BuiltinFunctionType or function not in _AMONG_NAMES:
        return function

    def with_names(*arguments: object, **keywords: object) -> object:
        own = names.copy() if copies else names
        if len(arguments) == 1 and function in _RUNNING_CODE:
            arguments = (*arguments, own)
        elif not (arguments or keywords):
            return sorted(own) if function is dir else own
        return call(function, arguments, keywords)

    return with_names


def is_awaitable(value: object) -> bool:
    """Return whether a value can be awaited; only its type is asked."""
    kind = type(value)
    return kind not in _NEVER_AWAITED and hasattr(kind, "__await__")


def resolve(root: Root, path: str, names: Mapping[str, Any]) -> object:
    """Return what a path leads to.

    Raises:
        NameError: if the first name is neither in `names` nor one of Python's own, nor a module.
        AttributeError: if there is no such attribute. Both errors suggest similar names.

    >>> resolve(None, "math.sqrt", {})
    <built-in function sqrt>
    >>> resolve("os", "path.sep", {})
    '/'
    >>> resolve(([1, 2],), "__len__", {})()
    2
    >>> resolve(None, "math.sqr", {})
    Traceback (most recent call last):
    AttributeError: 'math.sqr' leads nowhere: module 'math' has no attribute 'sqr'. Did you mean: 'sqrt', 'isqrt'?
    """
    return _follow(Path(root, path), root, names)


def _follow(path: Path, root: Root, names: Mapping[str, Any]) -> object:
    first = path.first
    if first is not None:
        value = names.get(first, _MISSING)
        if value is _MISSING:
            value = _elsewhere(first, names)
    elif type(root) is tuple:
        value = root[0]
    else:
        value = _module(root)  # type: ignore[arg-type]
        if value is None:
            msg = f"No module named {root!r}{_nearest(root, _modules())}"  # type: ignore[arg-type]
            raise ModuleNotFoundError(msg, name=root)  # type: ignore[arg-type]
    for name in path.attributes:
        try:
            value = getattr(value, name)
        except AttributeError as error:
            value = _submodule(value, name, path.text, error)
    return value


def _elsewhere(name: str, names: Mapping[str, Any]) -> object:
    """Return the meaning of a name that is not a variable."""
    builtins = names.get("__builtins__", _BUILTINS)
    if builtins is _BUILTINS:
        builtins = _NAMES_OF_BUILTINS
    value = (
        builtins.get(name, _MISSING)
        if type(builtins) is dict
        else getattr(builtins, name, _MISSING)
    )
    if value is not _MISSING:
        return value
    module = _module(name)
    if module is not None:
        return module
    known = {*names, *dir(_BUILTINS), *_modules()}
    msg = f"{name!r} is neither a name in the environment nor a module{_nearest(name, known)}"
    raise NameError(msg)


def _module(name: str) -> Any:  # noqa: ANN401 - whatever is in the place of a module
    """Import a module; return None if there is none of that name. Errors in its code are raised."""
    try:
        # For a module that is already imported, `__import__` is faster than `import_module`.
        __import__(name)
        found = _sys_modules.get(name)
        return found if found is not None else import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise


def _modules() -> set[str]:
    return {*sys.modules, *sys.builtin_module_names, *sys.stdlib_module_names}


def _submodule(value: object, name: str, path: str, error: AttributeError) -> object:
    """Return the module `name` of a package that has no such attribute.

    Raises:
        AttributeError: if there is none.
    """
    if isinstance(value, ModuleType):
        module = _module(f"{value.__name__}.{name}")
        if module is not None:
            return module
    elif error.name != name or error.obj is not value or _is_raised_by(value, name, error):
        # The object's own code raised it, about something else.
        raise error
    what = f"{path!r} leads nowhere: " if "." in path else ""
    msg = f"{what}{error}{_nearest(name, _names_in(value))}"
    raise AttributeError(msg) from None


def _is_raised_by(value: object, name: str, error: AttributeError) -> bool:
    """Return whether the attribute exists, and its own code raised the error."""
    traceback = error.__traceback__
    runs_code = traceback is not None and traceback.tb_next is not None
    return runs_code and any(name in vars(base) for base in type(value).__mro__)


def _names_in(value: object) -> set[str]:
    try:
        return {name for name in dir(value) if isinstance(name, str)}
    except Exception:  # noqa: BLE001 - the object's own code, and only a hint is at stake
        return set()


def _nearest(name: str, known: set[str]) -> str:
    from difflib import get_close_matches

    # Without private names, unless a private name was looked up.
    shown = {k for k in known if k != name and (k[:1] != "_" or name[:1] == "_")}
    near = get_close_matches(name, sorted(shown), n=_SUGGESTIONS)
    return f". Did you mean: {', '.join(map(repr, near))}?" if near else ""


def _path(key: object, root: Root, text: str) -> Path:
    """Make a path, and cache it."""
    path = Path(root, text)
    if len(text) <= _LONGEST and (type(root) is not str or len(root) <= _LONGEST):
        if len(_paths) >= _MOST:
            # The oldest one.
            _paths.pop(next(iter(_paths)), None)
        _paths[key] = path
    return path
