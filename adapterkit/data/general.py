"""Text of many kinds that no run is about: what a base forgets is measured on it."""

from __future__ import annotations

import json
from importlib import resources

__all__ = ["general_rows"]


def general_rows() -> list[dict[str, str]]:
    """Short plain English passages (stories, speeches, news, sums), written for this project and in the public domain."""
    text = resources.files("adapterkit.data").joinpath("general.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
