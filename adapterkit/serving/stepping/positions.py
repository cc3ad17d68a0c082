"""Bases whose positions are turned otherwise when a sequence is long: in a batch, one long row would change the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterkit.errors import SelectionError

__all__ = ["check_positions"]

CHANGING = ("dynamic", "longrope")
"""Kinds of rotary embeddings that depend on the longest row (transformers' ``dynamic_rope_update``)."""


def check_positions(config: Any, longest: int) -> None:
    """See that a position means the same whatever other rows there are.

    Args:
        config: A model's.
        longest: The most tokens of a row.

    Raises:
        SelectionError: It does not, for rows as long as that.
    """
    text = config.get_text_config()
    given = getattr(text, "rope_parameters", None) or {}
    for one in (given, *given.values()):  # one for all layers, or one for each kind of them
        if not isinstance(one, Mapping) or one.get("rope_type") not in CHANGING:
            continue
        original = (
            one.get("original_max_position_embeddings")
            or getattr(text, "original_max_position_embeddings", None)
            or text.max_position_embeddings
        )
        if longest > original:
            raise SelectionError(
                f"this base turns all positions of a batch otherwise once a row is longer than {original:,} tokens "
                f"({one['rope_type']}), and the engine keeps {longest:,}: give max_length={original}"
            )
