"""How likely whole rows are."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from adapterkit.data.batching import collate
from adapterkit.data.padding import check_known, pad_id
from adapterkit.evaluation.losses import passes
from adapterkit.forward import BaseForward

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adapterkit.base import Base
    from adapterkit.compose import Acting
    from adapterkit.contracts import Example

__all__ = ["row_losses"]

NOT_TRAINED = -100


@torch.no_grad()
def row_losses(
    base: Base,
    adapter: Acting | None,
    examples: Sequence[Example],
    batch_size: int,
    more: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """The negative log-likelihood of each row's trained tokens, in nats, summed over the row.

    Computed at the trained tokens only, as in training; ``more`` is given the number of rows of each batch.
    """
    check_known(base.model, *(one.input_ids for one in examples))
    forward = BaseForward(base.model)
    padded = functools.partial(collate, pad_id=pad_id(base.tokenizer), device=base.device)
    losses = [0.0] * len(examples)
    with base.using(adapter):
        (prefix,), (virtual,) = base.room(1)
        for rows in passes([len(one.input_ids) for one in examples], batch_size):
            batch = padded([examples[row].after(prefix + virtual) for row in rows])
            labels = functional.pad(batch["labels"][:, 1:], (0, 1), value=NOT_TRAINED)
            positions = labels != NOT_TRAINED
            found = forward.token_losses(batch, positions, labels[positions])
            total = torch.zeros(len(rows), dtype=torch.float64, device=found.device)
            total.index_add_(0, positions.nonzero()[:, 0], found.double())
            for row, loss in zip(rows, total.tolist(), strict=True):
                losses[row] = loss
            more(len(rows))
    return losses
