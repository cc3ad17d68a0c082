"""How good an adapter is: loss, perplexity and scores of generated answers, beside the base alone."""

from __future__ import annotations

import functools
import logging
import math
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from attrs.validators import and_, ge, gt, lt, optional

from adapterkit.adapter import Adapter
from adapterkit.compose import Acting, Blend
from adapterkit.config import build_config
from adapterkit.contracts import Text
from adapterkit.data.batching import collate
from adapterkit.data.dataset import Encoded, encode_rows
from adapterkit.data.padding import check_known, pad_id
from adapterkit.data.reading import file_name
from adapterkit.data.rendering import Renderer
from adapterkit.data.reports import say_what_was_lost
from adapterkit.errors import SelectionError
from adapterkit.forward import BaseForward

from .asking import asked, longest_answer, that_fit
from .intervals import score_interval
from .losses import row_losses
from .measuring import Measured, choose, measure
from .progress import progress
from .result import Evaluation
from .samples import Ratio, on_samples
from .unseen import say_never_given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from adapterkit.base import Base
    from adapterkit.contracts import Metric
    from adapterkit.data.dataset import Unusable

    from .asking import Asked
    from .intervals import Interval
    from .samples import Sampled

__all__ = ["EvaluateOptions", "ScoreOptions", "check_adapter", "evaluate", "prepare", "score_all"]

logger = logging.getLogger("adapterkit")
MOST_LOSS = 700.0
"""exp() of more is no float."""
MOST_SHOWN = 5


@attrs.frozen(kw_only=True)
class ScoreOptions:
    """How to score adapters on rows."""

    max_new_tokens: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """The longest answer, in tokens; by default the longest expected one and a little more."""
    max_length: int = attrs.field(default=1024, validator=ge(2))
    """Longer rows are cut as in training."""
    batch_size: int = attrs.field(default=64, validator=ge(1))
    """Rows in one batch."""
    tokens_per_pass: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """At most so many tokens in one pass of the loss; a longer row goes alone."""
    metrics: tuple[str, ...] | None = None
    """The metrics to compute; by default each that says something of the expected answers."""
    confidence: float = attrs.field(default=0.95, validator=and_(gt(0.0), lt(1.0)))
    """How often an interval is to hold the score on all rows of the kind."""
    resamples: int = attrs.field(default=1000, validator=ge(0))
    """Samples of the rows that intervals are made from; 0 for no intervals."""
    seed: int = attrs.field(default=0, validator=ge(0))
    """Governs the samples."""


@attrs.frozen(kw_only=True)
class EvaluateOptions(ScoreOptions):
    """How to evaluate."""

    compare: bool = True
    """Score the base alone as well."""


@attrs.frozen(eq=False)
class Task:
    """What each adapter is asked.

    Attributes:
        rows: Encoded, with their records.
        asked: Those that are to be answered.
        unanswered: Those that expect an answer but cannot be given one.
        new: The longest answer, in tokens.
        metrics: What is scored, and whether each must be.
        options: Of the evaluation.
        name: The file that the rows came from; empty where they came from none.
    """

    rows: Encoded
    asked: Sequence[Asked]
    unanswered: Sequence[Unusable]
    new: int
    metrics: tuple[tuple[Metric, ...], bool]
    options: ScoreOptions
    name: str = ""


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
    check_adapter(adapter)
    chosen = build_config(EvaluateOptions, options, what="options of evaluate")
    contenders = {"adapter": adapter} if adapter is not None else {"base": None}
    if chosen.compare:
        contenders = {"base": None, **contenders}
    found = score_all(base, prepare(base, data, contenders.values(), columns, format, chosen), contenders)
    if adapter is None:
        return found["base"]
    say_never_given(found["adapter"])
    return attrs.evolve(found["adapter"], base=found.get("base"))


def check_adapter(adapter: Any, what: str = "evaluate") -> None:
    """Refuse what is no single adapter.

    Raises:
        SelectionError: It is neither an adapter nor None.
    """
    if adapter is not None and not isinstance(adapter, (Adapter, Blend)):
        raise SelectionError(f"{what} takes one adapter, a Stack, a Blend or None, not {adapter!r}")


