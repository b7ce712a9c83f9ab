"""The sources of code that was compiled here, where Python's own tools find them.

`traceback`, `inspect`, `pdb` and `doctest` ask `linecache` for the lines of a file, by its name. So each
source has a unique name, such as `<lib/my.ex 0123456789ab>`: the file that it comes from and a digest of
the source. These names never reach Elixir; see `shown`.

The number of sources in `linecache` is bounded; the oldest are dropped first. Code objects refer to their source, so that
`recall` can restore it as long as the code exists.
"""

from __future__ import annotations

import functools
import inspect
import io
import linecache
import re
from _blake2 import blake2b  # `hashlib` would load OpenSSL
from types import CodeType, FrameType, FunctionType, MethodType, TracebackType
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

NO_FILE = "<Snex.Code>"
_DIGEST = 6
# Compiled on first use, because that would take a noticeable part of the start; `re` caches it.
_NAME = rf"<([^\n]+?) [0-9a-f]{{{2 * _DIGEST}}}>"
_QUOTED_NAME = f'(?<=File "){_NAME}(?=")'

# Limits of what `linecache` keeps for us.
_MAX_ENTRIES = 4096
_MAX_SIZE = 8 * 1024 * 1024
_LINE_SIZE = 8


class Source(NamedTuple):
    """A source, with the name that its code objects have as their file name."""

    name: str
    text: str
    line: int


def name(text: str, file: str | None, line: int) -> str:
    """Return the name of a source whose first line is line `line` of `file`."""
    content = f"{file}\0{line}\0{text}".encode("utf-8", "surrogatepass")
    label = NO_FILE[1:-1] if file in {None, NO_FILE} else file
    return f"<{label} {blake2b(content, digest_size=_DIGEST).hexdigest()}>"


def shown(text: str) -> str:
    """Return `text`, a traceback or a file name, with the file names that the user knows.

    >>> shown(f'File "{name("1/0", "lib/my.ex", 3)}", line 3')
    'File "lib/my.ex", line 3'
    >>> shown(name("1/0", None, 1))
    '<Snex.Code>'
    """
    whole = re.fullmatch(_NAME, text)
    return _label(whole) if whole else re.sub(_QUOTED_NAME, _label, text)


def _label(match: re.Match[str]) -> str:
    return NO_FILE if match[1] == NO_FILE[1:-1] else match[1]


def split(text: str) -> list[str]:
    """Return the lines of a source as Python counts them, with their line ends."""
    lines = io.StringIO(text, newline=None).readlines()
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return lines


# Sizes by name, the oldest first.
_kept: dict[str, int] = {}
_size = 0


def keep(source: Source) -> None:
    """Put a source into `linecache`."""
    global _size  # noqa: PLW0603 - belongs to `_kept`
    if source.name in linecache.cache:
        return
    _forget(source.name)
    _kept[source.name] = size = len(source.text) + _LINE_SIZE * source.line
    _size += size
    while len(_kept) > _MAX_ENTRIES or (_size > _MAX_SIZE and len(_kept) > 1):
        oldest = next(iter(_kept))
        linecache.cache.pop(oldest, None)
        _forget(oldest)
    lines = ["\n"] * (source.line - 1) + split(source.text)
    # Without a modification time, `linecache` does not look for a file.
    linecache.cache[source.name] = (len(source.text), None, lines, source.name)


def _forget(name: str) -> None:
    global _size  # noqa: PLW0603 - belongs to `_kept`
    _size -= _kept.pop(name, 0)


class ClassMark:
    """A decorator that remembers the source in which a class was defined.

    Python only knows the module of a class, and takes a module for one file.
    """

    __slots__ = ("source",)

    def __init__(self, source: Source) -> None:
        """Mark classes of that source."""
        self.source = source

    def __call__(self, made: Any) -> Any:  # noqa: ANN401 - other decorators may have made anything
        """Return `made` unchanged."""
        if issubclass(type(made), type):
            try:
                _classes[made] = self.source
            except Exception:  # noqa: BLE001 - from the `__hash__` of a metaclass
                return made
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Become a function without effect, in a process that may not know this package."""
        return functools.partial, (cast, None)


_classes: WeakKeyDictionary[type, Source] = WeakKeyDictionary()


def attach(code: CodeType, source: Source, class_mark: ClassMark, placeholder: str) -> CodeType:
    """Attach a source to a code object and to all code within it; `class_mark` replaces `placeholder`.

    It becomes a constant of the code, so that it lives exactly as long, on every implementation of Python.
    """
    consts = tuple(
        attach(c, source, class_mark, placeholder)
        if isinstance(c, CodeType)
        else class_mark
        if type(c) is str and c == placeholder
        else c
        for c in code.co_consts
    )
    return code.replace(co_consts=(*consts, (_MARK, source.text, source.line)))


# Marks the constant through which a code object knows its source.
_MARK = "<Snex.Code source>"


def of_code(code: CodeType) -> Source | None:
    """Return the source from which `code` was compiled here."""
    last = code.co_consts[-1] if code.co_consts else None
    if type(last) is tuple and len(last) == 3 and last[0] == _MARK:  # noqa: PLR2004
        return Source(code.co_filename, last[1], last[2])
    return None


# Tried in this order. Other objects are not asked for attributes: they may have one of any name, or raise any error.
_LEADS_TO_CODE = (
    (MethodType, "__func__"),
    (FunctionType, "__code__"),
    (TracebackType, "tb_frame"),
    (FrameType, "f_code"),
)


def recall(thing: Any) -> Source | None:  # noqa: ANN401 - whatever `inspect` is asked about
    """Return the source of a class, function, method, frame, traceback or code, and put it into `linecache`."""
    if issubclass(type(thing), type):
        source = _classes.get(thing)
    else:
        for kind, attribute in _LEADS_TO_CODE:
            if isinstance(thing, kind):
                thing = getattr(thing, attribute)
        source = of_code(thing) if isinstance(thing, CodeType) else None
    if source is not None:
        keep(source)
    return source


def install() -> None:
    """Have `inspect` find the sources of classes, and those that `linecache` has dropped."""
    getfile = inspect.getfile

    @functools.wraps(getfile)
    def getfile_of_source(object: Any) -> str:  # noqa: A002, ANN401 - its documented name
        source = recall(object)
        return getfile(object) if source is None else source.name

    inspect.getfile = getfile_of_source
