"""LoRA's options."""

from __future__ import annotations

import attrs
from attrs.validators import and_, deep_mapping, ge, gt, instance_of, le, lt, optional

__all__ = ["LoraConfig"]

MOST_RANK = 16_384
MOST_ALPHA = 1e6


@attrs.frozen(kw_only=True)
class LoraConfig:
    """LoRA: ``W + scale * B @ A``, with ``scale = alpha / rank``."""

    rank: int = attrs.field(default=16, validator=and_(ge(1), le(MOST_RANK)))
    """Directions of the update at each target."""
    alpha: float | None = attrs.field(default=None, validator=optional(and_(gt(0.0), le(MOST_ALPHA))))
    """Numerator of the scale; twice the rank by default."""
    dropout: float = attrs.field(default=0.0, validator=and_(ge(0.0), lt(1.0)))
    """Part of the inputs that are left out while training."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """`all-linear` (all but the head), names of layers, or a regular expression for whole names."""
    exclude_modules: tuple[str, ...] = ()
    """Names of layers that are left alone although they are targets."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) instead, which is steadier at high rank (Kalajdzievski 2023, arXiv 2312.03732)."""
    rank_pattern: dict[str, int] = attrs.field(
        factory=dict, validator=deep_mapping(instance_of(str), and_(ge(1), le(MOST_RANK)), instance_of(dict))
    )
    """Other ranks for some targets, by name or regular expression."""
    alpha_pattern: dict[str, float] = attrs.field(
        factory=dict, validator=deep_mapping(instance_of(str), and_(gt(0.0), le(MOST_ALPHA)), instance_of(dict))
    )
    """Other alphas for some targets, by name or regular expression."""
