"""Forward and backward passes: of one adapter in training, or of several at once over one base."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from adapterkit.data.lengths import IGNORED
from adapterkit.runtime import InputAction, RowPlan
from adapterkit.runtime.rows import Rows
from adapterkit.runtime.tokens import virtual_count
from adapterkit.sites import INPUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from adapterkit.base import Base
    from adapterkit.runtime import Action

    from .randomness import RandomState
    from .training import Pass

__all__ = ["Together", "alone"]


def alone(one: Pass) -> float:
    """The loss of a pass that no other shares; its gradients are added to those that are there."""
    with one.training.random.drawn():
        loss = one.training.module(one.batch()).total * one.scale
        _backward(loss)
    return float(loss.detach())


def _backward(loss: Tensor) -> None:
    if loss.requires_grad:  # rows of weight zero alone leave nothing to learn
        loss.backward()  # type: ignore[no-untyped-call]


@attrs.frozen(eq=False)
class Together:
    """Makes the passes of several adapters in training as one pass of their base.

    The rows of all are one batch. Each adapter acts on its own rows, laid out as they would be without the others, with its
    own random numbers. Its objective is then given what the base made of them, and works on that alone, so that its loss and
    gradients are those of a run by itself, but for the order in which a product of larger matrices is summed.
    """

    base: Base

    def __call__(self, passes: Sequence[Pass]) -> list[float]:
        """The loss of each pass, in their order."""
        shared = [one for one in passes if not one.training.module.prefix_length]  # rows of one batch share their cache
        together = self._together(shared) if len(shared) > 1 else None
        if together is None:
            return [alone(one) for one in passes]
        found = {id(one): loss for one, loss in zip(shared, together, strict=True)}
        return [found[id(one)] if id(one) in found else alone(one) for one in passes]

    def _together(self, passes: Sequence[Pass]) -> list[float] | None:
        """The losses of one pass for all; None for a base whose head does not give its logits as they are."""
        batches = [one.batch() for one in passes]
        places = _places(batches)
        actors = [
            _Actor(one.training.module.plan, place, one.training.random)
            for one, place in zip(passes, places, strict=True)
        ]
        known = self.base.model.get_input_embeddings().num_embeddings
        plan = _plan(actors, places[-1].stop, self._head)
        first = passes[0].training.module
        with first.conditions(plan):
            hidden = first.forward_of.trunk(_join(batches, actors, known))
        if hidden is None:
            return None
        losses = []
        for one, place, batch in zip(passes, places, batches, strict=True):
            module = one.training.module
            with module.conditions(module.plan), one.training.random.drawn():
                served = module.forward_of.serving(batch, hidden[place.start : place.stop, : place.width])
                losses.append(module.objective.loss(served, batch).total * one.scale)
        _backward(torch.stack(losses).sum())
        return [float(loss.detach()) for loss in losses]

    @property
    def _head(self) -> str:
        head = self.base.model.get_output_embeddings()
        return next((site.name for site in self.base.sites if site.module is head), "")


@attrs.frozen
class _Place:
    """Where a job's rows are in the batch of all: sequences ``start`` to ``stop``, and their first ``width`` positions."""

    start: int
    stop: int
    width: int


@attrs.frozen(eq=False)
class _Actor:
    """A plan, the rows that it acts on, and the random numbers that it draws."""

    plan: Any
    place: _Place
    random: RandomState


def _places(batches: Sequence[dict[str, Tensor]]) -> list[_Place]:
    places, start = [], 0
    for batch in batches:
        count, width = batch["input_ids"].shape
        places.append(_Place(start, start + count, width))
        start += count
    return places


def _join(batches: Sequence[dict[str, Tensor]], actors: Sequence[_Actor], known: int) -> dict[str, Tensor]:
    """One batch of all, each sequence filled up at its end; virtual tokens are numbered on from job to job."""
    width = max(batch["input_ids"].shape[1] for batch in batches)
    ids, first = [], 0
    for batch, actor in zip(batches, actors, strict=True):
        own = batch["input_ids"]
        ids.append(_filled(torch.where(own >= known, own + first, own), width))
        first += virtual_count(actor.plan)
    joined = {
        "input_ids": torch.cat(ids),
        "labels": torch.cat([_filled(one["labels"], width, IGNORED) for one in batches]),
    }
    if any("segment_mask" in batch for batch in batches):
        joined["position_ids"] = torch.cat([_filled(_positions(batch), width) for batch in batches])
        joined["segment_mask"] = torch.cat([_mask(batch, width, _dtype(batches)) for batch in batches])
    return joined


def _filled(tensor: Tensor, width: int, value: float = 0) -> Tensor:
    return functional.pad(tensor, (0, width - tensor.shape[-1]), value=value)


def _positions(batch: dict[str, Tensor]) -> Tensor:
    if "position_ids" in batch:
        return batch["position_ids"]
    count, width = batch["input_ids"].shape
    return torch.arange(width, device=batch["input_ids"].device).expand(count, width)


