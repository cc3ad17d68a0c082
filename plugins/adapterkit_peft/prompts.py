"""PEFT's soft prompts, at the site before the first layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn

from adapterkit import INPUT, ConfigError, Method, TargetError, Tokens, Traits

from .catalogue import PROMPTS, Prompt
from .files import read, written
from .method import need_peft
from .options import Changes, options_class

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapterkit import Base, Effects, Example, Site

__all__ = ["EncodedPrompt", "PeftPrompt", "PlainPrompt"]

PLAIN = {"PROMPT_TUNING": (), "P_TUNING": ("encoder_hidden_size",)}
"""Types whose files hold the embeddings alone, and what is as wide as these."""
TASK = {"prefix_task_cols", "prefix_task_rows"}
TOKENS = 20
"""PEFT has no default; its examples mostly take as many."""


class EncodedPrompt(nn.Module):
    """A soft prompt as PEFT's own module makes it."""

    def __init__(self, encoder: Any, count: int) -> None:
        super().__init__()
        self.encoder, self._count = encoder, count
        self._tasks = hasattr(encoder, "prefix_task_cols")

    def tokens(self) -> Tensor:
        """What stands before the sequence: ``(num_virtual_tokens, hidden_size)``."""
        device = next(self.encoder.parameters()).device
        numbers = torch.arange(self._count, device=device)[None]
        task = (torch.zeros(1, dtype=torch.long, device=device),) if self._tasks else ()
        out: Tensor = self.encoder(numbers, *task)[0]
        return out


class PlainPrompt(nn.Module):
    """A soft prompt as PEFT keeps it: the embeddings themselves, and for a task what they are multiplied by."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def tokens(self) -> Tensor:
        """What stands before the sequence: ``(num_virtual_tokens, hidden_size)``."""
        return table_of(dict(self.named_parameters()))


def table_of(kept: Mapping[str, Tensor]) -> Tensor:
    """The embeddings that PEFT's tensors mean."""
    table = kept["prompt_embeddings"]
    return table * (kept["prefix_task_cols"][0] @ kept["prefix_task_rows"][0]) if set(kept) >= TASK else table


