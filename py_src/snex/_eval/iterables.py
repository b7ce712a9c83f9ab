"""What a stream iterates over, and the parts of that which run in a worker thread.

Each of those parts is run like a `Program`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from .invocation import is_awaitable
from .overload import Durations

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .producer import Producer
    from .runner import Work

_NO_PAIRS: dict[object, object] = {}
_VIEWS = (_NO_PAIRS.keys(), _NO_PAIRS.values(), _NO_PAIRS.items())
_CONTAINERS: tuple[Any, ...] = (
    [],
    (),
    {},
    set(),
    frozenset(),
    "",
    b"",
    bytearray(),
    range(0),
    deque(),
    *_VIEWS,
)
# Iterating over these runs no user code, and does not block.
_HARMLESS = frozenset(
    {*map(type, _CONTAINERS), *(type(iter(container)) for container in _CONTAINERS)}
)


def is_async(iterable: object) -> bool:
    """Return whether something is iterated with `async for`; only its type is asked."""
    kind = type(iterable)
    return hasattr(kind, "__aiter__") or hasattr(kind, "__anext__")


def is_harmless(iterable: object) -> bool:
    """Return whether iterating over something neither blocks nor runs user code."""
    return type(iterable) in _HARMLESS


def iterator_of(iterable: Any) -> Any:  # noqa: ANN401 - of any type
    """Return an iterator over what a stream's code or function has returned.

    >>> next(iterator_of([1]))
    1
    >>> iterator_of(None)
    Traceback (most recent call last):
    TypeError: 'NoneType' object is not iterable; the code of a stream must yield its items or return an iterable; \
a function must return an iterable
    """
    try:
        return iter(iterable)
    except TypeError as error:
        kind = type(iterable)
        if hasattr(kind, "__iter__") or hasattr(kind, "__getitem__"):
            # The type's own code raised it.
            raise
        msg = (
            f"{error}; the code of a stream must yield its items or return an iterable; "
            "a function must return an iterable"
        )
        raise TypeError(msg) from None


class InThread:
    """The part of a stream that runs in a worker thread."""

    # Only the result tells whether it must be awaited.
    is_async = False
    is_call = True

    def __init__(self, producer: Producer) -> None:
        """Prepare the part of the stream of `producer`."""
        self.durations = Durations()
        self._producer = producer

    def bind(self, names: dict[str, Any]) -> Callable[[], Any]:
        """Return a function that runs it; it may return a coroutine."""
        raise NotImplementedError


class Rest(InThread):
    """An ordinary iterator that is advanced in a worker thread."""

    def __init__(self, producer: Producer, iterable: object) -> None:
        """Iterate over something."""
        super().__init__(producer)
        self._iterable: object = iterable

    def bind(self, _names: dict[str, Any]) -> Callable[[], Any]:
        """Return a function that runs it."""
        return self._run

    def _run(self) -> None:
        # From here on, only the producer refers to it.
        iterable, self._iterable = self._iterable, None
        self._producer.produce(iterable)


class Whole(InThread):
    """A whole stream: its code runs in the worker thread, too."""

    def __init__(self, producer: Producer, work: Work) -> None:
        """Run the work of the request."""
        super().__init__(producer)
        self._work = work

    def bind(self, names: dict[str, Any]) -> Callable[[], Any]:
        """Return a function that runs it; it may return a coroutine."""
        self._run = self._work.bind(names)
        return self._start

    def _start(self) -> Coroutine[Any, Any, None] | None:
        result = self._run()
        if is_async(result):
            return self._producer.produce_async(result)
        if is_awaitable(result):
            return self._await(result)
        self._producer.produce(result)
        return None

    async def _await(self, awaitable: Any) -> None:  # noqa: ANN401 - of any type
        result = await awaitable
        if is_async(result):
            await self._producer.produce_async(result)
        else:
            self._producer.produce(result)
