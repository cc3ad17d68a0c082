"""Without a base: the types whose tensors tell the sizes of the layers that they were made for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from adapterkit import INPUT, Scale, Site

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from adapterkit import Effects

__all__ = ["check_shapes", "factors_of", "sites_of", "tensors_of"]

FACTOR = "ia3_l"
SIZES: dict[str, tuple[tuple[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]] = {
    "BEFT": (("beft_bias", (0,)), ("beft_bias", (1,))),
    "C3A": (("c3a_kernel", (1, 2)), ("c3a_kernel", (0, 2))),
    "DELORA": (("delora_A", (1,)), ("delora_B", (0,))),
    "GRALORA": (("gralora_A", (0, 1)), ("gralora_B", (0, 2))),
    "IA3": ((FACTOR, (0, 1)), (FACTOR, (0, 1))),
    "LOHA": (("hada_w1_b", (1,)), ("hada_w1_a", (0,))),
    "LORA": (("lora_A.weight", (1,)), ("lora_B.weight", (0,))),
    "POLY": (("poly_lora_A", (0, 2)), ("poly_lora_B", (0, 3))),
}
"""For the input and the output of a layer, a tensor and the axes whose product is its size. BEFT's input has any size."""


def sites_of(peft_type: str, tensors: Mapping[str, Tensor]) -> list[Site] | None:
    """Sites like those that the tensors were made for, without weights; None where the tensors do not tell.

    Raises:
        ValueError: The tensors are not those of such layers.
    """
    if peft_type not in SIZES:
        return None
    inner, outer = SIZES[peft_type]
    names = [name.removesuffix(f".{inner[0]}") for name in tensors if name.endswith(f".{inner[0]}")]
    if not names:
        raise ValueError(f"it holds no {inner[0]}")
    return [_site(name, _size(tensors, name, *inner), _size(tensors, name, *outer)) for name in names]


def _size(tensors: Mapping[str, Tensor], site: str, name: str, axes: tuple[int, ...]) -> int:
    shape = tensors[f"{site}.{name}"].shape
    if len(shape) <= max(axes):
        raise ValueError(f"{site}.{name} is {tuple(shape)}")
    return math.prod(shape[axis] for axis in axes)


def check_shapes(layers: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those of the layers.

    Raises:
        ValueError: One is missing, is one too many, or has another shape.
    """
    expected = {
        f"{site}.{name}": one.shape for site, layer in layers.items() for name, one in layer.state_dict().items()
    }
    found = {name: one.shape for name, one in tensors.items()}
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if wrong:
        raise ValueError(f"{wrong[0]:.200} is {found.get(wrong[0])} instead of {expected.get(wrong[0])}")


def _site(name: str, in_features: int, out_features: int) -> Site:
    with torch.device("meta"):
        module = nn.Linear(in_features, out_features, bias=False)
    return Site(name, "linear", in_features, out_features, module=module)


def factors_of(effects: Effects) -> dict[str, Scale] | None:
    """The factors by site, where all that is done is to multiply features as IA3 does."""
    found: dict[str, Scale] = {}
    for site, here in effects.items():
        if site == INPUT or len(here) != 1 or not isinstance(here[0], Scale):
            return None
        if here[0].side == "output" and not here[0].bias:
            return None
        found[site] = here[0]
    return found or None


def tensors_of(factors: Mapping[str, Scale]) -> dict[str, Tensor]:
    """IA3's tensors: a column for an output, a row for an input."""
    return {
        f"{site}.{FACTOR}": one.vector[:, None] if one.side == "output" else one.vector[None]
        for site, one in factors.items()
    }
