"""Docstrings as Markdown, by `docstring_parser` and `docstring_to_markdown` if they are installed."""

from __future__ import annotations

import inspect
import itertools
import re
import sys
from typing import Any

from .attempt import attempt, attribute, text

# Longer docstrings are shown unconverted, and cut: the libraries' patterns are made for ordinary documentation.
_LONGEST = 64 * 1024
_CUT = 256 * 1024

_HEADINGS = {
    "param": "Parameters",
    "attribute": "Attributes",
    "returns": "Returns",
    "yields": "Yields",
    "raises": "Raises",
    "warns": "Warns",
    "receives": "Receives",
    "other_param": "Other parameters",
    "keyword": "Keyword arguments",
    "see_also": "See also",
    "examples": "Examples",
    "notes": "Notes",
    "references": "References",
    "warnings": "Warnings",
}


class Converter:
    """Converts docstrings to Markdown. Without the libraries, a docstring becomes preformatted text."""

    def __init__(self, folder: str | None) -> None:
        """Load the libraries, from `folder` if they are nowhere else."""
        self.parse: Any = None
        self.markup: Any = None
        # By docstring, the converted ones: many classes inherit the same methods.
        self.known: dict[str, str] = {}
        if folder is not None:
            sys.path.append(folder)
            attempt(self._load, default=None)

    def _load(self) -> None:
        import docstring_parser
        from docstring_to_markdown.rst import rst_to_markdown

        self.markup = rst_to_markdown
        self.parse = docstring_parser.parse

    def markdown(self, doc: object) -> str | None:
        """Return a docstring as Markdown; `None` if there is none."""
        found = text(doc)
        if not found or not found.strip():
            return None
        if found not in self.known:
            self.known[found] = self._convert(found)
        return self.known[found]

    def _convert(self, found: str) -> str:
        if len(found) <= _LONGEST:
            found = inspect.cleandoc(found)
            if self.parse is not None:
                converted = attempt(self._sections, found, default=None)
                if converted is not None:
                    return _tidy(converted)
        return _preformatted(found)

    def _sections(self, doc: str) -> str:
        parsed = self.parse(doc)
        if not parsed.meta or _lost(doc, parsed):
            return self._markup(doc)
        described = (parsed.short_description, parsed.long_description)
        parts = [self._markup(one) for one in described if one]
        for title, group in itertools.groupby(parsed.meta, _title):
            parts.append(f"## {title}")
            if title == "Examples":
                # Code and text stay in their order.
                both = [(text(attribute(meta, "snippet")), meta.description) for meta in group]
                parts.append(self._markup("\n".join(one for pair in both for one in pair if one)))
            else:
                parts += [self._entry(meta) for meta in group]
        return "\n\n".join(part for part in parts if part)

    def _entry(self, meta: object) -> str:
        name = text(attribute(meta, "arg_name")) or text(attribute(meta, "return_name"))
        type_name = text(attribute(meta, "type_name"))
        described = self._markup(text(attribute(meta, "description")) or "")
        label = " - ".join("`" + one.replace("`", "") + "`" for one in (name, type_name) if one)
        if not label:
            return described
        if not described:
            return f"* {label}"
        # A block of code must begin on a new line.
        described = "\n\n" + described if described.startswith("```") else " " + described
        return f"* {label}:" + described.replace("\n", "\n  ")

    def _markup(self, source: str) -> str:
        # A role becomes code; that of a function gets parentheses.
        source = re.sub(r":(?:py:)?(?:func|meth):`~?\.?([\w.]+)(?:\(\))?`", r"``\1()``", source)
        source = re.sub(
            r":(?:py:)?(?!math)\w+:`~?\.?([^`<>]+?)(?:\s*<[^>`]*>)?`", r"``\1``", source
        )
        converted = self.markup(source)
        return str(converted)


def _title(meta: Any) -> str:  # noqa: ANN401 - of a library that is loaded late
    kind = meta.args[0] if meta.args else "notes"
    return _HEADINGS.get(kind, _HEADINGS.get(f"{kind}s", kind.replace("_", " ").capitalize()))


def _lost(doc: str, parsed: Any) -> bool:  # noqa: ANN401 - of a library that is loaded late
    """Return whether the parser has dropped much of the text."""
    kept = [parsed.short_description, parsed.long_description]
    for meta in parsed.meta:
        kept += [meta.description, attribute(meta, "snippet"), *meta.args]
    letters = sum(len(re.sub(r"\s", "", one)) for one in kept if isinstance(one, str))
    # The parser does not keep headings and punctuation.
    return letters < len(re.sub(r"\s|-{3,}", "", doc)) // 2


_UNDERLINE = re.compile(r"([=\-~^*#])\1{2,}\s*$")


_LITERAL = re.compile(r"(?<!`)``(?=\S)(.*?\S)``(?!`)")


def _code(literal: re.Match[str]) -> str:
    """Return a literal as code, between two backticks if it contains one."""
    return f"`` {literal[1]} ``" if "`" in literal[1] else f"`{literal[1]}`"


# Directives that only concern `doctest`.
_DIRECTIVE = re.compile(r"\s*#\s*doctest:.*$")


def _tidy(markdown: str) -> str:
    out: list[str] = []
    fenced = False
    for line in markdown.split("\n"):
        if line.lstrip().startswith("```"):
            if not fenced and line.strip() == "```":
                # Without a language, ExDoc would take it for Elixir.
                line += "text"  # noqa: PLW2901
            fenced = not fenced
        elif not fenced:
            if _UNDERLINE.match(line) and out and out[-1].strip() and len(out[-1]) <= len(line) + 2:
                # A heading that the libraries did not convert.
                out[-1] = f"## {out[-1].strip()}"
                continue
            line = _LITERAL.sub(_code, line)  # noqa: PLW2901
            # Headings are below that of the function.
            line = re.sub(r"^#{1,4} ", "## ", line)  # noqa: PLW2901
            line = re.sub(r"\[([^\[\]]*?) \]\(", r"[\1](", line)  # noqa: PLW2901
        else:
            line = _DIRECTIVE.sub("", line)  # noqa: PLW2901
        out.append(line.rstrip())
    if fenced:
        out.append("```")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip()


def _preformatted(doc: str) -> str:
    left_out = len(doc) > _CUT
    doc = inspect.cleandoc(doc[:_CUT])
    longest = max((len(run) for run in re.findall(r"`+", doc)), default=0)
    fence = "`" * max(3, longest + 1)
    lines = f"{fence}text\n{doc}\n{fence}"
    return lines + "\n\n(The rest is left out.)" if left_out else lines
