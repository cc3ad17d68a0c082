"""The page on which people read answers side by side and mark them: one file that fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import attrs

from .result import plain

if TYPE_CHECKING:
    from .comparing import Comparison

__all__ = ["page"]


def page(comparison: Comparison, *, blind: bool, title: str) -> str:
    """All answers of ``comparison``, written so that nothing in them can become markup or code."""
    style, script = _template("compare.css"), _template("compare.js")
    parts = {
        "title": html.escape(title),
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "style": style,
        "script": script,
        "data": _safe(_data(comparison, blind=blind, title=title)),
    }
    pieces = _template("compare.html").split("{{")
    # cut up first, so that no text that is put in is looked through for places to fill
    return pieces[0] + "".join(parts[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces[1:]))


def _data(comparison: Comparison, *, blind: bool, title: str) -> dict[str, Any]:
    names = list(comparison)
    rows = [{**one, "answers": [one["answers"][name] for name in names]} for one in comparison.answers]
    scores = list(dict.fromkeys(score for one in comparison.values() for score in one))
    return {
        "comparison": hashlib.sha256(json.dumps([names, rows]).encode()).hexdigest()[:16],
        "title": title,
        "names": names,
        "blind": blind,
        "scores": [
            {
                "score": score,
                "values": [plain(one.get(score)) for one in comparison.values()],
                "intervals": [plain(one.intervals.get(score)) for one in comparison.values()],
            }
            for score in scores
        ],
        "differences": [plain(attrs.asdict(one)) for one in comparison.differences],
        "rows": rows,
    }


def _safe(value: Any) -> str:
    """JSON that HTML reads as text, whatever it holds: no ``<`` in it can end the script element."""
    text = json.dumps(value)  # ASCII alone, so that half a character is written too
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(text: str) -> str:
    """By which the page's policy knows its own script and style: no other is run, wherever it may come from."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _template(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")
