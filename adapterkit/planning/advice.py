"""Which way to go, by the rules of :mod:`adapterkit.planning.rules`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.contracts import TrainOptions
from adapterkit.errors import UnknownNameError
from adapterkit.registry import default_registry

from .rules import GOALS, NEVER, RULES, WAYS, epochs_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .plan import Plan

__all__ = ["Advice", "Recommendation", "Situation", "advise"]

BITS_PER_PARAMETER = 2.0
"""What weights can hold of facts (Allen-Zhu and Li 2024, arXiv 2404.05405)."""
BITS_PER_TOKEN = 1.0
"""About what a trained token tells a model that knows the language: a loss of 0.7 per token is one bit."""
RANKS = (8, 16, 32, 64, 128, 256)


@attrs.frozen(kw_only=True)
class Situation:
    """What advice depends on.

    Attributes:
        goal: The name of one of :data:`~adapterkit.planning.rules.GOALS`.
        rows: How many rows there are.
        trained: How many tokens of them would be trained; 0 where it is not known.
        parameters: How many numbers the base has; 0 where it is not known.
        fits: Which methods fit into the device's memory; one that is not in it was not looked at.
        per_rank: How many numbers one rank of LoRA has on this base; 0 where it is not known.
        sensitive: Whether the data must not be seen by all who may ask.
        latency: How many milliseconds may be added to an answer; None where it does not matter.
        options: What each method needs, to fit.
    """

    goal: str
    rows: int
    trained: int = 0
    parameters: int = 0
    fits: Mapping[str, bool] = attrs.field(factory=dict)
    per_rank: float = 0.0
    sensitive: bool = False
    latency: float | None = None
    options: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)

    @classmethod
    def of(cls, plan: Plan, *, goal: str, sensitive: bool = False, latency: float | None = None) -> Situation:
        """What a plan knows of it."""
        low_rank = next((one for one in plan.estimates.values() if one.rank and one.parameters), None)
        return cls(
            goal=goal,
            rows=0 if plan.rows is None else plan.rows.rows,
            trained=0 if plan.rows is None else plan.rows.trained,
            parameters=plan.parameters,
            fits={name: one.fits for name, one in plan.estimates.items()},
            per_rank=0.0 if low_rank is None else low_rank.parameters / (low_rank.rank or 1),
            sensitive=sensitive,
            latency=latency,
            options={name: one.options for name, one in plan.estimates.items()},
        )


@attrs.frozen(kw_only=True)
class Recommendation:
    """One way, and what speaks for and against it.

    Attributes:
        way: Its name.
        title: What people call it.
        points: What the reasons come to; below zero it is advised against.
        reasons: What speaks for it.
        against: What speaks against it.
        changes: What would make it better.
        options: Options of ``train`` to start with; empty where nothing is trained.
    """

    way: str
    title: str
    points: int
    reasons: tuple[str, ...]
    against: tuple[str, ...]
    changes: tuple[str, ...]
    options: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Advice:
    """Every way, the best first.

    Attributes:
        goal: What was wanted.
        why: What there is to know of the goal.
        ranking: The ways.
    """

    goal: str
    why: str
    ranking: tuple[Recommendation, ...]

    @property
    def best(self) -> Recommendation:
        """What to do first."""
        return self.ranking[0]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return attrs.asdict(self)


def advise(situation: Situation) -> Advice:
    """Which way to go: rules of thumb, added up; no measurement of this data.

    Raises:
        UnknownNameError: There is no such goal.
    """
    if situation.goal not in GOALS:
        raise UnknownNameError("goal", situation.goal, GOALS)
    goal = GOALS[situation.goal]
    holding = [rule for rule in RULES if rule.holds(situation)]
    ranking = []
    for name, way in WAYS.items():
        mine = [(rule, rule.points[name]) for rule in holding if rule.points.get(name)]
        points = goal.points[name] + sum(value for _, value in mine)
        ranking.append(
            Recommendation(
                way=name,
                title=way.title,
                points=max(NEVER, points),
                reasons=tuple(rule.says(situation) for rule, value in mine if value > 0),
                against=tuple(rule.says(situation) for rule, value in mine if value < 0),
                changes=tuple(dict.fromkeys(rule.change for rule, value in mine if value < 0 and rule.change)),
                options=_options(situation, name) if way.method else {},
            )
        )
    return Advice(goal=goal.name, why=goal.reason, ranking=tuple(sorted(ranking, key=lambda one: -one.points)))


def _options(situation: Situation, name: str) -> dict[str, Any]:
    """To start with: the method's own learning rate, so many epochs as suit so many rows, and what makes it fit."""
    installed = {method.name: method for method in default_registry().methods()}
    defaults = installed[name].defaults if name in installed else {}
    rate = defaults.get("learning_rate", attrs.fields(TrainOptions).learning_rate.default)
    start: dict[str, Any] = {"learning_rate": rate, "epochs": epochs_for(max(1, situation.rows))}
    rank = rank_for(situation)
    if name in ("lora", "qlora") and rank is not None:
        start["rank"] = rank
    return {**start, **situation.options.get(name, {})}


def rank_for(situation: Situation) -> int | None:
    """The least usual rank whose numbers can hold what the rows tell: a heuristic of capacity, not a measurement.

    Two bits for each trained number, against one bit for each trained token.
    """
    if not situation.trained or not situation.per_rank:
        return None
    wanted = math.ceil(situation.trained * BITS_PER_TOKEN / (BITS_PER_PARAMETER * situation.per_rank))
    return next((rank for rank in RANKS if rank >= wanted), RANKS[-1])
