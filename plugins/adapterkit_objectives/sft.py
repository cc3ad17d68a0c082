"""Supervised fine-tuning: cross-entropy of the trained tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from adapterkit import Loss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from adapterkit import Forward

__all__ = ["sft_loss"]

NOT_TRAINED = -100


def sft_loss(forward: Forward, batch: Mapping[str, Tensor]) -> Loss:
    """The summed negative log-likelihood of the trained tokens, computed where there are any and nowhere else.

    A batch with ``weights``, as long as its ids, has each token's multiplied by its own.
    """
    labels = functional.pad(batch["labels"][:, 1:], (0, 1), value=NOT_TRAINED)
    positions = labels != NOT_TRAINED
    losses = forward.token_losses(batch, positions, labels[positions])
    if "weights" not in batch:
        return Loss(losses.sum(), positions.sum())
    weights = functional.pad(batch["weights"][:, 1:], (0, 1))[positions]
    return Loss((losses * weights).sum(), weights.sum())