def prepare(
    base: Base,
    data: Any,
    adapters: Iterable[Acting | None],
    columns: Mapping[str, str] | None,
    format: str | None,  # noqa: A002 - the word that users know
    options: ScoreOptions,
) -> Task:
    """The same rows and the same questions for all ``adapters``.

    Raises:
        DataError: The rows cannot be used.
        UnknownNameError: A metric that is not there.
    """
    metrics, renderer = choose(base.registry, options.metrics), Renderer(base.tokenizer, options.max_length)
    if isinstance(data, Encoded):
        rows = data  # those that a run has held out: read, reported and encoded already
    else:
        rows = encode_rows(data, renderer, base.registry, columns=columns, format=format)
        say_what_was_lost(rows.report)
    check_known(base.model, *(one.input_ids for one in rows.examples))
    asking = list(asked(rows.records, renderer))
    silent = len(rows.examples) - len(asking)
    if silent and not all(isinstance(record, Text) for record in rows.records):
        logger.warning("%d of %d rows expect no answer: they count in the loss alone", silent, len(rows.examples))
    if not asking:
        return Task(rows, (), (), 0, metrics, options, file_name(data))
    new = options.max_new_tokens or longest_answer(base, asking)
    fitting, unfit = that_fit(base, asking, rows.examples, new, max(_virtual(base, one) for one in adapters))
    for one in unfit[:MOST_SHOWN]:
        logger.warning("%s: %s", one.where, one.reason)
    if len(unfit) > MOST_SHOWN:
        logger.warning("%d more rows are not answered", len(unfit) - MOST_SHOWN)
    return Task(rows, fitting, unfit, new, metrics, options, file_name(data))


def score_all(base: Base, task: Task, contenders: Mapping[str, Acting | None]) -> dict[str, Evaluation]:
    """Each adapter's losses, answers and scores, by name; with a progress bar on a terminal."""
    with progress(list(contenders), len(task.rows.examples) + len(task.asked)) as done:
        return {name: _score(base, task, one, functools.partial(done, name)) for name, one in contenders.items()}


def _score(base: Base, task: Task, adapter: Acting | None, done: Callable[[int], None]) -> Evaluation:
    options, rows = task.options, task.rows
    losses = _losses(base, task, adapter, done)
    tokens = [sum(label != -100 for label in one.labels[1:]) for one in rows.examples]
    loss = Ratio(np.array(losses), np.array(tokens, dtype=float))
    references = [one.expected for one in task.asked]
    predictions: list[str] = []
    measured = Measured({}, {})
    if references:
        predictions = base.generate(
            [one.prompt for one in task.asked],
            adapter=adapter,
            max_new_tokens=task.new,
            batch_size=options.batch_size,
            progress=done,
        )
        metrics, wanted = task.metrics
        measured = measure(metrics, predictions, references, wanted=wanted)
    scores = {name: one.value for name, one in measured.scores.items()}
    return Evaluation(
        scores={"loss": loss.value, "perplexity": _perplexity(loss.value), **scores},
        rows=len(rows.examples),
        name=task.name,
        digest=rows.digest,
        adapter="" if adapter is None else adapter.digest,
        intervals={**_loss_intervals(loss, options), **_intervals(measured.scores, len(references), options)},
        confidence=options.confidence,
        details=measured.details,
        prompts=[one.readable() for one in task.asked],
        predictions=predictions,
        references=references,
        answered=[one.row for one in task.asked],
        losses=losses,
        tokens=tokens,
        unanswered=task.unanswered,
        report=rows.report,
        sampled={"loss": loss, **measured.scores},
    )


def _losses(base: Base, task: Task, adapter: Acting | None, done: Callable[[int], None]) -> list[float]:
    padded = functools.partial(collate, pad_id=pad_id(base.tokenizer), device=base.device)
    with base.using(adapter):
        (prefix,), (virtual,) = base.room(1)
        examples = [one.after(prefix + virtual) for one in task.rows.examples]
        options = task.options
        return row_losses(BaseForward(base.model), examples, options.batch_size, padded, options.tokens_per_pass, done)


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, MOST_LOSS))


def _loss_intervals(loss: Ratio, options: ScoreOptions) -> dict[str, Interval]:
    found = _intervals({"loss": loss}, len(loss.sums), options)
    return {**found, "perplexity": tuple(map(_perplexity, found["loss"]))} if found else {}  # type: ignore[dict-item]


def _intervals(scores: Mapping[str, Sampled], rows: int, options: ScoreOptions) -> dict[str, Interval]:
    """The interval of each score; one row tells nothing of others."""
    if rows < 2 or not options.resamples or not scores:
        return {}
    sampled = on_samples(scores, rows, options.resamples, options.seed)
    found = {name: score_interval(one, sampled[name], options.confidence) for name, one in scores.items()}
    return {name: interval for name, interval in found.items() if interval is not None}


def _virtual(base: Base, adapter: Acting | None) -> int:
    with base.using(adapter):
        (prefix,), (virtual,) = base.room(1)
    return len(prefix) + len(virtual)
