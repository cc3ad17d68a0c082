"""Text in segments, each trained or not: no template, and nothing added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterkit import Text

__all__ = ["from_segments", "holds_segments"]


def holds_segments(row: Mapping[str, Any]) -> bool:
    """Whether the row has ``segments``, a list of ``{"label": true, "text": ...}``."""
    value = row.get("segments")
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(one, Mapping) and "text" in one for one in value)
    )


def from_segments(row: Mapping[str, Any]) -> Text:
    """The segments as one text; those whose label is true are trained, each by itself."""
    text, trained = "", []
    for index, segment in enumerate(row["segments"]):
        part, label = segment.get("text"), segment.get("label")
        if not isinstance(part, str):
            raise ValueError(f"segments[{index}] must have a text, not {part!r:.60}")  # noqa: TRY004 - formats raise ValueError
        if not isinstance(label, bool):
            raise ValueError(f"segments[{index}] must have a label that is true or false, not {label!r:.60}")  # noqa: TRY004
        if part and label:
            trained.append((len(text), len(text) + len(part)))
        text += part
    if not trained:
        raise ValueError("no segment is labelled true, so there is nothing to train")
    return Text(text, tuple(trained))