def _dtype(batches: Sequence[dict[str, Tensor]]) -> torch.dtype:
    return next(batch["segment_mask"].dtype for batch in batches if "segment_mask" in batch)


def _mask(batch: dict[str, Tensor], width: int, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores, ``(sequences, 1, width, width)``; what fills a sequence up sees its beginning."""
    hidden = torch.finfo(dtype).min
    if "segment_mask" not in batch:
        causal = torch.full((width, width), hidden, dtype=dtype, device=batch["input_ids"].device).triu(1)
        return causal.expand(len(batch["input_ids"]), 1, width, width)
    own = batch["segment_mask"]
    more = width - own.shape[-1]
    # a row of the mask must leave something to be seen; nobody looks at what becomes of it
    return functional.pad(functional.pad(own, (0, more), value=hidden), (0, 0, 0, more), value=0.0)


def _plan(actors: Sequence[_Actor], count: int, head: str) -> RowPlan:
    """What the sites are to do for all rows, but for the head: it works for each job by itself."""
    rows = Rows(count)
    sites = {site: None for actor in actors for site in actor.plan if site not in (INPUT, head)}  # in order, each once
    actions: dict[str, Action] = {site: _InTurn(site, tuple(actors), rows) for site in sites}
    tables = [actor.plan[INPUT].table for actor in actors if virtual_count(actor.plan)]
    own, first = [], 0
    for actor in actors:
        number = virtual_count(actor.plan)
        own += [range(first, first + number)] * (actor.place.stop - actor.place.start)
        first += number
    if tables:
        table = InputAction(lambda: torch.cat([one() for one in tables]), rows=tuple((0, numbers) for numbers in own))
        actions[INPUT] = table
    return _JointPlan(actions, rows, own, [actor.random for actor in actors])


class _JointPlan(RowPlan):
    """The plan of several trainings, each of which draws its own random numbers, and draws them again for recomputation."""

    def __init__(
        self, actions: dict[str, Action], rows: Rows, virtual: Sequence[range], randoms: Sequence[RandomState]
    ) -> None:
        super().__init__(actions, rows, virtual, [0] * rows.count)
        self._randoms = randoms

    def contexts(self) -> tuple[Any, Any]:
        stood: list[Sequence[Tensor]] = []

        @contextlib.contextmanager
        def first() -> Iterator[None]:
            stood.extend(random.states for random in self._randoms)
            yield

        @contextlib.contextmanager
        def again() -> Iterator[None]:
            with contextlib.ExitStack() as stack:
                for random, states in zip(self._randoms, stood, strict=True):
                    stack.enter_context(random.again(states))
                yield

        return first(), again()


@attrs.frozen(eq=False)
class _InTurn:
    """Every adapter's action on its own rows; the rows of one that does nothing here are the base's."""

    site: str
    actors: tuple[_Actor, ...]
    rows: Rows

    def __call__(self, x: Any, y: Any) -> Any:
        """Each row with its own action, and in its own width."""
        x, y = self.rows.spread(x), self.rows.spread(y)
        given, block = self.rows.block(x), self.rows.block(y)
        parts = [self._act(actor, x, y, given, block) for actor in self.actors]
        if isinstance(y, tuple):
            return tuple(
                torch.cat(column) if isinstance(column[0], Tensor) else column[0] for column in zip(*parts, strict=True)
            )
        return torch.cat(parts)

    def _act(self, actor: _Actor, x: Any, y: Any, given: int, block: int) -> Any:
        place = actor.place
        action = actor.plan.get(self.site)
        mine = _rows(y, place, block, None)
        if action is None:
            return mine
        width = place.width
        with actor.random.drawn():
            changed = action(_rows(x, place, given, width), _rows(y, place, block, width))
        return _each2(_widened, changed, mine)


def _rows(value: Any, place: _Place, block: int, width: int | None) -> Any:
    """A job's rows of ``value``, cut to its width where they have one."""
    if isinstance(value, tuple):
        return tuple(_rows(one, place, block, width) for one in value)
    if not isinstance(value, Tensor):
        return value
    mine = value[place.start * block : place.stop * block]
    return mine[:, :width] if width is not None and block == 1 and mine.dim() > 1 else mine


def _each2(join: Any, changed: Any, whole: Any) -> Any:
    if isinstance(whole, tuple):
        return tuple(
            join(*pair) if isinstance(pair[1], Tensor) else pair[1] for pair in zip(changed, whole, strict=True)
        )
    return join(changed, whole)


def _widened(changed: Tensor, whole: Tensor) -> Tensor:
    """What was changed, followed by what of the whole lies beyond it."""
    if changed.shape == whole.shape:
        return changed
    return torch.cat([changed, whole[:, changed.shape[1] :]], dim=1)
