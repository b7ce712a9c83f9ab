"""Calls of foreign code: metaclasses, properties and descriptors may do anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
D = TypeVar("D")


def attempt(function: Callable[..., T], *args: object, default: D) -> T | D:
    """Return what the function returns, or the default if it raises."""
    try:
        return function(*args)
    except BaseException:  # noqa: BLE001 - also one that exits
        return default


def attribute(thing: object, name: str) -> object:
    """Return an attribute, or `None` if there is none or reading it fails."""
    return attempt(getattr, thing, name, default=None)


def text(value: object) -> str | None:
    """Return a text that can be encoded, or `None` for anything else."""
    if not isinstance(value, str):
        return None
    return str.encode(value, "utf-8", "replace").decode()
