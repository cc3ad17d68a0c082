"""The algebra: a small closed set of things that an adapter may do at a site.

After a method has lowered what it trained to effects, the core needs to know nothing of the method.

A weight is always written ``(out_features, in_features)`` here, however its layer stores it: GPT-2's ``Conv1D`` and
embeddings store the transpose. Several effects at one site act in order, each on the last one's output; those that add
something compute it from the site's input, so that their order does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import attrs
import torch
from torch import Tensor

from .lowrank import cut_factors

__all__ = ["Bias", "Dense", "Effect", "Effects", "LowRank", "PrefixKV", "Rows", "Scale", "Tokens"]


@attrs.frozen(eq=False)
class LowRank:
    """Adds ``scale * up @ down`` to a site's weight: LoRA (Hu et al. 2021, arXiv 2106.09685, section 4.1).

    Attributes:
        down: ``(rank, in_features)``.
        up: ``(out_features, rank)``.
        scale: Such as alpha / rank.
        embedding: Whether the site is an embedding: methods store what acts there otherwise. The core says it of what is lowered.
    """

    down: Tensor
    up: Tensor
    scale: float
    embedding: bool = False

    @property
    def rank(self) -> int:
        """How many directions it acts in."""
        return self.down.shape[0]

    def delta(self) -> Tensor:
        """What it adds to the weight, ``(out_features, in_features)``, in float32."""
        return self.scale * (self.up.float() @ self.down.float())

    def cut(self, rank: int | None = None) -> LowRank:
        """The best update of at most ``rank`` directions, its scale 1, in float32: see :func:`adapterkit.lowrank.cut_factors`.

        Directions that are zero are dropped; where ``rank`` is None nothing else is.
        """
        up, down = cut_factors(self.up.double() * self.scale, self.down, rank)
        return LowRank(down.float(), up.float(), 1.0, self.embedding)

    @classmethod
    def stacked(cls, updates: Sequence[LowRank], weights: Sequence[float] | None = None) -> LowRank:
        """The weighted sum of updates as one, exactly: factors one after another, weights and scales in ``up``, in float32.

        Its rank is the sum of theirs.

        Args:
            updates: At least one.
            weights: One for each; 1 by default.
        """
        sizes = [1.0] * len(updates) if weights is None else weights
        ups = [one.up.double() * (one.scale * size) for one, size in zip(updates, sizes, strict=True)]
        down = torch.cat([one.down.float() for one in updates])
        return cls(down, torch.cat(ups, dim=1).float(), 1.0, updates[0].embedding)


@attrs.frozen(eq=False)
class Dense:
    """Adds ``delta`` to a parameter of a site.

    Attributes:
        delta: ``(out_features, in_features)`` for the weight of a linear layer or an embedding; otherwise of the
            parameter's own shape.
        parameter: Its name in the site's module.
        embedding: Whether the site is an embedding, as of a :class:`LowRank`.
    """

    delta: Tensor
    parameter: str = "weight"
    embedding: bool = False


@attrs.frozen(eq=False)
class Scale:
    """Multiplies each feature: IA3 (Liu et al. 2022, arXiv 2205.05638), the magnitude of DoRA (arXiv 2402.09353).

    Attributes:
        vector: ``(out_features,)``, or ``(in_features,)`` for the input.
        side: The site's ``"output"``, or its ``"input"``.
        bias: Whether the base's bias is a part of the output that is multiplied.
    """

    vector: Tensor
    side: Literal["output", "input"] = "output"
    bias: bool = True


@attrs.frozen(eq=False)
class Bias:
    """Adds ``vector``, ``(out_features,)``, to each output."""

    vector: Tensor


@attrs.frozen(eq=False)
class Rows:
    """Puts other rows into the table of an embedding, or into the weight of the head: trained tokens.

    Attributes:
        index: ``(n,)`` token ids.
        rows: ``(n, features)``: what stands in the table instead.
    """

    index: Tensor
    rows: Tensor


@attrs.frozen(eq=False)
class Tokens:
    """Puts virtual tokens before the sequence: a soft prompt (Lester et al. 2021, arXiv 2104.08691). At the site ``input``.

    Attributes:
        embeddings: ``(n, hidden_size)``.
    """

    embeddings: Tensor


@attrs.frozen(eq=False)
class PrefixKV:
    """Puts keys and values before those of the sequence, in every layer: prefix tuning (arXiv 2101.00190). At the site ``input``.

    Attributes:
        keys: ``(layers, key_value_heads, n, head_dim)``, as attention sees them: rotated, where the model rotates.
        values: Of the same shape.
    """

    keys: Tensor
    values: Tensor


Effect: TypeAlias = LowRank | Dense | Scale | Bias | Rows | Tokens | PrefixKV
Effects: TypeAlias = Mapping[str, tuple[Effect, ...]]
"""Effects by site name."""
