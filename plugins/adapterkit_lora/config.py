"""LoRA's options, and which of them contradict each other."""

from __future__ import annotations

import re
from typing import Any, Literal

import attrs
from attrs.validators import and_, deep_mapping, ge, gt, instance_of, le, lt, optional

__all__ = ["INITIALISATIONS", "SHIFTED", "LoraConfig", "contradictions"]

MOST_RANK = 16_384
MOST_ALPHA = 1e6
INITIALISATIONS = ("gaussian", "orthogonal", "pissa", "olora", "loftq", "eva", "pissa_niter_N")
SHIFTED = ("pissa", "olora")
"""The initialisations that start from a part of the weight itself; what is kept of them has twice the rank."""

_NITER = re.compile(r"pissa_niter_\d+")


def _unless_none(value: Any) -> Any:
    """PEFT's word for no biases is no option here, so that it is no part of what an adapter is."""
    return None if value == "none" else value


def _unless_true(value: Any) -> Any:
    """Nor is PEFT's word for the usual start."""
    return None if value is True else value


def _known_initialisation(instance: Any, attribute: Any, value: Any) -> None:  # noqa: ARG001 - what attrs calls
    if value not in (None, True, *INITIALISATIONS[:-1]) and not _NITER.fullmatch(str(value)):
        raise ValueError(f"must be true or one of {', '.join(INITIALISATIONS)}, not {value!r}")


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
    exclude_modules: str | tuple[str, ...] = ()
    """Layers that are left alone although they are targets: names, or a regular expression for whole names."""
    layers_to_transform: int | tuple[int, ...] | None = None
    """Numbers of the layers whose targets are trained; all by default."""
    layers_pattern: str | tuple[str, ...] = ()
    """What the list of layers is called, such as `layers` or `h`, where there are several."""
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
    use_dora: bool = False
    """Train each output's magnitude apart from its direction: DoRA (Liu et al. 2024, arXiv 2402.09353)."""
    bias: Literal["none", "all", "lora_only"] | None = attrs.field(default=None, converter=_unless_none)
    """Train the base's biases too: `all` of them, or those of the targets (`lora_only`)."""
    modules_to_save: tuple[str, ...] = ()
    """Layers of which a whole copy is trained, by the ends of their names."""
    trainable_token_indices: tuple[int, ...] | dict[str, tuple[int, ...]] | None = None
    """Tokens whose embeddings are trained; by the name of a layer for other tables than the input's."""
    target_parameters: tuple[str, ...] = ()
    """Parameters that get an update although they belong to no linear layer, such as `experts.gate_up_proj` of a mixture."""
    ensure_weight_tying: bool = False
    """Where the head's weight is the embedding's, train one update or copy for both."""
    init_lora_weights: bool | str | None = attrs.field(
        default=None, converter=_unless_true, validator=_known_initialisation
    )
    """How A and B start: `gaussian`, `orthogonal`, `pissa`, `olora`, `loftq`, `eva` or `pissa_niter_N`."""
    loraplus_lr_ratio: float | None = attrs.field(default=None, validator=optional(and_(gt(0.0), le(1e4))))
    """How many times the learning rate B is trained with: LoRA+ (Hayou et al. 2024, arXiv 2402.12354)."""
    fan_in_fan_out: bool = False
    """Whether the targets store their weights transposed; decided from the base, and kept for PEFT."""

    @property
    def is_shifted(self) -> bool:
        """Whether what is trained is counted from where it started."""
        return str(self.init_lora_weights).partition("_")[0] in SHIFTED

    def ranks(self) -> tuple[int, ...]:
        """Every rank that a target may have."""
        return (self.rank, *self.rank_pattern.values())

    def alphas(self) -> tuple[float, ...]:
        """Every alpha that a target may have."""
        return (self.alpha or 2.0 * self.rank, *self.alpha_pattern.values())


def contradictions(config: LoraConfig) -> list[str]:
    """What is wrong with the options together, one line for each."""
    start, ranks = config.init_lora_weights, config.ranks()
    odd = [rank for rank in ranks if rank % 2]
    problems = (
        (config.layers_pattern and config.layers_to_transform is None, "layers_pattern: needs layers_to_transform"),
        (start == "orthogonal" and odd, f"init_lora_weights: 'orthogonal' needs even ranks, not {odd[:1]}"),
        (
            config.is_shifted and (max(ranks) > MOST_RANK // 2 or max(config.alphas()) > MOST_ALPHA / 2),
            f"init_lora_weights: {start!r} doubles rank and alpha, which are at most {MOST_RANK} and {MOST_ALPHA:g}",
        ),
        (
            config.use_dora and (config.is_shifted or start == "loftq"),
            f"init_lora_weights: {start!r} does not go with use_dora",
        ),
        (
            config.target_parameters and (config.use_dora or config.dropout),
            "target_parameters: goes with neither use_dora nor dropout, as the update is made without the input",
        ),
        (
            config.target_parameters and start not in (None, "gaussian"),
            f"target_parameters: {start!r} is not how updates of parameters start",
        ),
    )
    return [text for found, text in problems if found]
