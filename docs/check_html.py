"""Checks pages that ExDoc has made: links lead somewhere, no Markdown is left in the text, no code is cut off.

    python docs/check_html.py FOLDER
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Heads of sections, fences of code and lines of tables, when a parser has taken them for text.
MARKDOWN = re.compile(r"(?:^|\s)(?:#{2,} \w|```|\|---)")
# What fits into the column of a page beside the sidebar, in a window of 1,200 pixels.
COLUMNS = 91
# The site that serves the pages adds this one.
ADDED = {"docs_config.js"}


# Elements whose content is no text of the page.
APART = {"pre", "script", "style"}


class Page(HTMLParser):
    """What a page links to, which anchors it has, its text, and its blocks of code."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.text: list[str] = []
        self.code: list[str] = []
        self.tags: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an anchor and a link, and where something begins that is no text."""
        values = dict(attrs)
        if tag in APART:
            self.tags.append(tag)
            self.code.append("")
        if values.get("id"):
            self.ids.add(str(values["id"]))
        if link := values.get("href") or values.get("src"):
            self.links.append(link)

    def handle_endtag(self, tag: str) -> None:
        """Note where the text goes on."""
        if tag in APART:
            self.tags.pop()

    def handle_data(self, data: str) -> None:
        """Keep text and code apart."""
        if not self.tags:
            self.text.append(data)
        elif self.tags[-1] == "pre":
            self.code[-1] += data

    def wide(self) -> list[str]:
        """Return the lines of code that a reader has to scroll."""
        return [line for block in self.code for line in block.splitlines() if len(line) > COLUMNS]


def mistakes(folder: Path) -> list[str]:
    """Return a line for each mistake in the pages of a folder."""
    pages = {path.name: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.html"))}
    found = [f"{folder} has no pages"] if not pages else []
    for name, page in pages.items():
        found += [f"{name}: Markdown in the text: {text.strip()[:100]!r}" for text in page.text if MARKDOWN.search(text)]
        # Notebooks have the width of Livebook.
        if not (folder / name).with_suffix(".livemd").exists():
            found += [f"{name}: more than {COLUMNS} columns: {line}" for line in page.wide()]
        for link in page.links:
            parts = urlsplit(link)
            target = unquote(parts.path) or name
            if parts.scheme or parts.netloc or target in ADDED:
                continue
            if not (folder / target).exists():
                found.append(f"{name}: there is no {target}")
            elif target in pages and parts.fragment and not {parts.fragment, unquote(parts.fragment)} & pages[target].ids:
                found.append(f"{name}: {target} has no #{parts.fragment}")
    return found


if __name__ == "__main__":
    if found := mistakes(Path(sys.argv[1])):
        sys.exit("\n".join(found))
