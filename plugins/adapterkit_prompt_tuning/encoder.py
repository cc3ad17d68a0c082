"""P-tuning: while it is trained, the soft prompt is what a small network makes of another; the network is not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch
from attrs.validators import and_, ge, le, optional
from torch import Tensor, nn

from adapterkit import INPUT, build_config

from .method import MOST_TOKENS, SoftPrompt, SoftPromptMethod, peft_fields, sizes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapterkit import Effects, Site

__all__ = ["EncodedPrompt", "PTuning", "PTuningConfig"]


@attrs.frozen(kw_only=True)
class PTuningConfig:
    """P-tuning: virtual tokens that a small network makes while they are trained."""

    tokens: int = attrs.field(default=20, validator=and_(ge(1), le(MOST_TOKENS)))
    """How many virtual tokens."""
    encoder: Literal["mlp", "lstm"] = "mlp"
    """The network."""
    encoder_hidden_size: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Its width; by default the base's, which is filled in."""
    hidden_size: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Size of an embedding; the base's, which is filled in."""
    inference_mode: bool = False
    """The network has been left behind; set when training ends."""


class EncodedPrompt(nn.Module):
    """``encoder(table)``, ``(tokens, hidden_size)``: an MLP of three layers, or a two-layer LSTM both ways and one of two."""

    def __init__(self, config: PTuningConfig) -> None:
        super().__init__()
        size, width = config.hidden_size or 0, config.encoder_hidden_size or 0  # filled in by configure
        self.table = nn.Parameter(nn.init.normal_(torch.empty(config.tokens, size)))
        self.lstm = None
        if config.encoder == "lstm":
            self.lstm = nn.LSTM(size, width, num_layers=2, bidirectional=True, batch_first=True)
            layers: list[nn.Module] = [nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, size)]
        else:
            layers = [nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, size)]
        self.mlp = nn.Sequential(*layers)

    def tokens(self) -> Tensor:
        """What stands before the sequence."""
        hidden = self.table if self.lstm is None else self.lstm(self.table[None])[0][0]
        encoded: Tensor = self.mlp(hidden)
        return encoded


@attrs.frozen(eq=False)
class PTuning(SoftPromptMethod):
    """The method ``p_tuning``."""

    name: str = "p_tuning"
    config: type = PTuningConfig
    summary: str = attrs.field(default="a soft prompt that a small network makes while it is trained", kw_only=True)
    defaults: Mapping[str, Any] = attrs.field(factory=lambda: {"learning_rate": 1e-3}, kw_only=True)
    peft_type: str = attrs.field(default="P_TUNING", kw_only=True)

    def configure(self, config: PTuningConfig, sites: Sequence[Site]) -> PTuningConfig:
        """The same with the base's sizes."""
        known: PTuningConfig = super().configure(config, sites)
        return attrs.evolve(known, encoder_hidden_size=config.encoder_hidden_size or known.hidden_size)

    def build(self, config: PTuningConfig, sites: Sequence[Site]) -> Mapping[str, nn.Module]:
        """The table and its network; the table alone once training is over."""
        plain = SoftPromptMethod.build(self, config, sites)
        if config.inference_mode:
            return plain
        return {INPUT: EncodedPrompt(config)}

    def finish(self, config: PTuningConfig, layers: Mapping[str, Any]) -> tuple[PTuningConfig, Mapping[str, nn.Module]]:
        """What the network made, without it."""
        made = layers[INPUT].tokens().detach()
        kept = SoftPrompt(*made.shape)
        kept.prompt_embeddings = nn.Parameter(made.float())
        return attrs.evolve(config, inference_mode=True), {INPUT: kept}

    def express(self, effects: Effects) -> tuple[PTuningConfig, Mapping[str, Tensor]] | None:
        """One soft prompt, and nothing else."""
        made = super().express(effects)
        if made is None:
            return None
        config, tensors = made
        return attrs.evolve(config, encoder_hidden_size=config.hidden_size, inference_mode=True), tensors

    def to_peft(self, config: PTuningConfig) -> dict[str, Any]:
        """PEFT's ``PromptEncoderConfig``."""
        return {
            **peft_fields(config),
            "encoder_reparameterization_type": config.encoder.upper(),
            "encoder_hidden_size": config.encoder_hidden_size,
            "encoder_num_layers": 2,
            "encoder_dropout": 0.0,
        }

    def from_peft(self, values: Mapping[str, Any]) -> PTuningConfig:
        """A soft prompt as PEFT wrote it."""
        options = {
            **sizes(values),
            "encoder": str(values.get("encoder_reparameterization_type", "MLP")).lower(),
            "encoder_hidden_size": values.get("encoder_hidden_size"),
            "inference_mode": True,
        }
        return build_config(PTuningConfig, options, what="fields of adapter_config.json")
