"""Where A and B start when the base's weights, or the rows to train on, say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapterkit import ConfigError

from .layer import LoraLayer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from adapterkit import Base, Example

    from .config import LoraConfig

__all__ = ["olora", "principal", "start"]


@torch.no_grad()
def start(config: LoraConfig, layers: Mapping[str, nn.Module], base: Base, examples: Sequence[Example]) -> None:
    """Set the factors of every layer but those at embeddings, which start as they always do, in PEFT too."""
    how = str(config.init_lora_weights)
    mine = {
        name: layer for name, layer in layers.items() if isinstance(layer, LoraLayer) and layer.site.kind != "embedding"
    }
    if config.is_shifted:
        for layer in mine.values():
            weight, rank = layer.site.dense_weight().float(), len(layer.factors()[0])
            layer.set_factors(*(olora(weight, rank) if how == "olora" else principal(weight, rank, layer.scale, how)))
    elif how == "loftq":
        _start_from_loss(mine, base)
    elif how == "eva":
        from .eva import directions

        ranks = {name: len(layer.factors()[0]) for name, layer in mine.items()}
        for name, down in directions(base, examples, ranks).items():
            mine[name].set_factors(down, torch.zeros_like(mine[name].factors()[1]))


def principal(weight: Tensor, rank: int, scale: float, how: str = "pissa") -> tuple[Tensor, Tensor]:
    """A and B whose scaled product is the best approximation of ``weight``: PiSSA (Meng et al. 2024, arXiv 2404.02948).

    Args:
        weight: ``(out_features, in_features)``.
        rank: At most the smaller of the two.
        scale: What the product is multiplied by.
        how: ``"pissa"``, or ``"pissa_niter_N"`` for a faster, random decomposition with N iterations (Halko et al. 2011).
    """
    if how == "pissa":
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        left, values, right = left[:, :rank], values[:rank], right[:rank]
    else:
        left, values, columns = torch.svd_lowrank(weight, rank, niter=int(how.rpartition("_")[2]))
        right = columns.T
    roots = (values / scale).sqrt()
    return roots[:, None] * right, left * roots


def olora(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A and B from the QR decomposition of the weight: OLoRA (Büyükakyüz 2024, arXiv 2406.01775)."""
    orthonormal, triangular = torch.linalg.qr(weight)
    return triangular[:rank], orthonormal[:, :rank]


def _start_from_loss(layers: Mapping[str, LoraLayer], base: Base) -> None:
    """Start from what quantization has lost: LoftQ (Li et al. 2023, arXiv 2310.08659).

    The base's weights are quantized already and stay so: of the paper's alternating steps, that is one. PEFT leaves the scale
    out of it, and means the same where alpha is the rank.
    """
    quantized = {name: layer for name, layer in layers.items() if layer.site.is_quantized}
    if not quantized:
        raise ConfigError(
            "options of LoRA do not fit this base",
            ["init_lora_weights: 'loftq' starts from what quantization has lost, and no target is quantized"],
        )
    from .originals import original_weights

    for name, weight in original_weights(base, tuple(quantized)):
        layer = quantized[name]
        known = layer.site.dense_weight()
        lost = weight.to(known.device, torch.float32) - known.float()
        layer.set_factors(*principal(lost, len(layer.factors()[0]), layer.scale))
