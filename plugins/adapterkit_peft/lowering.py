"""From PEFT's layers to effects, by asking the layer itself: what it makes of the identity matrix is its weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.nn import functional

from adapterkit import Bias, Dense, LowRank, Scale

from .skeleton import ADAPTER, replica

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from .catalogue import Kind
    from .layers import TunerLayer

__all__ = ["lower_layer"]

Effect: TypeAlias = LowRank | Dense | Scale | Bias

ROWS = 1024
"""How many rows of the identity matrix a layer is given at a time."""

RANKS: dict[str, Callable[[Any], int]] = {
    "DEFT": lambda tuner: tuner.deft_P[ADAPTER].shape[1],
    "DELORA": lambda tuner: tuner.r[ADAPTER],
    "GRALORA": lambda tuner: tuner.r[ADAPTER] * tuner.gralora_k[ADAPTER] + tuner.hybrid_r[ADAPTER],
    "HRA": lambda tuner: tuner.hra_u[ADAPTER].shape[1],
    "LOHA": lambda tuner: tuner.r[ADAPTER] ** 2,
    "LORA": lambda tuner: tuner.r[ADAPTER],
    "MISS": lambda tuner: tuner.miss_block[ADAPTER].shape[0],
    "POLY": lambda tuner: tuner.r[ADAPTER],
    "PVERA": lambda tuner: tuner.r[ADAPTER],
    "TINYLORA": lambda tuner: tuner.r[ADAPTER],
    "UNILORA": lambda tuner: tuner.r[ADAPTER],
    "VBLORA": lambda tuner: tuner.r[ADAPTER],
    "VERA": lambda tuner: tuner.r[ADAPTER],
}
"""How many directions a layer's update has at most."""


@torch.no_grad()
def lower_layer(peft_type: str, kind: Kind, layer: TunerLayer) -> tuple[Effect, ...] | None:
    """What one layer does; None when the base is quantized and the layer multiplies its weight."""
    if peft_type == "IA3":
        return (_scale(layer),)
    if peft_type == "LN_TUNING":
        return _norm(layer)
    if layer.site.is_quantized and not kind.additive:
        return None
    weight, bias = _changes(layer, kind)
    effects: list[Effect] = []
    if "LowRank" in kind.effects:
        effects.append(_low_rank(weight, min(*weight.shape, RANKS[peft_type](layer.tuner))))
    if "Dense" in kind.effects:
        # in the base's own precision: a whole layer in float32 would take twice the memory, and is rounded anyway
        effects.append(Dense(weight.to(_dtype(layer))))
    if "Bias" in kind.effects and bool(bias.any()):
        effects.append(Bias(bias))
    return tuple(effects)


def _dtype(layer: TunerLayer) -> torch.dtype:
    weight = layer.site.parameters["weight"]
    return weight.dtype if weight.is_floating_point() else torch.float32


def _scale(layer: TunerLayer) -> Scale:
    vector = layer.tuner.ia3_l[ADAPTER].detach().flatten()
    return Scale(vector, side="input" if layer.tuner.is_feedforward else "output")


def _norm(layer: TunerLayer) -> tuple[Effect, ...]:
    mine, before = layer.tuner.ln_tuning_layers[ADAPTER], layer.site.parameters
    return tuple(Dense(one - before[name].to(one), name) for name, one in mine.named_parameters() if name in before)


def _changes(layer: TunerLayer, kind: Kind) -> tuple[Tensor, Tensor]:
    """What the layer adds to the base's weight, ``(out_features, in_features)``, and to its bias, in float32."""
    site = layer.site
    device = next(iter((*layer.parameters(), *layer.buffers()))).device
    base_layer = replica(site, weights=not kind.additive, conv1d=kind.conv1d).to(device)
    nothing = torch.zeros(1, 1, site.in_features, device=device)
    at_zero = _run(layer, nothing, base_layer, additive=kind.additive)
    delta = torch.empty(site.out_features, site.in_features, device=device)
    for start in range(0, site.in_features, ROWS):
        index = torch.arange(start, min(start + ROWS, site.in_features), device=device)
        rows = functional.one_hot(index, site.in_features).float()[None]
        delta[:, index] = (_run(layer, rows, base_layer, additive=kind.additive) - at_zero)[0].T
    return delta, at_zero[0, 0]


def _run(layer: TunerLayer, x: Tensor, base_layer: Any, *, additive: bool) -> Tensor:
    """What the layer adds to the base's output for ``x``; the base's is zero where it does not matter."""
    known = torch.zeros(*x.shape[:-1], layer.site.out_features, device=x.device) if additive else base_layer(x)
    return layer.over(base_layer, x, known) - known


def _low_rank(delta: Tensor, rank: int) -> LowRank:
    """A matrix of at most ``rank`` directions as two factors (Halko et al. 2011, arXiv 0909.4061, algorithm 4.4)."""
    stream = torch.Generator().manual_seed(0)
    probe = torch.randn(delta.shape[1], rank, generator=stream).to(delta)
    up = torch.linalg.qr(delta @ probe)[0]
    up = torch.linalg.qr(delta @ torch.linalg.qr(delta.T @ up)[0])[0]  # once more: the first is not exact in float32
    return LowRank(up.T @ delta, up, 1.0)
