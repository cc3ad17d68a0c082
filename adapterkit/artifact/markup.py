"""Texts of strangers inside YAML and Markdown, where they stay texts."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["flatten", "front_matter", "plain", "table"]

UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~!&$@])")
MOST_ITEMS = 12
MOST_TEXT = 300


def front_matter(values: Mapping[str, str | Iterable[str]]) -> str:
    """A YAML block between lines of three hyphens; every text is quoted, so that none is taken for anything else."""
    lines = []
    for name, value in values.items():
        if isinstance(value, str):
            lines.append(f"{name}: {_quoted(value)}")
        else:
            lines += [f"{name}:", *(f"  - {_quoted(item)}" for item in value)]
    return "\n".join(["---", *lines, "---"])


def plain(value: Any) -> str:
    """A value as one line of Markdown without meaning to Markdown."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = "".join(character if character.isprintable() else " " for character in text)
    text = text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "…"
    return MARKUP.sub(r"\\\1", text)


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


def _listed(values: list[Any]) -> str:
    if len(values) > MOST_ITEMS or any(isinstance(value, (dict, list)) for value in values):
        return f"{len(values)} entries"
    return ", ".join(map(str, values))


def _quoted(text: str) -> str:
    # JSON's texts are YAML's double-quoted ones, but for characters that YAML does not take as they are
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
