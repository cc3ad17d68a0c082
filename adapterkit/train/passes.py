"""Forward and backward passes: of one adapter in training, or of several at once over one base."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import attrs
import torch

from adapterkit.runtime.tokens import virtual_count

from .acting import Actor, joint_plan
from .headwork import JointLosses
from .layout import choose_layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from adapterkit.base import Base

    from .training import Pass

__all__ = ["Together", "alone"]

TOKEN_BY_TOKEN = ("linear", "conv1d", "embedding")
"""Kinds of sites that know nothing of the order of the tokens."""


def alone(one: Pass) -> float:
    """The loss of a pass that no other shares; its gradients are added to those that are there."""
    with one.training.random.drawn():
        loss = one.training.module(one.batch()).total * one.scale
        _backward(loss)
    return float(loss.detach())


def _backward(loss: Tensor) -> None:
    if loss.requires_grad:  # rows of weight zero alone leave nothing to learn
        loss.backward()  # type: ignore[no-untyped-call]


@attrs.define(eq=False)
class Together:
    """Makes the passes of several adapters in training as one pass of their base.

    The rows of all are one batch. Each adapter acts on its own rows, with its own random numbers. Its objective is then given
    what the base made of them, and works on that alone, so that its loss and gradients are those of a run by itself, but for the
    order in which a product of larger matrices is summed.
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
        """The losses of one pass for all; None where each has to make its own.

        That is so where a pass for all would take longer; for a base whose head does not give its logits as they are; and where
        a loss is no number: it must not reach the gradients of others.
        """
        batches = [one.batch() for one in passes]
        actors = [Actor(one.training.module.plan, one.training.random) for one in passes]
        in_one = all(map(self._is_token_by_token, actors))
        layout = choose_layout(batches, self._hidden_size, may_be_in_one=in_one, quantized=bool(self.base.quantized))
        if layout is None:
            return None
        stood = [actor.random.states for actor in actors]
        ids = _numbered_on([batch["input_ids"] for batch in batches], actors, self._known)
        first = passes[0].training.module
        with first.conditions(joint_plan(actors, layout, self._head)):
            hidden = first.forward_of.trunk(layout.join(batches, ids))
        losses = [] if hidden is None else self._losses(passes, batches, layout.split(hidden, 1))
        said = torch.stack([loss.detach() for loss in losses]).tolist() if losses else []
        if not losses or not all(map(math.isfinite, said)):
            for actor, states in zip(actors, stood, strict=True):
                actor.random.stand(states)
            return None
        _backward(torch.stack(losses).sum())
        return said

    def _losses(
        self, passes: Sequence[Pass], batches: Sequence[dict[str, Tensor]], hidden: Sequence[Tensor]
    ) -> list[Tensor]:
        """What each objective makes of its own part."""
        joint = None
        if not any(self._head in one.training.module.plan for one in passes):
            joint = JointLosses(passes[0].training.module.forward_of, batches, hidden)
        losses = []
        for number, (one, batch, mine) in enumerate(zip(passes, batches, hidden, strict=True)):
            module = one.training.module
            with module.conditions(module.plan), one.training.random.drawn():
                served = module.forward_of.serving(batch, mine, joint.of(number) if joint else _nothing)
                losses.append(module.objective.loss(served, batch).total * one.scale)
        return losses

    def _is_token_by_token(self, actor: Actor) -> bool:
        """Whether it makes no difference to an adapter where in a sequence its tokens are."""
        return not virtual_count(actor.plan) and actor.plan.keys() <= self._sites

    @functools.cached_property
    def _sites(self) -> frozenset[str]:
        return frozenset(site.name for site in self.base.sites if site.kind in TOKEN_BY_TOKEN)

    @functools.cached_property
    def _known(self) -> int:
        return int(self.base.model.get_input_embeddings().num_embeddings)

    @functools.cached_property
    def _hidden_size(self) -> int:
        return int(self.base.model.config.get_text_config().hidden_size)

    @functools.cached_property
    def _head(self) -> str:
        head = self.base.model.get_output_embeddings()
        return next((site.name for site in self.base.sites if site.module is head), "")


def _nothing(positions: Tensor, targets: Tensor) -> None:
    """What is known beforehand where an adapter acts on the head."""


def _numbered_on(ids: Sequence[Tensor], actors: Sequence[Actor], known: int) -> list[Tensor]:
    """The jobs' ids, with virtual tokens numbered on from job to job."""
    numbered, first = [], 0
    for own, actor in zip(ids, actors, strict=True):
        numbered.append(torch.where(own >= known, own + first, own) if first else own)
        first += virtual_count(actor.plan)
    return numbered
