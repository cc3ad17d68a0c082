"""Reads the Markdown pages: their fenced blocks, headings and links."""

import re
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_QUICKSTART = "<!-- quickstart -->\n"


@attrs.frozen
class Block:
    """A fenced block.

    Attributes:
        info: The language behind the opening backticks, such as ``"python"``.
        file: The file that is named behind the language; empty where none is.
        text: The lines between the fences.
        start: Where the text begins in the page.
        line: The number of the text's first line.
        marked: Whether the mark of the quickstart stands before it.
    """

    info: str
    file: str
    text: str
    start: int
    line: int
    marked: bool


def pages():
    """Every page whose blocks are run."""
    return [README, *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]


def blocks(text):
    """The fenced blocks of a page, in order."""
    return [
        Block(
            info=found["info"].partition(" ")[0],
            file=found["info"].partition(" ")[2].strip(),
            text=found["body"],
            start=found.start("body"),
            line=text.count("\n", 0, found.start("body")) + 1,
            marked=text[: found.start()].endswith(_QUICKSTART),
        )
        for found in _FENCE.finditer(text)
    ]


def prose(text):
    """A page without its fenced blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))


def headings(text):
    """The headings of a page, without their marks."""
    return [line.lstrip("# ").strip() for line in _FENCE.sub("", text).splitlines() if line.startswith("#")]


def anchors(text):
    """What GitHub calls the headings in links."""
    words = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(text))
    return set(words)


def links(text):
    """The targets of the links of a page."""
    return _LINK.findall(prose(text))
