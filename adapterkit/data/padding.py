"""Which token fills a batch up."""

from __future__ import annotations

from typing import Any

__all__ = ["pad_id"]


def pad_id(tokenizer: Any) -> int:
    """The tokenizer's pad token, else its end-of-text token, else token 0: padding is known by its place, never by its id."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0
