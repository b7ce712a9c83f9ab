"""Prints the reference of the Python package `snex` as a page of Markdown, for the Elixir docs.

    python docs/reference.py >page.md
"""

from __future__ import annotations

import builtins
import inspect
import re
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "py_src"))

import snex

# What fits beside the sidebar, as docs/check_html.py has it.
COLUMNS = 91

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


# Methods that the package itself calls, from other modules.
OF_ITS_OWN = {"Stream.end", "Stream.take"}


def methods(cls: type) -> list[tuple[str, object]]:
    """Return the public methods that a class itself defines and documents."""
    return [
        (name, member)
        for name, member in vars(cls).items()
        if not name.startswith("_")
        and inspect.isfunction(member)
        and member.__doc__
        and f"{cls.__name__}.{name}" not in OF_ITS_OWN
    ]


class Annotation:
    """A type as it stands in the source: there it is a string, for annotations are not evaluated when the package is imported."""

    def __init__(self, text: object) -> None:
        self.text = text

    def __repr__(self) -> str:
        return str(self.text)


def signature(name: str, thing: object) -> str:
    """Return how something is called; of a class whose documentation has no arguments, only that it is one."""
    if inspect.isclass(thing) and "Args:" not in (thing.__doc__ or ""):
        return f"class {name}"
    try:
        called = inspect.signature(thing)
    except (TypeError, ValueError):
        return f"{name}(...)"
    parameters = [plain(parameter, "annotation") for parameter in called.parameters.values() if parameter.name != "self"]
    prefix = "async def " if inspect.iscoroutinefunction(thing) else ""
    called = plain(called.replace(parameters=parameters), "return_annotation")
    line = f"{prefix}{name}{called}"
    return line if len(line) <= COLUMNS else f"{prefix}{name}{one_per_line(called)}"


def one_per_line(called: inspect.Signature) -> str:
    """Return a signature with a line for each parameter."""
    bare = str(called.replace(parameters=[]))
    kinds = [parameter.kind for parameter in called.parameters.values()]
    lines = [str(parameter) for parameter in called.parameters.values()]
    keyword = inspect.Parameter.KEYWORD_ONLY
    if keyword in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        lines.insert(kinds.index(keyword), "*")
    return "(\n" + "".join(f"    {line},\n" for line in lines) + bare.removeprefix("(")


def plain(what: inspect.Parameter | inspect.Signature, field: str) -> inspect.Parameter | inspect.Signature:
    """Return a parameter or a signature with its annotation without quotes."""
    text = getattr(what, field)
    return what.replace(**{field: Annotation(text)}) if isinstance(text, str) else what


def linked(text: str) -> str:
    """Return text in which names of Python link to Python: ExDoc would take `RuntimeError` or `Atom` for the Elixir modules of that name."""
    return re.sub(r"`([\w.]+)`", lambda found: link(found[1]), text)


def link(name: str) -> str:
    """Return a name in code quotes, with a link if it is one of the package's or an exception of Python's."""
    own = name.removeprefix("snex.")
    if own in snex.__all__:
        return f"[`{name}`](#{own.lower()})"
    if inspect.isclass(thing := getattr(builtins, name, None)) and issubclass(thing, BaseException):
        return f"[`{name}`](https://docs.python.org/3/library/exceptions.html#{name})"
    return f"`{name}`"


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
            lines.append(f"```pycon\n{textwrap.dedent(paragraph)}\n```\n")
        else:
            lines.append(linked(textwrap.dedent(paragraph)) + "\n")
    return "\n".join(lines)


def entries(text: str) -> str:
    """Return `name: description` lines, each with what is indented below it, as a list."""
    items: list[str] = []
    for line in text.splitlines():
        if line.startswith(" ") and items:
            items[-1] += " " + linked(line.strip())
        else:
            name, colon, description = line.partition(":")
            # An exception may be linked; an argument is not the function that has the same name.
            shown = link(name) if name[:1].isupper() else f"`{name}`"
            items.append(f"* {shown}:{linked(description)}" if colon else f"* {linked(line)}")
    return "\n".join(items)


if __name__ == "__main__":
    main()
