"""Texts of strangers inside YAML and Markdown, where they stay texts."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["code", "flatten", "front_matter", "literal", "number", "one_line", "paragraphs", "plain", "table"]

UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~!&$@]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
"""What means something to Markdown, and what readers such as the Hub's make links of."""
BLOCK = re.compile(r"(\d*)([-+=.)])")
"""What begins a list or underlines a heading, at the start of a line."""
MOST_ITEMS = 12
MOST_TEXT = 300
MOST_PARAGRAPH = 5000


def front_matter(values: Mapping[str, Any]) -> str:
    """A YAML block between lines of three hyphens, of mappings, lists, numbers and texts.

    Every text is quoted, so that none is taken for anything else; names are for the caller to choose.
    """
    return "\n".join(["---", *_yaml(values), "---"])


def one_line(text: object) -> str:
    """A stranger's text in one line, without what would steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in str(text))


def plain(value: Any, most: int = MOST_TEXT) -> str:
    """A value as one line of Markdown without meaning to Markdown."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = one_line(text)
    text = text if len(text) <= most else text[:most] + "…"
    return MARKUP.sub(r"\\\1", text)


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a text, each as one line; an empty line parts them. Lines that begin with ``- `` are a list."""
    for part in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        for is_list, lines in itertools.groupby(part.splitlines(), lambda line: line.lstrip().startswith("- ")):
            if is_list:
                yield "\n".join(f"- {_line(line.lstrip()[2:])}" for line in lines)
            elif line := _line(" ".join(lines)):
                yield line


def _line(text: str) -> str:
    line = " ".join(plain(text, MOST_PARAGRAPH).split())
    return BLOCK.sub(r"\1\\\2", line, count=1) if BLOCK.match(line) else line


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *(tuple(map(plain, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def flatten(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Names and values, a level down behind a dot; empty values are left out, and long lists are counted."""
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += flatten(value, f"{before}{name}.")
        elif isinstance(value, list):
            rows += [(before + name, _listed(value))] if value else []
        elif value not in (None, ""):
            rows.append((before + name, value))
    return rows


def number(value: float) -> str:
    """A number to four digits; a large one with its thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def literal(text: str) -> str:
    """A text in Python, in ASCII on one line, without what could end a block of code or begin a tag."""
    return re.sub(r"[^ -~]|[`<]", lambda found: f"\\U{ord(found[0]):08x}", json.dumps(text, ensure_ascii=False))


def code(text: str, language: str = "python") -> str:
    """A block of code, of texts that cannot end it."""
    return f"```{language}\n{text}\n```"


def _listed(values: list[Any]) -> str:
    if len(values) > MOST_ITEMS or any(isinstance(value, (dict, list)) for value in values):
        return f"{len(values)} entries"
    return ", ".join(map(str, values))


def _yaml(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _yaml(value, f"{indent}  ")
        elif isinstance(value, (list, tuple)):
            yield f"{indent}{name}:"
            for item in value:
                yield from _item(item, f"{indent}  ")
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _item(item: Any, indent: str) -> Iterator[str]:
    if isinstance(item, Mapping):
        first, *rest = _yaml(item, f"{indent}  ")
        yield f"{indent}- {first.lstrip()}"
        yield from rest
    else:
        yield f"{indent}- {_scalar(item)}"


def _scalar(value: str | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):  # 1e-05 is a text to YAML 1.1, 1.0e-05 is not
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))
    # JSON's texts are YAML's double-quoted ones, but for characters that YAML does not take as they are
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
