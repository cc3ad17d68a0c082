"""Which token fills a batch up, which a base knows, and which bases have no padding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit.errors import DataError, SelectionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["check_known", "check_padding", "keeps_state", "pad_id"]


def check_known(model: Any, *rows: Sequence[int]) -> None:
    """Refuse token ids beyond the model's table, where virtual tokens are.

    Raises:
        DataError: Names the highest.
    """
    highest, size = max((max(row, default=0) for row in rows), default=0), model.get_input_embeddings().num_embeddings
    if highest >= size:
        raise DataError(f"token {highest} is given, and the base knows {size}: it is another base's tokenizer")


def keeps_state(model: Any) -> bool:
    """Whether the model reads a sequence into a state, as recurrent ones do, where padding before a row would remain."""
    return bool(getattr(model, "_is_stateful", False))


def check_padding(model: Any, mask: Tensor | None) -> None:
    """Refuse padding before a row, ``mask`` being ``(batch, sequence)``, for a model that keeps a state.

    Some of them leave padding out, and some answer a row otherwise for how far its neighbours are padded, without a word.

    Raises:
        SelectionError: A row begins with padding.
    """
    if mask is not None and keeps_state(model) and not bool(mask[:, 0].all()):
        raise SelectionError(
            f"{type(model).__name__} keeps a state, in which padding before a row may remain: give rows of one length, and "
            "adapters with as many virtual tokens each, or answer the rows in turn"
        )


def pad_id(tokenizer: Any) -> int:
    """The tokenizer's pad token, else its end-of-text token, else token 0: padding is known by its place, never by its id."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0
