"""A shop: a module of the user's own, with all that bindings have to cope with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypedDict

CURRENCY = "EUR"
LIMITS = (1, 100)


class Line(TypedDict):
    """A line of an order."""

    name: str
    count: int


class Order:
    """An order of one customer.

    Args:
        customer: Who has ordered.
        discount: A part of the price, from 0 to 1.
    """

    rate: float = 0.19

    def __init__(self, customer: str, *, discount: float = 0.0) -> None:
        self.customer = customer
        self.discount = discount
        self.lines: list[Line] = []

    @property
    def size(self) -> int:
        """How many lines there are."""
        return len(self.lines)

    @classmethod
    def parse(cls, text: str) -> Order:
        """Make an order of a text, such as `ada: tea, milk`."""
        customer, _, names = text.partition(":")
        order = cls(customer.strip())
        for name in names.split(","):
            order.add(name.strip())
        return order

    @staticmethod
    def currencies() -> list[str]:
        """Return what can be paid with."""
        return [CURRENCY]

    def add(self, name: str, count: int = 1) -> Order:
        """Add a line, and return the order itself.

        Args:
            name: What is ordered.
            count: How many of it.

        Returns:
            The order, for further calls.

        Raises:
            ValueError: If there are none of it.

        Example:
            >>> Order("ada").add("tea").size
            1
        """
        if count < 1:
            raise ValueError("at least one")
        self.lines.append({"name": name, "count": count})
        return self

    def names(self) -> Iterator[str]:
        """Yield the name of each line."""
        for line in self.lines:
            yield line["name"]

    def new(self) -> Order:
        """Return an empty order of the same customer."""
        return Order(self.customer)

    class Receipt:
        """What the customer gets, made of an order."""

        def __init__(self, order: Order) -> None:
            self.order = order

        def text(self) -> str:
            """Return it in one line."""
            return f"{self.order.customer}: {', '.join(self.order.names())}"

    def receipt(self) -> Order.Receipt:
        """Return the receipt."""
        return Order.Receipt(self)


@dataclass
class Item:
    """What is sold. As a dataclass, it has a form in Elixir as well."""

    name: str
    amount: int = 1

    def twice(self) -> Item:
        """Return two of it."""
        return Item(self.name, self.amount * 2)


def item(name: str) -> Item:
    """Return an item."""
    return Item(name)


def price(amount: float, /, factor: float = 1.0, *, timeout: float = 0.0, mode: Literal["net", "gross"] = "net") -> float:
    """Return a price.

    :param amount: in :func:`price` units
    :param factor: what to multiply with
    :raises ValueError: never
    :returns: the price
    """
    return (amount * factor + timeout) * (1.19 if mode == "gross" else 1)


def total(first: float, /, second: float = 0, third: float = 0, *rest: float, scale: float = 1) -> float:
    """Return a sum."""
    return (first + second + third + sum(rest)) * scale


def shifted(value: int, by: int = 1, sign: int = 1, /) -> int:
    """Return a value and what is given only by position."""
    return value + by * sign


def described(name: str, **facts: object) -> dict[str, object]:
    """Return all that is given."""
    return {"name": name, **facts}


def required(value: int, *, unit: str) -> str:
    """Return a text."""
    return f"{value} {unit}"


def count(up_to: int) -> Iterator[int]:
    """Yield numbers."""
    yield from range(up_to)


def end(X: int, x: int, opts: int) -> list[int]:  # noqa: N803
    """Return what has names that Elixir doesn't take."""
    return [X, x, opts]


def HTTP_OK() -> int:  # noqa: N802
    """Return a number."""
    return 200


async def later(value: int) -> int:
    """Return the value."""
    return value


def old() -> int:
    """Return nothing new.

    .. deprecated:: 2.0
       Use something else.
    """
    return 0


class _Opaque:
    """Something that can be called, and that nobody can ask how."""

    __signature__ = 0

    def __call__(self, *args: int, **kwargs: int) -> object:
        return kwargs or list(args)


opaque = _Opaque()
