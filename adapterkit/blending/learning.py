"""Finds the weights of a blend on a few examples, by gradients through the blend or without them."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import attrs
import torch
from attrs.validators import ge, gt, optional

from adapterkit.compose import Acting, Blend, Stack
from adapterkit.config import build_config
from adapterkit.data.batching import collate
from adapterkit.data.padding import check_known, pad_id
from adapterkit.data.rendering import Renderer
from adapterkit.data.reports import say_what_was_lost
from adapterkit.data.training import load_training_data
from adapterkit.errors import SelectionError, TrainingError
from adapterkit.evaluation.losses import mean_loss
from adapterkit.evaluation.progress import progress
from adapterkit.forward import BaseForward
from adapterkit.runtime import compose
from adapterkit.sites import INPUT

from .learned import LearnedBlend
from .search import search

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from adapterkit.base import Base
    from adapterkit.contracts import Example, Loss, Objective
    from adapterkit.data.dataset import Encoded

    Batch = Mapping[str, Tensor]
    Weights = Sequence[float] | Tensor

__all__ = ["BlendOptions", "learn_blend"]

HELD_OUT = 0.2
"""The part of the rows that is held out where nothing is said of it."""
L1 = 0.05
"""What LoraHub gives for it."""
DIGITS = 6
"""Weights are rounded to so many."""
OURS = ("base", "uniform", "learned")


@attrs.frozen(kw_only=True)
class BlendOptions:
    """How to learn a blend."""

    how: Literal["gradient", "gradient_free"] = "gradient"
    """By AdamW on the weights, or by a search that only ever computes losses, as LoraHub does (arXiv 2307.13269)."""
    steps: int = attrs.field(default=100, validator=ge(1))
    """Optimizer steps, or how many weights the search tries."""
    learning_rate: float = attrs.field(default=0.05, validator=gt(0.0))
    """That of the first step; it falls to zero. The search has none."""
    l1: float | None = attrs.field(default=None, validator=optional(ge(0.0)))
    """What the sum of the sizes of the weights adds to the loss, times this; 0.05 for the search and 0 for gradients by default."""
    bound: float = attrs.field(default=1.5, validator=gt(0.0))
    """Weights are kept between its negative and it."""
    batch_size: int = attrs.field(default=8, validator=ge(1))
    """Rows in one step by gradients, and in one pass."""
    objective: str = "sft"
    """What is minimised."""
    max_length: int = attrs.field(default=1024, validator=ge(2))
    """Longer rows are cut as in training."""
    seed: int = attrs.field(default=0, validator=ge(0))
    """Governs which rows are held out, their order, and the search."""


def learn_blend(
    base: Base,
    adapters: Sequence[Acting] | Mapping[str, Acting],
    data: Any,
    *,
    eval_data: Any = None,
    eval_split: float | None = None,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
    **options: Any,
) -> LearnedBlend:
    """See :meth:`adapterkit.Base.learn_blend`."""
    chosen = build_config(BlendOptions, options, what="options of learn_blend")
    objective = base.registry.objective(chosen.objective)
    named = _named(adapters)
    mixture = _Mixture(base, named, objective)
    rows = load_training_data(
        data,
        eval_data=eval_data,
        eval_split=HELD_OUT if eval_data is None and eval_split is None else eval_split,
        columns=columns,
        format=format,
        renderer=Renderer(base.tokenizer, chosen.max_length),
        registry=base.registry,
        seed=chosen.seed,
    )
    for name, report in rows.reports.items():
        say_what_was_lost(report, name)
    held_out = cast("Encoded", rows.held_out)
    check_known(base.model, [rows.rows.examples.highest, held_out.examples.highest])
    learn = _by_gradient if chosen.how == "gradient" else _by_search
    with progress([f"learning {len(named)} weights"], chosen.steps) as done:
        found = learn(
            mixture, list(rows.rows.examples), chosen, functools.partial(done, f"learning {len(named)} weights", 1)
        )
    weights = [round(one, DIGITS) for one in found]
    uniform = [1 / len(named)] * len(named)
    alone = {name: [float(name == other) for other in named] for name in named}
    contenders = {"base": [0.0] * len(named), **alone, "uniform": uniform, "learned": weights}
    examples = list(held_out.examples)
    return LearnedBlend(
        blend=Blend(dict(zip(named.values(), weights, strict=True))),
        weights=dict(zip(named, weights, strict=True)),
        losses={name: mixture.mean_loss(one, examples, chosen.batch_size) for name, one in contenders.items()},
        rows=len(rows.rows.examples),
        held_out=len(examples),
    )


def _named(adapters: Any) -> dict[str, Acting]:
    """Adapters by name, in order.

    Raises:
        SelectionError: There are none, one is there twice or is none, or a name is taken.
    """
    listed = list(adapters.values() if isinstance(adapters, Mapping) else adapters)
    Stack(*listed)
    names = list(adapters) if isinstance(adapters, Mapping) else [one.digest[:12] for one in listed]
    taken = sorted(set(names) & set(OURS))
    if taken:
        raise SelectionError(
            f"no adapter can be called {taken[0]!r} here: losses are told by name, and that one is of another"
        )
    return dict(zip(names, listed, strict=True))


class _Mixture:
    """The base under adapters whose weights are not settled."""

    def __init__(self, base: Base, adapters: Mapping[str, Acting], objective: Objective) -> None:
        self._runtime, self._objective, self._forward = base.runtime, objective, BaseForward(base.model)
        self._collate = functools.partial(collate, pad_id=pad_id(base.tokenizer), device=base.device)
        self._plans = []
        for name, one in adapters.items():
            with base.using(one):
                plan = base.runtime.plan or {}
            if INPUT in plan:
                raise SelectionError(
                    f"{name}: a soft prompt or a prefix is there or is not: its weight is 1 and cannot be learned; leave it out, "
                    "and put it into the blend afterwards"
                )
            self._plans.append(plan)

    @property
    def count(self) -> int:
        return len(self._plans)

    def loss(self, weights: Weights, batch: Batch) -> Loss:
        """The objective's loss of a batch; where the weights are a tensor, it has their gradient."""
        pairs: Any = zip(self._plans, weights, strict=True)
        with self._runtime.override(compose(list(pairs))):
            return self._objective.loss(self._forward, batch)

    def batch(self, examples: Sequence[Example]) -> Batch:
        return self._collate(examples)

    def mean_loss(self, weights: Weights, examples: Sequence[Example], batch_size: int) -> float:
        """The mean loss of the trained tokens."""
        loss_of = functools.partial(self.loss, list(weights))
        return mean_loss(loss_of, examples, batch_size, self._collate)


