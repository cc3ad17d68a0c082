"""Prompt tuning: the embeddings of a few tokens before every sequence are all that is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch
from attrs.validators import and_, ge, le, optional
from torch import Tensor, nn

from adapterkit import INPUT, ConfigError, Method, TargetError, Tokens, Traits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapterkit import Base, Effects, Example, Site

__all__ = ["PromptConfig", "PromptTuning", "SoftPrompt", "SoftPromptMethod", "check_table", "input_of"]

MOST_TOKENS = 65_536
NAME, KEY = f"{INPUT}.prompt_embeddings", "prompt_embeddings"
"""What the table is called here, and what PEFT calls it on disk."""


@attrs.frozen(kw_only=True)
class PromptConfig:
    """Prompt tuning: virtual tokens before the sequence, whose embeddings are trained."""

    tokens: int = attrs.field(default=20, validator=and_(ge(1), le(MOST_TOKENS)))
    """How many virtual tokens."""
    init: Literal["vocabulary", "random"] = "vocabulary"
    """Start from the embeddings of random tokens of the vocabulary, or from random numbers of their size."""
    init_text: str | None = None
    """Start from the embeddings of this text instead, repeated or cut to fit."""
    hidden_size: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Size of an embedding; the base's, which is filled in."""


class SoftPrompt(nn.Module):
    """The embeddings of the virtual tokens, ``(tokens, hidden_size)``."""

    def __init__(self, tokens: int, hidden_size: int) -> None:
        super().__init__()
        self.prompt_embeddings = nn.Parameter(nn.init.normal_(torch.empty(tokens, hidden_size), std=0.02))

    def tokens(self) -> Tensor:
        """What stands before the sequence."""
        return self.prompt_embeddings


@attrs.frozen(eq=False)
class SoftPromptMethod(Method):
    """What methods that train a soft prompt have in common: one layer, at the input, and one tensor on disk."""

    traits: Traits = attrs.field(
        factory=lambda: Traits(identity_start=False, stackable=False, effects=("Tokens",)), kw_only=True
    )

    def configure(self, config: Any, sites: Sequence[Site]) -> Any:
        """The same with the base's hidden size."""
        size = input_of(sites).out_features
        if config.hidden_size not in (None, size):
            raise ConfigError(
                "the soft prompt does not fit", [f"hidden_size: the base's is {size}, not {config.hidden_size}"]
            )
        return attrs.evolve(config, hidden_size=size)

    def build(self, config: Any, sites: Sequence[Site]) -> Mapping[str, nn.Module]:
        """The table of embeddings."""
        return {INPUT: SoftPrompt(config.tokens, input_of(sites).out_features)}

    def lower(self, layers: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
        """The same as an effect."""
        return {INPUT: (Tokens(layers[INPUT].tokens().detach()),)}

    def effects(self, config: Any, tensors: Mapping[str, Tensor]) -> Effects | None:
        """The table; None where a network is still to make it."""
        if not getattr(config, "inference_mode", True):
            return None
        check_table(tensors, (config.tokens, config.hidden_size))
        return {INPUT: (Tokens(tensors[NAME]),)}

    def express(self, effects: Effects) -> tuple[Any, Mapping[str, Tensor]] | None:
        """One soft prompt, and nothing else."""
        found = [one for here in effects.values() for one in here]
        if len(found) != 1 or not isinstance(found[0], Tokens) or not 1 <= len(found[0].embeddings) <= MOST_TOKENS:
            return None
        table = found[0].embeddings
        return self.config(tokens=len(table), hidden_size=table.shape[1]), {NAME: table}

    def to_file(self, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """PEFT's one key."""
        return {KEY: tensors[NAME]}

    def from_file(self, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """The inverse."""
        strange = sorted(set(tensors) - {KEY})
        if strange or not tensors:
            raise ValueError(f"it holds {strange[0]!r:.200}; a soft prompt is one tensor, {KEY!r}")
        return {NAME: tensors[KEY]}


@attrs.frozen(eq=False)
class PromptTuning(SoftPromptMethod):
    """The method ``prompt_tuning``."""

    name: str = "prompt_tuning"
    config: type = PromptConfig
    summary: str = attrs.field(default="trained embeddings of a few tokens before the sequence", kw_only=True)
    defaults: Mapping[str, Any] = attrs.field(factory=lambda: {"learning_rate": 3e-2}, kw_only=True)
    peft_type: str = attrs.field(default="PROMPT_TUNING", kw_only=True)

    def initialize(
        self,
        config: PromptConfig,
        layers: Mapping[str, Any],
        base: Base,
        examples: Sequence[Example],  # noqa: ARG002
    ) -> None:
        """Start from embeddings that the base knows."""
        layers[INPUT].prompt_embeddings.data.copy_(starting_embeddings(config, base))

    def to_peft(self, config: PromptConfig) -> dict[str, Any]:
        """PEFT's ``PromptTuningConfig``. Its initialisation is over, so that PEFT need not look for a tokenizer."""
        return {**peft_fields(config), "prompt_tuning_init": "RANDOM"}

    def from_peft(self, values: Mapping[str, Any]) -> PromptConfig:
        """A soft prompt as PEFT wrote it."""
        return PromptConfig(**sizes(values))


def check_table(tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> None:
    """Refuse anything but one table of this shape.

    Raises:
        ValueError: It is not.
    """
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != {NAME: shape}:
        raise ValueError(f"it holds {found!r:.200} instead of a table {shape}")


def starting_embeddings(config: PromptConfig, base: Base) -> Tensor:
    """``(tokens, hidden_size)`` in float32, from the base's own embeddings."""
    embed = base.model.get_input_embeddings()
    if config.init_text is not None:
        ids = _ids_of(config.init_text, base, config.tokens)
    else:
        ids = torch.randint(embed.num_embeddings, (config.tokens,))
    known: Tensor = embed.forward(ids.to(embed.weight.device)).detach().float()
    random = config.init_text is None and config.init == "random"
    return torch.randn_like(known) * known.std() if random else known


def _ids_of(text: str, base: Base, count: int) -> Tensor:
    ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ConfigError("the soft prompt has nothing to start from", [f"init_text: {text!r} has no tokens"])
    return torch.tensor((ids * (count // len(ids) + 1))[:count])


def peft_fields(config: Any) -> dict[str, Any]:
    """What PEFT says of any soft prompt."""
    return {
        "num_virtual_tokens": config.tokens,
        "token_dim": config.hidden_size,
        "num_transformer_submodules": 1,
        "num_attention_heads": None,
        "num_layers": None,
        "modules_to_save": None,
    }


def sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that PEFT's fields say.

    Raises:
        ValueError: More is saved than a soft prompt, or the sizes are none.
    """
    if values.get("modules_to_save"):
        raise ValueError(f"modules_to_save={values['modules_to_save']!r}: a soft prompt saves no modules")
    if values.get("num_transformer_submodules") not in (None, 1):
        raise ValueError("num_transformer_submodules: only decoders are known here")
    tokens, size = values.get("num_virtual_tokens"), values.get("token_dim")
    if type(tokens) is not int or type(size) is not int or not 1 <= tokens <= MOST_TOKENS or size < 1:
        raise ValueError(f"num_virtual_tokens={tokens!r} and token_dim={size!r} are no sizes")
    return {"tokens": tokens, "hidden_size": size}


def input_of(sites: Sequence[Site]) -> Site:
    """The site before the first layer."""
    for site in sites:
        if site.name == INPUT:
            return site
    raise TargetError("site", INPUT, [site.name for site in sites])
