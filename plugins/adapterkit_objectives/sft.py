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
    """The summed negative log-likelihood of the trained tokens, computed where there are any and nowhere else."""
    labels = functional.pad(batch["labels"][:, 1:], (0, 1), value=NOT_TRAINED)
    positions = labels != NOT_TRAINED
    losses = forward.token_losses(batch, positions, labels[positions])
    return Loss(losses.sum(), positions.sum())