def _by_gradient(
    mixture: _Mixture, examples: Sequence[Example], options: BlendOptions, done: Callable[[], None]
) -> list[float]:
    """AdamW on the weights; after each step they are put within their bounds."""
    weights = torch.full((mixture.count,), 1 / mixture.count, requires_grad=True)
    optimizer = torch.optim.AdamW([weights], lr=options.learning_rate, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / options.steps)
    draws = torch.Generator().manual_seed(options.seed)
    order: list[int] = []
    for step in range(options.steps):
        if len(order) < min(options.batch_size, len(examples)):
            order += torch.randperm(len(examples), generator=draws).tolist()
        rows, order = order[: options.batch_size], order[options.batch_size :]
        with torch.enable_grad():
            found = mixture.loss(weights, mixture.batch([examples[row] for row in rows]))
            loss = found.total / found.tokens + (options.l1 or 0.0) * weights.abs().sum()
        _check(loss.item(), f"step {step + 1}")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        decay.step()
        with torch.no_grad():
            weights.clamp_(-options.bound, options.bound)
        done()
    return [float(one) for one in weights.detach()]


def _by_search(
    mixture: _Mixture, examples: Sequence[Example], options: BlendOptions, done: Callable[[], None]
) -> list[float]:
    """LoraHub's objective, the loss on all rows and the L1 norm of the weights, by a search of our own."""
    l1 = L1 if options.l1 is None else options.l1

    def loss(weights: Any) -> float:
        found = mixture.mean_loss(weights.tolist(), examples, options.batch_size) + l1 * float(abs(weights).sum())
        done()
        return found if math.isfinite(found) else math.inf

    start = [1 / mixture.count] * mixture.count
    weights, lowest = search(loss, start, tries=options.steps, bound=options.bound, seed=options.seed)
    _check(lowest, "every try")
    return [float(one) for one in weights]


def _check(loss: float, when: str) -> None:
    if not math.isfinite(loss):
        raise TrainingError(f"the loss is {loss} at {when}: no weights can be learned from it")
