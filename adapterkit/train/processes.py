"""The processes that share a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

__all__ = ["Processes"]


@attrs.frozen
class Processes:
    """How many processes share a run, and which one this is.

    Each holds the base and the whole adapter, takes its part of each step's batches, and adds up gradients with the others
    before the optimizer's step. Adapters are small: one sum of all gradients at once costs less than wrapping the model would.

    Attributes:
        rank: This process; 0 is the one that writes.
        count: All of them.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> Processes:
        """What torch.distributed says; one process when it was not started."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and shows."""
        return self.rank == 0

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the sum of all processes' gradients; where one has none, it is zero."""
        if self.count == 1:
            return
        trained = [one for one in parameters if one.requires_grad]
        for one in trained:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        flat = torch.cat([one.grad.reshape(-1) for one in trained if one.grad is not None])
        distributed.all_reduce(flat)
        start = 0
        for one in trained:
            if one.grad is not None:
                one.grad.copy_(flat[start : start + one.numel()].view_as(one))
            start += one.numel()

    def total(self, value: float, device: torch.device) -> float:
        """The sum of every process's ``value``."""
        if self.count == 1:
            return value
        tensor: Tensor = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.all_reduce(tensor)
        return float(tensor)
