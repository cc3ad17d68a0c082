"""What a recipe would do, and what of it is refused, without any merging."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.compose import Blend
from adapterkit.effects import LowRank
from adapterkit.errors import AdapterkitError, ConfigError, UnknownNameError
from adapterkit.merging.acting import acting
from adapterkit.merging.parents import Parent, other_bases
from adapterkit.merging.refusing import refusals
from adapterkit.merging.strategy import prepare
from adapterkit.registry import default_registry

from .recipe import read_recipe
from .running import Bases, check_there, find_parent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from adapterkit.base import Base
    from adapterkit.merging.changes import Change
    from adapterkit.merging.strategy import Strategy
    from adapterkit.registry import Registry

    from .recipe import Recipe, Stage

__all__ = ["Plan", "PlannedParent", "PlannedStage", "plan_recipe"]

WIDTH = 4
"""Bytes of a number: results are float32."""


@attrs.frozen(eq=False, kw_only=True)
class PlannedParent:
    """One of the adapters of a stage.

    Attributes:
        adapter: As the recipe calls it.
        weight: How strongly it counts.
        method: Its method; empty for the result of a stage.
        digest: Its digest; empty for the result of a stage.
        rank: The lowest and the highest rank of its updates; None where it has none.
        bytes: The size of its tensors.
        changes: What it changes, by site; on the meta device.
    """

    adapter: str
    weight: float
    method: str = ""
    digest: str = ""
    rank: tuple[int, int] | None
    bytes: int
    changes: Mapping[str, Change] = attrs.field(repr=False)

    def __str__(self) -> str:
        return (
            f"the {self.method} adapter {self.digest[:12]}" if self.digest else f"the result of stage {self.adapter!r}"
        )


@attrs.frozen(eq=False, kw_only=True)
class PlannedStage:
    """One merge.

    Attributes:
        stage: What was asked for.
        parents: What is merged.
        options: All of the strategy's, defaults included.
        rank: The lowest and the highest rank that the result's updates have at most; None where it has none.
        sites: How many sites it acts on.
        bytes: The most that its tensors take.
        refused: What is wrong; empty where it can be done.
        changes: What the result changes, by site; on the meta device.
    """

    stage: Stage
    parents: tuple[PlannedParent, ...]
    options: Mapping[str, Any]
    rank: tuple[int, int] | None
    sites: int
    bytes: int
    refused: tuple[str, ...]
    changes: Mapping[str, Change] = attrs.field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """What is known, as JSON values."""
        stage = self.stage
        return {
            "name": stage.name,
            "merge_method": stage.merge_method,
            "parameters": dict(self.options),
            "rank": stage.rank,
            "seed": stage.seed,
            "base_model": stage.base_model,
            "adapters": [attrs.asdict(one, filter=lambda field, _: field.name != "changes") for one in self.parents],
            "result": {"rank": self.rank, "sites": self.sites, "bytes": self.bytes},
            "refused": list(self.refused),
        }


@attrs.frozen(eq=False)
class Plan:
    """All stages."""

    stages: tuple[PlannedStage, ...]

    @property
    def refused(self) -> tuple[str, ...]:
        """What is wrong in any of them."""
        return tuple(reason for stage in self.stages for reason in stage.refused)

    def to_json(self) -> dict[str, Any]:
        """What is known, as JSON values."""
        return {"stages": [stage.to_json() for stage in self.stages]}


def plan_recipe(source: Any, *, registry: Registry | None = None) -> Plan:
    """What :func:`~adapterkit.recipes.run_recipe` would do: parents, ranks, sizes, and what it would refuse.

    Nothing is merged; adapters are read, and what those change that need a base is computed against it.

    Raises:
        ConfigError: The recipe itself does not fit, or an adapter is not there.
    """
    recipe, registry = read_recipe(source), registry or default_registry()
    check_there(recipe)
    planner = _Planner(recipe, registry, Bases(recipe.folder, registry))
    return Plan(tuple(planner.stage(stage) for stage in recipe.stages))


@attrs.frozen(eq=False)
class _Planner:
    recipe: Recipe
    registry: Registry
    bases: Bases
    made: dict[str, PlannedStage] = attrs.field(factory=dict)
    leaves: dict[str, list[Parent]] = attrs.field(factory=dict)

    def stage(self, stage: Stage) -> PlannedStage:
        """One stage, after those before it."""
        wrong: list[str] = []
        base = self.bases.of(stage)
        parents, leaves = self._parents(stage, base, wrong)
        strategy = self._strategy(stage, [one.weight for one in parents], base, wrong)
        wrong += other_bases(leaves, base)
        changes = _merged(parents, strategy, wrong) if strategy is not None and not wrong else {}
        planned = PlannedStage(
            stage=stage,
            parents=tuple(parents),
            options=strategy.options if strategy is not None else stage.parameters,
            rank=_ranks(changes),
            sites=len(changes),
            bytes=sum(map(_bytes, changes.values())),
            refused=tuple(" ".join(one.split()) for one in wrong),
            changes=changes,
        )
        self.made[stage.name], self.leaves[stage.name] = planned, leaves
        return planned

    def _parents(self, stage: Stage, base: Base | None, wrong: list[str]) -> tuple[list[PlannedParent], list[Parent]]:
        """The parents, blends taken apart; and all adapters that they are made of."""
        found: list[PlannedParent] = []
        leaves: list[Parent] = []
        for one, weight in zip(stage.adapters, stage.weights, strict=True):
            earlier = self.made.get(one.adapter)
            if earlier is not None:
                found.append(
                    PlannedParent(
                        adapter=one.adapter,
                        weight=weight,
                        rank=earlier.rank,
                        bytes=earlier.bytes,
                        changes=earlier.changes,
                    )
                )
                leaves += self.leaves[one.adapter]
                wrong += [f"adapters: stage {one.adapter!r} is refused"] if earlier.refused else []
                continue
            try:
                acts = find_parent(self.recipe, one.adapter, self.registry)
                parts = acts.parts if isinstance(acts, Blend) else ((acts, 1.0),)
                for adapter, own in parts:
                    parent = Parent(adapter, weight * own)
                    leaves.append(parent)
                    found.append(self._read(one.adapter, parent, base))
            except AdapterkitError as error:
                wrong.append(f"adapters: {error}")
        return found, leaves

    def _read(self, name: str, parent: Parent, base: Base | None) -> PlannedParent:
        deeds = acting(self.registry, [parent], base)
        changes = {
            site: _shapes_of(change) for site in deeds.places() for change in deeds.at(site) if change is not None
        }
        return PlannedParent(
            adapter=name,
            weight=parent.weight,
            method=parent.adapter.method,
            digest=parent.adapter.digest,
            rank=_ranks(changes),
            bytes=sum(one.numel() * one.element_size() for one in parent.adapter.tensors.values()),
            changes=changes,
        )

    def _strategy(self, stage: Stage, weights: Sequence[float], base: Base | None, wrong: list[str]) -> Strategy | None:
        """The strategy with its options, tried on a weight of four numbers."""
        try:
            record = self.registry.merge_strategy(stage.merge_method)
            strategy = prepare(
                record,
                dict(stage.parameters),
                weights=weights,
                rank=stage.rank,
                seed=stage.seed,
                in_factors=stage.space == "factors",
            )
            if strategy.needs_base and base is None:
                wrong.append(f"base_model: {stage.merge_method!r} compares with the base's own weights; name the base")
            elif weights:
                _try(strategy)
        except UnknownNameError as error:
            wrong.append(f"merge_method: {error}")
        except ConfigError as error:
            wrong += error.problems
        else:
            return strategy
        return None


def _try(strategy: Strategy) -> None:
    """Have it refuse options and weights whose values do not fit."""
    stream = torch.Generator().manual_seed(0)
    own = torch.randn(2, 2, generator=stream)
    if strategy.takes_updates:
        pairs = [(torch.randn(1, 2, generator=stream), torch.randn(2, 1, generator=stream)) for _ in strategy.weights]
        strategy.of_updates("a try", [LowRank(down, up, 1.0) for down, up in pairs], own)
    else:
        strategy.of_deltas("a try", [torch.randn(2, 2, generator=stream) for _ in strategy.weights], own)


def _merged(parents: Sequence[PlannedParent], strategy: Strategy, wrong: list[str]) -> dict[str, Change]:
    """The shapes of what is merged, by site; reasons why it cannot be are added to ``wrong``."""
    found: dict[str, Change] = {}
    reasons: dict[str, list[str]] = defaultdict(list)
    for site in sorted({site for one in parents for site in one.changes}):
        changes = [one.changes.get(site) for one in parents]
        refused = refusals(parents, changes, strategy)  # type: ignore[arg-type]  # what is asked of them is how they are called
        for reason in refused:
            reasons[reason].append(site)
        if not refused:
            found[site] = _joined([one for one in changes if one is not None], strategy)
    for reason, sites in reasons.items():
        more = f" and {len(sites) - 1} more" if len(sites) > 1 else ""
        wrong.append(f"{sites[0]!r}{more}: {reason}")
    return found


def _joined(there: Sequence[Change], strategy: Strategy) -> Change:
    """What the change at a site looks like when several are merged."""
    shapes = {name: shape for one in there for name, shape in one.shapes().items()}
    parameters = {name: _empty(*shape) for name, shape in shapes.items() if name != "weight"}
    weights = [one.weight for one in there if one.weight is not None]
    joined = attrs.evolve(there[0], weight=None, parameters=parameters)
    if not weights:
        return joined
    rows, columns = shapes["weight"]
    ranks = [one.rank for one in weights if isinstance(one, LowRank)]
    is_low = len(ranks) == len(weights)
    if not is_low and strategy.rank is None:
        return attrs.evolve(joined, weight=_empty(rows, columns))
    total = (ranks[0] if strategy.in_factors else sum(ranks)) if is_low else min(rows, columns)
    most = strategy.rank or total
    rank = min(most, rows, columns, total if strategy.exact or strategy.in_factors else most)
    return attrs.evolve(joined, weight=LowRank(_empty(rank, columns), _empty(rows, rank), 1.0))


def _shapes_of(change: Change) -> Change:
    """The same change without its numbers."""
    weight = change.weight
    if isinstance(weight, LowRank):
        weight = attrs.evolve(weight, down=weight.down.to("meta"), up=weight.up.to("meta"))
    elif weight is not None:
        weight = weight.to("meta")
    return attrs.evolve(
        change, weight=weight, parameters={name: one.to("meta") for name, one in change.parameters.items()}
    )


def _empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def _ranks(changes: Mapping[str, Change]) -> tuple[int, int] | None:
    found = [one.weight.rank for one in changes.values() if isinstance(one.weight, LowRank)]
    return (min(found), max(found)) if found else None


def _bytes(change: Change) -> int:
    return WIDTH * sum(one.numel() for one in _tensors(change))


def _tensors(change: Change) -> Iterator[torch.Tensor]:
    yield from change.parameters.values()
    parts: list[Any] = [*change.rest, *([] if change.weight is None else [change.weight])]
    for part in parts:
        values = [part] if isinstance(part, torch.Tensor) else attrs.astuple(part, recurse=False)
        yield from (one for one in values if isinstance(one, torch.Tensor))
