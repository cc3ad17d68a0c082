"""The algebra: a small closed set of things that an adapter may do at a site.

After a method has lowered what it trained to effects, the core needs to know nothing of the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import attrs
import torch  # noqa: TC002 - attrs and readers of annotations need the names
from torch import Tensor  # noqa: TC002
from torch.nn import functional

__all__ = ["Effect", "Effects", "LowRank"]


@attrs.frozen(eq=False)
class LowRank:
    """Adds ``scale * up @ down`` to a site's weight: LoRA (Hu et al. 2021, arXiv 2106.09685, section 4.1).

    Attributes:
        down: ``(rank, in_features)``.
        up: ``(out_features, rank)``.
        scale: Such as alpha / rank.
    """

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """How many directions it acts in."""
        return self.down.shape[0]

    def delta(self) -> Tensor:
        """What it adds to the weight, ``(out_features, in_features)``, in float32."""
        return self.scale * (self.up.float() @ self.down.float())

    def to(self, device: torch.device, dtype: torch.dtype) -> LowRank:
        """The same effect elsewhere, its scale folded into ``up`` before the cast."""
        up = (self.up.float() * self.scale).to(device, dtype)
        return LowRank(self.down.to(device, dtype, copy=True), up, 1.0)

    def shrink(self, x: Tensor) -> Tensor:
        """The input in the adapter's directions: ``(..., in_features)`` to ``(..., rank)``; token ids for an embedding."""
        if x.is_floating_point():
            return functional.linear(x, self.down)
        return functional.embedding(x, self.down.T)


Effect: TypeAlias = LowRank
Effects: TypeAlias = Mapping[str, tuple[Effect, ...]]
"""Effects by site name."""
