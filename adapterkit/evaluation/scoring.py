"""How good an adapter is: loss, perplexity and scores of generated answers, beside the base alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from attrs.validators import ge, optional

from adapterkit.adapter import Adapter
from adapterkit.config import build_config
from adapterkit.contracts import Text
from adapterkit.data.batching import collate
from adapterkit.data.dataset import answers, encode_rows
from adapterkit.data.padding import check_known, pad_id
from adapterkit.data.rendering import Renderer
from adapterkit.errors import SelectionError
from adapterkit.forward import BaseForward

from .losses import mean_loss
from .reporting import say_what_was_lost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapterkit.base import Base
    from adapterkit.data.dataset import Encoded

__all__ = ["EvaluateOptions", "Evaluation", "evaluate"]

ROOM = 4
"""Tokens that an answer may have beyond the longest expected one, so that one that does not end is seen not to."""
MOST_LOSS = 700.0
"""exp() of more is no float."""


@attrs.frozen(kw_only=True)
class EvaluateOptions:
    """How to evaluate."""

    max_new_tokens: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """The longest answer, in tokens; by default the longest expected one and a little more."""
    max_length: int = attrs.field(default=1024, validator=ge(2))
    """Longer rows are cut as in training."""
    batch_size: int = attrs.field(default=64, validator=ge(1))
    """Rows in one batch."""
    compare: bool = True
    """Score the base alone as well."""


@attrs.frozen(eq=False)
class Evaluation(Mapping[str, float]):
    """Scores by name.

    Attributes:
        scores: ``loss`` and ``perplexity`` per trained token; ``accuracy``, ``f1`` and what else the metrics give, but for
            raw text, which expects no answer.
        rows: How many rows were scored.
        predictions: The generated answers, in the order of the rows.
        base: The scores of the base alone on the same rows; None when it was not asked for.
    """

    scores: Mapping[str, float]
    rows: int
    predictions: Sequence[str] = attrs.field(repr=False)
    base: Evaluation | None = None

    def __getitem__(self, name: str) -> float:
        return self.scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)


def evaluate(
    base: Base,
    data: Any,
    *,
    adapter: Any,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
    **options: Any,
) -> Evaluation:
    """See :meth:`adapterkit.Base.evaluate`."""
    if adapter is not None and not isinstance(adapter, Adapter):
        raise SelectionError(f"evaluate takes one adapter or None, not {adapter!r}")
    chosen = build_config(EvaluateOptions, options, what="options of evaluate")
    renderer = Renderer(base.tokenizer, chosen.max_length)
    rows = encode_rows(data, renderer, base.registry, columns=columns, format=format)
    say_what_was_lost(rows.report)
    check_known(base.model, *(one.input_ids for one in rows.examples))
    alone = _score(base, rows, None, chosen) if chosen.compare and adapter is not None else None
    return attrs.evolve(_score(base, rows, adapter, chosen), base=alone)


def _score(base: Base, rows: Encoded, adapter: Adapter | None, options: EvaluateOptions) -> Evaluation:
    loss = _loss(base, rows, adapter, options)
    scores = {"loss": loss, "perplexity": math.exp(min(loss, MOST_LOSS))}
    if all(isinstance(record, Text) for record in rows.records):  # raw text expects no answer
        return Evaluation(scores, len(rows.examples), ())
    prompts, expected = answers(rows.records)
    new = options.max_new_tokens or _longest(base, expected) + ROOM
    predictions = base.generate(prompts, adapter=adapter, max_new_tokens=new, batch_size=options.batch_size)
    for metric in base.registry.metrics():
        scores.update(metric.compute(predictions, expected))
    return Evaluation(scores, len(rows.examples), predictions)


def _loss(base: Base, rows: Encoded, adapter: Adapter | None, options: EvaluateOptions) -> float:
    sft = base.registry.objective("sft")
    forward = BaseForward(base.model)
    padded = functools.partial(collate, pad_id=pad_id(base.tokenizer), device=base.device)
    with base.using(adapter):
        (prefix,), (virtual,) = base.room(1)
        examples = [one.after(prefix + virtual) for one in rows.examples]
        return mean_loss(lambda batch: sft.loss(forward, batch), examples, options.batch_size, padded)


def _longest(base: Base, texts: Sequence[str]) -> int:
    ids = base.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return max(map(len, ids))
