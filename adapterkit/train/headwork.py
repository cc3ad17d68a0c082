"""The head's work for several adapters in training: one product of matrices for the trained tokens of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from adapterkit.data.lengths import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from adapterkit.forward import BaseForward

__all__ = ["JointLosses"]


class JointLosses:
    """Losses of the trained tokens of several jobs, computed for all as soon as the first one asks for just its own.

    A head has as many weights as several layers, and a small batch takes as long as it takes to read them.

    Args:
        forward: Has the head; nothing acts on it.
        batches: Each job's.
        hidden: What would go into the head, for each job: ``(sequences, width, hidden_size)``.
    """

    def __init__(self, forward: BaseForward, batches: Sequence[dict[str, Tensor]], hidden: Sequence[Tensor]) -> None:
        labels = [functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED) for batch in batches]
        self._forward, self._hidden = forward, hidden
        self._positions = [one != IGNORED for one in labels]
        self._targets = [one[positions] for one, positions in zip(labels, self._positions, strict=True)]
        self._found: Sequence[Tensor] | None = None

    def of(self, job: int) -> Callable[[Tensor, Tensor], Tensor | None]:
        """For one job, given positions and targets: their losses, or None where these are not just its trained tokens."""

        def known(positions: Tensor, targets: Tensor) -> Tensor | None:
            if not torch.equal(positions, self._positions[job]) or not torch.equal(targets, self._targets[job]):
                return None
            if self._found is None:
                hidden = [one[positions] for one, positions in zip(self._hidden, self._positions, strict=True)]
                losses = self._forward.losses_of(torch.cat(hidden), torch.cat(self._targets))
                self._found = torch.split(losses, [len(one) for one in self._targets])
            return self._found[job]

        return known
