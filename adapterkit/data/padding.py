"""Which token fills a batch up, and which a base knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_known", "pad_id"]


def check_known(model: Any, *rows: Sequence[int]) -> None:
    """Refuse token ids beyond the model's table, where virtual tokens are.

    Raises:
        DataError: Names the highest.
    """
    highest, size = max((max(row, default=0) for row in rows), default=0), model.get_input_embeddings().num_embeddings
    if highest >= size:
        raise DataError(f"token {highest} is given, and the base knows {size}: it is another base's tokenizer")


def pad_id(tokenizer: Any) -> int:
    """The tokenizer's pad token, else its end-of-text token, else token 0: padding is known by its place, never by its id."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0
