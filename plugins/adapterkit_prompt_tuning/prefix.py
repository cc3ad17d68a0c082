"""Prefix tuning: keys and values before those of the sequence, in every layer (Li and Liang 2021, arXiv 2101.00190)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch
from attrs.validators import and_, deep_iterable, ge, instance_of, le
from torch import Tensor, nn

from adapterkit import INPUT, ConfigError, PrefixKV, Traits

from .method import MOST_TOKENS, NAME, SoftPromptMethod, check_table, input_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapterkit import Base, Effects, Example, Site

__all__ = ["Prefix", "PrefixConfig", "PrefixTuning"]


@attrs.frozen(kw_only=True)
class PrefixConfig:
    """Prefix tuning: keys and values before those of the sequence."""

    tokens: int = attrs.field(default=20, validator=and_(ge(1), le(MOST_TOKENS)))
    """How many positions."""
    shape: tuple[int, ...] = attrs.field(
        default=(), validator=deep_iterable(and_(ge(1), le(2**20)), instance_of(tuple))
    )
    """Layers, key-value heads and the size of a head; the base's, which are filled in."""


class Prefix(nn.Module):
    """What attention finds before the sequence, as PEFT lays it out: ``(tokens, layers * 2 * heads * head_dim)``."""

    def __init__(self, tokens: int, shape: Sequence[int]) -> None:
        super().__init__()
        self._shape = tuple(shape)
        layers, heads, size = self._shape
        self.prompt_embeddings = nn.Parameter(nn.init.normal_(torch.empty(tokens, layers * 2 * heads * size)))

    def prefix(self) -> tuple[Tensor, Tensor]:
        """Keys and values, each ``(layers, heads, tokens, head_dim)``."""
        return keys_and_values(self.prompt_embeddings, self._shape)


def keys_and_values(table: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What PEFT's table holds, each ``(layers, heads, tokens, head_dim)``."""
    layers, heads, size = shape
    both = table.view(-1, layers, 2, heads, size).permute(1, 2, 3, 0, 4)
    return both[:, 0], both[:, 1]


@attrs.frozen(eq=False)
class PrefixTuning(SoftPromptMethod):
    """The method ``prefix_tuning``."""

    name: str = "prefix_tuning"
    config: type = PrefixConfig
    summary: str = attrs.field(default="trained keys and values before the sequence, in every layer", kw_only=True)
    traits: Traits = attrs.field(
        # a prefix lives in the cache, and transformers computes activations again without it
        factory=lambda: Traits(identity_start=False, stackable=False, recomputable=False, effects=("PrefixKV",)),
        kw_only=True,
    )
    defaults: Mapping[str, Any] = attrs.field(factory=lambda: {"learning_rate": 1e-2}, kw_only=True)
    peft_type: str = attrs.field(default="PREFIX_TUNING", kw_only=True)

    def configure(self, config: PrefixConfig, sites: Sequence[Site]) -> PrefixConfig:
        """The same with the shape of the base's cache."""
        shape = input_of(sites).cache
        if not shape or config.shape not in ((), shape):
            reason = (
                f"shape: the base's is {shape}, not {config.shape}"
                if shape
                else "the base says nothing of its attention"
            )
            raise ConfigError("the prefix does not fit", [reason])
        return attrs.evolve(config, shape=shape)

    def build(self, config: PrefixConfig, sites: Sequence[Site]) -> Mapping[str, nn.Module]:
        """The table of keys and values."""
        return {INPUT: Prefix(config.tokens, input_of(sites).cache)}

    def initialize(
        self,
        config: PrefixConfig,
        layers: Mapping[str, Any],
        base: Base,
        examples: Sequence[Example],  # noqa: ARG002
    ) -> None:
        """Start from what the base itself keeps of random tokens: numbers of another size take many steps to come down."""
        known = torch.randint(base.model.get_input_embeddings().num_embeddings, (1, config.tokens))
        with torch.no_grad(), base.using(None):
            cache = base.model(known.to(base.device), use_cache=True).past_key_values
        for layer, (keys, values) in enumerate(zip(*layers[INPUT].prefix(), strict=True)):
            keys.data.copy_(cache.layers[layer].keys[0])
            values.data.copy_(cache.layers[layer].values[0])

    def lower(self, layers: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
        """The same as an effect."""
        keys, values = layers[INPUT].prefix()
        return {INPUT: (PrefixKV(keys.detach(), values.detach()),)}

    def effects(self, config: PrefixConfig, tensors: Mapping[str, Tensor]) -> Effects:
        """The keys and values."""
        layers, heads, size = config.shape
        check_table(tensors, (config.tokens, layers * 2 * heads * size))
        return {INPUT: (PrefixKV(*keys_and_values(tensors[NAME], config.shape)),)}

    def express(self, effects: Effects) -> tuple[PrefixConfig, Mapping[str, Tensor]] | None:
        """One prefix, and nothing else."""
        found = [one for here in effects.values() for one in here]
        if len(found) != 1 or not isinstance(found[0], PrefixKV) or not 1 <= found[0].keys.shape[2] <= MOST_TOKENS:
            return None
        both = torch.stack([found[0].keys, found[0].values], dim=1)
        layers, _, heads, tokens, size = both.shape
        return PrefixConfig(tokens=tokens, shape=(layers, heads, size)), {NAME: both.permute(3, 0, 1, 2, 4).flatten(1)}

    def to_peft(self, config: PrefixConfig) -> dict[str, Any]:
        """PEFT's ``PrefixTuningConfig``."""
        layers, heads, size = config.shape
        return {
            "num_virtual_tokens": config.tokens,
            "token_dim": heads * size,
            "num_transformer_submodules": 1,
            "num_attention_heads": heads,
            "num_layers": layers,
            "encoder_hidden_size": heads * size,
            "prefix_projection": False,
            "modules_to_save": None,
        }

    def from_peft(self, values: Mapping[str, Any]) -> PrefixConfig:
        """A prefix as PEFT wrote it."""
        names = ("num_virtual_tokens", "num_layers", "num_attention_heads", "token_dim")
        sizes: tuple[Any, ...] = tuple(values.get(name) for name in names)
        tokens, layers, heads, width = sizes
        if values.get("prefix_projection") or values.get("modules_to_save"):
            raise ValueError("prefix_projection and modules_to_save are not read")
        if any(type(one) is not int or one < 1 for one in sizes) or tokens > MOST_TOKENS or width % heads:
            raise ValueError(f"{', '.join(names)} are {sizes}, which are no sizes")
        return PrefixConfig(tokens=tokens, shape=(layers, heads, width // heads))