@attrs.frozen(eq=False)
class PeftPrompt(Method):
    """The method of one PEFT type."""

    prompt: Prompt = attrs.field(kw_only=True)

    @classmethod
    def of(cls, peft_type: str) -> PeftPrompt:
        """The method ``peft:<peft_type in lower case>``."""
        prompt = PROMPTS[peft_type]
        changes = Changes({"num_virtual_tokens": TOKENS}, dict(prompt.fixed))
        return cls(
            f"peft:{peft_type.lower()}",
            _with_sizes(options_class(peft_type, changes)),
            summary=f"PEFT's {peft_type}: {prompt.about}",
            traits=Traits(identity_start=False, stackable=False, effects=("Tokens",)),
            defaults=prompt.defaults,
            peft_type=peft_type,
            prompt=prompt,
        )

    # -- the life of an adapter ---------------------------------------------------------------------------------------

    def configure(self, config: Any, sites: Sequence[Site]) -> Any:
        """The same with the base's sizes."""
        need_peft(self.name)
        size = _input(sites).out_features
        changes: dict[str, Any] = {"token_dim": size, "inference_mode": False}
        if getattr(config, "encoder_hidden_size", 0) is None:
            changes["encoder_hidden_size"] = size
        if getattr(config, "prompt_tuning_init", "RANDOM") not in ("RANDOM", "TEXT", "SAMPLE_VOCAB"):
            raise ConfigError(
                f"method {self.name!r} does not do this", ["prompt_tuning_init: RANDOM, TEXT or SAMPLE_VOCAB"]
            )
        return attrs.evolve(config, **changes)

    def build(self, config: Any, sites: Sequence[Site]) -> Mapping[str, nn.Module]:
        """PEFT's encoder while it is trained, and what it made once that is over."""
        count, size = config.num_virtual_tokens, _input(sites).out_features
        if not config.inference_mode:
            need_peft(self.name)
            return {
                INPUT: EncodedPrompt(_encoder(self.peft_type, {**attrs.asdict(config), **self.prompt.fixed}), count)
            }
        return {INPUT: PlainPrompt(self._shapes(config, size))}

    def _shapes(self, config: Any, size: int) -> dict[str, tuple[int, ...]]:
        """What PEFT keeps, for embeddings of ``size`` numbers."""
        count = config.num_virtual_tokens
        if "num_ranks" not in attrs.asdict(config):
            return {"prompt_embeddings": (count, size)}
        ranks = config.num_ranks
        return {
            "prompt_embeddings": (count, size),
            "prefix_task_cols": (1, count, ranks),
            "prefix_task_rows": (1, ranks, size),
        }

    def initialize(self, config: Any, layers: Mapping[str, Any], base: Base, examples: Sequence[Example]) -> None:  # noqa: ARG002
        """Start from the embeddings of words, where that is asked for."""
        start = getattr(config, "prompt_tuning_init", "RANDOM")
        if start == "RANDOM":
            return
        table = base.model.get_input_embeddings()
        count = config.num_virtual_tokens
        if start == "TEXT":
            ids = base.tokenizer(config.prompt_tuning_init_text or "", add_special_tokens=False)["input_ids"]
            if not ids:
                raise ConfigError("prompt_tuning_init does not fit", ["prompt_tuning_init_text: holds no word"])
            chosen = torch.tensor((ids * math.ceil(count / len(ids)))[:count])
        else:
            chosen = torch.randint(0, table.num_embeddings, (count,))
        with torch.no_grad():
            layers[INPUT].encoder.embedding.weight.copy_(table.weight[chosen.to(table.weight.device)])

    def finish(self, config: Any, layers: Mapping[str, Any]) -> tuple[Any, Mapping[str, nn.Module]]:
        """What PEFT keeps: the embeddings that its encoder makes, without the encoder."""
        encoder, trained = layers[INPUT].encoder, layers[INPUT]
        parts = {
            name: getattr(encoder, name) for name in ("prefix_task_cols", "prefix_task_rows") if hasattr(encoder, name)
        }
        with torch.no_grad():
            kept = {"prompt_embeddings": encoder.embedding.weight if parts else trained.eval().tokens(), **parts}
        plain = PlainPrompt({name: tuple(one.shape) for name, one in kept.items()})
        plain.load_state_dict(kept)
        return attrs.evolve(config, inference_mode=True), {INPUT: plain}

    def lower(self, layers: Mapping[str, Any]) -> Mapping[str, tuple[Any, ...]]:
        """The same as an effect."""
        return {INPUT: (Tokens(layers[INPUT].tokens().detach()),)}

    def effects(self, config: Any, tensors: Mapping[str, Tensor]) -> Effects | None:
        """The embeddings; None where an encoder is still to make them."""
        if not config.inference_mode:
            return None
        own = {name.removeprefix(f"{INPUT}."): one for name, one in tensors.items()}
        expected, found = self._shapes(config, config.token_dim), {name: tuple(one.shape) for name, one in own.items()}
        if found != expected:
            raise ValueError(f"it holds {found!r:.200} instead of {expected}")
        return {INPUT: (Tokens(table_of(own)),)}

    def express(self, effects: Effects) -> tuple[Any, Mapping[str, Tensor]] | None:
        """One soft prompt, and nothing else; none that is a task's."""
        found = [one for here in effects.values() for one in here]
        if self.peft_type not in PLAIN or len(found) != 1 or not isinstance(found[0], Tokens):
            return None
        table = found[0].embeddings
        known = {"num_virtual_tokens": len(table), "token_dim": table.shape[1], "inference_mode": True}
        config = self.config(**known, **dict.fromkeys(PLAIN[self.peft_type], table.shape[1]))
        return config, {f"{INPUT}.prompt_embeddings": table}

    # -- files --------------------------------------------------------------------------------------------------------

    def to_peft(self, config: Any) -> dict[str, Any]:
        """PEFT's own configuration."""
        return {
            **written(self.peft_type, config, self.prompt.fixed),
            "num_transformer_submodules": 1,
            "inference_mode": True,
        }

    def from_peft(self, values: Mapping[str, Any]) -> Any:
        """The same as options."""
        if values.get("num_transformer_submodules", 1) not in (1, None):
            raise ValueError("num_transformer_submodules: a causal language model has one")
        told = {name: one for name, one in values.items() if name != "num_transformer_submodules"}
        config = read(self.peft_type, self.config, told, self.prompt.fixed)
        return attrs.evolve(config, inference_mode=True)

    def to_file(self, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """PEFT names no layer here."""
        return {name.removeprefix(f"{INPUT}."): one for name, one in tensors.items()}

    def from_file(self, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """From PEFT's names."""
        return {f"{INPUT}.{name}": one for name, one in tensors.items()}


def _with_sizes(options: type) -> type:
    """The options, with what is filled in and what says that training is over."""
    body: dict[str, Any] = {"token_dim": attrs.field(default=None), "inference_mode": attrs.field(default=False)}
    hints = {"token_dim": int | None, "inference_mode": bool}
    made = type(options.__name__, (options,), {**body, "__annotations__": hints, "__module__": __name__})
    return attrs.frozen(kw_only=True)(made)


def _encoder(peft_type: str, values: Mapping[str, Any]) -> Any:
    """PEFT's module that makes the prompt; how it starts is for ``initialize`` to say."""
    import dataclasses

    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    cls = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]
    known = {field.name for field in dataclasses.fields(cls)}
    told = {
        name: value for name, value in values.items() if name in known and not name.startswith("prompt_tuning_init")
    }
    config = cls(**told, num_transformer_submodules=1)
    made = PEFT_TYPE_TO_TUNER_MAPPING[peft_type]
    encoder = made(config) if peft_type == "P_TUNING" else made(config, None)
    return encoder.to(torch.get_default_device())  # not all of it asks torch where it is to be


def _input(sites: Sequence[Site]) -> Site:
    for site in sites:
        if site.name == INPUT:
            return site
    raise TargetError("site", INPUT, [])
