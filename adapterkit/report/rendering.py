"""Templates, style and script: one file that asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import adapterkit

from .numbers import count, duration, memory, money, number
from .scores import words
from .texts import fold, seen

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render"]

FILTERS = {
    "count": count,
    "duration": duration,
    "fold": fold,
    "memory": memory,
    "money": money,
    "number": number,
    "seen": seen,
    "words": words,
}


def render(template: str, *, inline_styles: bool = False, **values: Any) -> str:
    """A page of a template; every value is escaped.

    The page's policy lets it fetch nothing, and run nothing but the one script that is in it. Its style is the one that is in
    it too; ``inline_styles`` is for a part that brings its own, which may still fetch nothing.
    """
    style, script = _file("style.css"), _file("script.js")
    policy = {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'" if inline_styles else _hash(style),
        "script-src": _hash(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    values["policy"] = "; ".join(f"{name} {source}" for name, source in policy.items())
    page: str = (
        _environment()
        .get_template(template)
        .render(style=style, script=script, version=adapterkit.__version__, **values)
    )
    return page


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_file), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(FILTERS)
    return environment


@lru_cache
def _file(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
