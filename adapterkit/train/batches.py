"""How the examples of a batch are put into tensors: packed where this model is seen to keep them apart, else padded."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

import attrs
import torch

from adapterkit.data.batching import collate
from adapterkit.data.packing import pack
from adapterkit.data.padding import pad_id
from adapterkit.forward import BaseForward
from adapterkit.head import MOST_LOGITS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adapterkit.base import Base
    from adapterkit.contracts import Example, TrainOptions

    Collate = Callable[..., dict[str, torch.Tensor]]

__all__ = ["beginning", "choose_collate", "keeps_rows_apart"]

logger = logging.getLogger("adapterkit")
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""How far logits of a packed row may be from those of the row alone, as a part of their size: rounding, and no more."""
ROUNDING = 1.5
"""A row may differ beside another by so many times what a mask alone does to it: deep models in bfloat16 round much."""
MOST_TRIED = 2048
"""So many tokens of a row are tried."""
MOST_PADDING = 0.05
"""Padding that is no larger a part of a batch stays: without a mask of its own, attention is several times as fast on a GPU, and
each row looks at itself alone instead of at a sequence of several."""


def choose_collate(base: Base, examples: Sequence[Example], options: TrainOptions, virtual: int = 0) -> Collate:
    """What makes a batch of examples, each of which will have so many ``virtual`` tokens before it."""
    padded = functools.partial(collate, pad_id=pad_id(base.tokenizer), device=base.device)
    if not options.packing:
        return padded
    packed = functools.partial(pack, pad_id=pad_id(base.tokenizer), device=base.device, dtype=base.model.dtype)
    with torch.autocast(base.device.type, torch.bfloat16, enabled=bool(options.bf16)):
        tolerance = TOLERANCES[torch.bfloat16 if options.bf16 else base.model.dtype]
        reason = keeps_rows_apart(base, examples, padded, packed, tolerance, virtual)
    if reason:
        logger.warning("rows are padded, not packed: %s", reason)
    return padded if reason else functools.partial(_closest, packed, padded)


def _closest(packed: Collate, padded: Collate, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    """A batch of rows, packed unless they fill the tensors anyway."""
    lengths = [len(one.input_ids) for one in examples]
    fills = max(lengths) * len(lengths) <= (1.0 + MOST_PADDING) * sum(lengths)
    return (padded if fills else packed)(examples)


def keeps_rows_apart(
    base: Base, examples: Sequence[Example], padded: Collate, packed: Collate, tolerance: float, virtual: int = 0
) -> str:
    """Why this model cannot have several rows in one sequence; empty when it can, which is tried and not assumed.

    Two rows are answered in one sequence, and each alone with no mask, by the bare base; only a model whose attention is
    all that mixes tokens, and which takes the mask that it is given, answers the same. A mask alone makes another kernel
    round otherwise: how much that is, is seen on each row by itself, and no more is forgiven for its neighbour.
    """
    config = base.model.config.get_text_config()
    if config._attn_implementation not in ("sdpa", "eager"):  # noqa: SLF001 - transformers has no public name for it
        return f"attention {config._attn_implementation!r} takes no mask of its own"  # noqa: SLF001
    longest = virtual + max(len(one.input_ids) for one in examples)
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if any(window is not None and window < longest for window in windows):
        return f"a row of {longest} tokens is longer than the attention window"
    tried = [
        beginning(one) for one in sorted(examples[:64], key=lambda one: -len(one.input_ids))[-2:]
    ]  # as they are packed
    try:
        with torch.no_grad(), base.using(None):
            looked_at = [_places(len(one.input_ids), _most_places(base) // len(tried)) for one in tried]
            together = _logits(base, packed(tried, sequences=1), torch.cat(looked_at))
            pairs = list(zip(tried, looked_at, strict=True))
            alone = torch.cat([_logits(base, padded([one]), places) for one, places in pairs])
            masked = torch.cat([_logits(base, packed([one], sequences=1), places) for one, places in pairs])
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        return f"the model refuses the mask ({type(error).__name__}: {str(error).splitlines()[0]})"
    changed = _difference(together, alone)
    if changed <= max(tolerance, ROUNDING * _difference(masked, alone)):
        return ""
    return f"a row is answered otherwise beside another one (by {changed:.1%})"


def beginning(example: Example) -> Example:
    """As much of a row as shows whether it is answered otherwise: the mask of two rows grows with their length squared."""
    weights = None if example.weights is None else example.weights[:MOST_TRIED]
    ids, labels = example.input_ids[:MOST_TRIED], example.labels[:MOST_TRIED]
    return attrs.evolve(example, input_ids=ids, labels=labels, weights=weights)


def _most_places(base: Base) -> int:
    return MOST_LOGITS // int(base.model.config.get_text_config().vocab_size)


def _places(length: int, most: int) -> torch.Tensor:
    """Where a row is looked at: everywhere, or at its ends, where its neighbours are and where all of it has been seen."""
    places = torch.ones(length, dtype=torch.bool)
    places[max(1, most // 2) : -max(1, most // 2)] = False
    return places


def _logits(base: Base, batch: dict[str, torch.Tensor], places: torch.Tensor) -> torch.Tensor:
    return BaseForward(base.model)(batch, places.to(base.device)[None]).float()


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest distance of two rows of logits, as a part of their size."""
    return float(((one - other).norm(dim=-1) / other.norm(dim=-1)).max())
