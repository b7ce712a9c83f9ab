"""Prints the reference of the Python package `snex` as a page of Markdown, for the Elixir docs.

    python docs/reference.py >page.md
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "py_src"))

import snex

# Sections of a docstring, and how they begin on the page.
SECTIONS = {"Args:": "Arguments", "Raises:": "Raises", "Attributes:": "Attributes", "Example:": "Example"}


def main() -> None:
    """Print the page."""
    print("# The Python package snex\n")
    print(markdown(snex))
    for name in snex.__all__:
        thing = getattr(snex, name)
        if callable(thing):
            print(f"\n## {name}\n")
            print(f"```python\n{signature(name, thing)}\n```\n")
            print(markdown(thing))
            if inspect.isclass(thing):
                for member, function in methods(thing):
                    print(f"\n### {name}.{member}\n")
                    print(f"```python\n{signature(member, function)}\n```\n")
                    print(markdown(function))
        else:
            print(f"\n## {name}\n\n`{thing!r}`")


def methods(cls: type) -> list[tuple[str, object]]:
    """Return the public methods that a class itself defines and documents."""
    return [
        (name, member)
        for name, member in vars(cls).items()
        if not name.startswith("_") and inspect.isfunction(member) and member.__doc__
    ]


def signature(name: str, thing: object) -> str:
    """Return how something is called, without the package's own name in front of types."""
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):
        text = "(...)"
    prefix = "async def " if inspect.iscoroutinefunction(thing) else ""
    # Annotations are strings, for they are not evaluated when the package is imported.
    return prefix + name + re.sub(r"'([^']*)'", r"\1", text).replace("(self, ", "(")


def markdown(thing: object) -> str:
    """Return a docstring, with its sections as lists and its examples as blocks."""
    lines: list[str] = []
    section = None
    for paragraph in re.split(r"\n\n+", inspect.getdoc(thing) or ""):
        head, _, rest = paragraph.partition("\n")
        if head in SECTIONS:
            section = SECTIONS[head]
            lines.append(f"**{section}**\n")
            paragraph = textwrap.dedent(rest)  # noqa: PLW2901 - what is left of it
            if section != "Example":
                lines.append(entries(paragraph) + "\n")
                continue
        if paragraph.lstrip().startswith(">>>"):
            paragraph = f"```pycon\n{paragraph}\n```"  # noqa: PLW2901 - a block of it
        lines.append(textwrap.dedent(paragraph) + "\n")
    return "\n".join(lines)


def entries(text: str) -> str:
    """Return `name: description` lines, each with what is indented below it, as a list."""
    items: list[str] = []
    for line in text.splitlines():
        if line.startswith(" ") and items:
            items[-1] += " " + line.strip()
        else:
            name, colon, description = line.partition(":")
            items.append(f"* `{name}`:{description}" if colon else f"* {line}")
    return "\n".join(items)


if __name__ == "__main__":
    main()
