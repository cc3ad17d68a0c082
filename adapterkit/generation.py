"""Answers: batches of prompts, each row with its own adapter and its own luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import torch
from attrs.validators import and_, ge, gt, le, optional

from .config import build_config
from .contracts import Message, Text
from .data.padding import pad_id
from .data.rendering import Renderer
from .errors import SelectionError

if TYPE_CHECKING:
    from torch import Tensor

    from .adapter import Adapter
    from .base import Base

__all__ = ["GenerateOptions", "Prompt", "generate"]

Prompt: TypeAlias = str | Text | Sequence[Message | Mapping[str, str]]
"""What a user says; turns, as messages or mappings with ``role`` and ``content``; or a Text to go on from, without a template."""


@attrs.frozen(kw_only=True)
class GenerateOptions:
    """How to answer."""

    max_new_tokens: int = attrs.field(default=64, validator=ge(1))
    """The longest answer, in tokens."""
    temperature: float = attrs.field(default=0.0, validator=ge(0.0))
    """0 takes the likeliest token each time; higher is more varied."""
    top_p: float = attrs.field(default=1.0, validator=and_(gt(0.0), le(1.0)))
    """Choose among the likeliest tokens that together have this probability."""
    top_k: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Choose among so many of the likeliest tokens."""
    seed: int = attrs.field(default=0, validator=ge(0))
    """Governs the choice; row i of a call draws from ``seed + i``, whatever its neighbours are."""
    batch_size: int = attrs.field(default=64, validator=ge(1))
    """Prompts in one batch."""


def generate(base: Base, prompts: Sequence[Prompt], *, adapter: Any = None, **options: Any) -> list[str]:
    """See :meth:`adapterkit.Base.generate`."""
    chosen = build_config(GenerateOptions, options, what="options of generate")
    adapters = _for_each(adapter, len(prompts))
    renderer = Renderer(base.tokenizer, max_length=_context(base))
    ids = [renderer.prompt(prompt) for prompt in prompts]
    _check_lengths(ids, chosen.max_new_tokens, _context(base))
    answers = [""] * len(prompts)
    # prompts of like length together: less padding, and a batch ends sooner
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for start in range(0, len(order), chosen.batch_size):
        rows = order[start : start + chosen.batch_size]
        with base.using([adapters[row] for row in rows]):
            new = _answer(base, [ids[row] for row in rows], rows, chosen, renderer.stop_ids())
        for row, tokens in zip(rows, new, strict=True):
            answers[row] = renderer.decode(tokens)
    return answers


def _for_each(adapter: Any, rows: int) -> list[Adapter | None]:
    if isinstance(adapter, (list, tuple)):
        if len(adapter) != rows:
            raise SelectionError(
                f"{len(adapter)} adapters for {rows} prompts: give one for each, or a single one for all"
            )
        return list(adapter)
    return [adapter] * rows


def _context(base: Base) -> int:
    return int(getattr(base.model.config.get_text_config(), "max_position_embeddings", None) or 2**31)


def _check_lengths(ids: Sequence[Sequence[int]], new: int, context: int) -> None:
    longest = max(map(len, ids), default=0)
    if longest + new > context:
        raise SelectionError(
            f"a prompt of {longest} tokens and {new} new ones do not fit into the base's {context}: shorten the prompt or "
            "lower max_new_tokens"
        )


@torch.no_grad()
def _answer(
    base: Base, ids: Sequence[Sequence[int]], rows: Sequence[int], options: GenerateOptions, stop: tuple[int, ...]
) -> list[list[int]]:
    """The new tokens of one batch, padded on the left as generation needs it."""
    from transformers import GenerationConfig

    pad, width = pad_id(base.tokenizer), max(map(len, ids))
    padded = torch.tensor([[pad] * (width - len(row)) + list(row) for row in ids], device=base.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=base.device)
    config = GenerationConfig(
        max_new_tokens=options.max_new_tokens, do_sample=False, eos_token_id=list(stop), pad_token_id=pad
    )
    out = base.model.generate(
        padded, attention_mask=mask, generation_config=config, logits_processor=_processors(options, rows, base.device)
    )
    return [row[width:].tolist() for row in out]


def _processors(options: GenerateOptions, rows: Sequence[int], device: torch.device) -> Any:
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    processors = LogitsProcessorList()
    if options.temperature == 0.0:
        return processors
    processors.append(TemperatureLogitsWarper(options.temperature))
    if options.top_k is not None:
        processors.append(TopKLogitsWarper(options.top_k))
    if options.top_p < 1.0:
        processors.append(TopPLogitsWarper(options.top_p))
    processors.append(_RowNoise(options.seed, rows, device))
    return processors


class _RowNoise:
    """Makes the likeliest token a sample: the Gumbel-max trick, with a random stream for each row.

    A row's answer so depends on its own seed alone; sampling from the batch's one stream would let neighbours change it.
    """

    def __init__(self, seed: int, rows: Sequence[int], device: torch.device) -> None:
        self._streams = [torch.Generator(device).manual_seed(seed + row) for row in rows]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - transformers' signature
        uniform = torch.stack([torch.rand(scores.shape[1], generator=s, device=scores.device) for s in self._streams])
        return scores.float() - torch.log(-torch.log(uniform.clamp_min(1e-20)))
