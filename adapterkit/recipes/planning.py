"""What a recipe would do, and what of it is refused, without any merging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.compose import Blend
from adapterkit.effects import LowRank
from adapterkit.errors import AdapterkitError, ConfigError, SelectionError, UnknownNameError
from adapterkit.merging.acting import acting
from adapterkit.merging.parents import Parent, other_bases
from adapterkit.merging.strategy import prepare
from adapterkit.registry import default_registry

from .recipe import read_recipe
from .running import Bases, find_parent
from .shapes import Shape, merged_shape, ranks_of, size_of, without_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapterkit.base import Base
    from adapterkit.merging.changes import Change
    from adapterkit.merging.strategy import Strategy
    from adapterkit.registry import Registry

    from .recipe import Recipe, Stage

__all__ = ["Plan", "PlannedParent", "PlannedStage", "plan_recipe"]


@attrs.frozen(eq=False, kw_only=True)
class PlannedParent:
    """One of the adapters of a stage.

    Attributes:
        adapter: As the recipe calls it.
        weight: How strongly it counts.
        method: Its method.
        digest: Its digest; empty for the result of a stage.
        rank: The lowest and the highest rank of its updates; None where it has none.
        bytes: The size of its tensors.
        changes: What it changes, by site; the numbers are left out.
    """

    adapter: str
    weight: float
    method: str
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
        result: What the merged adapter looks like; None where the stage is refused.
        refused: What is wrong; empty where it can be done.
    """

    stage: Stage
    parents: tuple[PlannedParent, ...]
    options: Mapping[str, Any]
    result: Shape | None
    refused: tuple[str, ...]

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
            "adapters": [attrs.asdict(one, filter=_is_said) for one in self.parents],
            "result": None if self.result is None else attrs.asdict(self.result, filter=_is_said),
            "refused": list(self.refused),
        }


def _is_said(field: attrs.Attribute[Any], _: Any) -> bool:
    return field.name != "changes"


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
        result = None
        if strategy is not None and not wrong:
            borrowed = acting(self.registry, leaves, base).borrowed()
            try:
                result = merged_shape(self.registry, parents, strategy, borrowed, base)
            except SelectionError as error:
                wrong.append(str(error))
        self.made[stage.name] = PlannedStage(
            stage=stage,
            parents=tuple(parents),
            options=strategy.options if strategy is not None else stage.parameters,
            result=result,
            refused=tuple(" ".join(one.split()) for one in wrong),
        )
        self.leaves[stage.name] = leaves
        return self.made[stage.name]

    def _parents(self, stage: Stage, base: Base | None, wrong: list[str]) -> tuple[list[PlannedParent], list[Parent]]:
        """The parents, blends taken apart; and all adapters that they are made of."""
        found: list[PlannedParent] = []
        leaves: list[Parent] = []
        for one, weight in zip(stage.adapters, stage.weights, strict=True):
            earlier = self.made.get(one.adapter)
            if earlier is not None:
                leaves += self.leaves[one.adapter]
                if earlier.result is None:
                    wrong.append(f"adapters: stage {one.adapter!r} is refused")
                else:
                    found.append(PlannedParent(adapter=one.adapter, weight=weight, **_fields(earlier.result)))
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
        changes = {site: without_numbers(one) for site in deeds.places() for one in deeds.at(site) if one is not None}
        return PlannedParent(
            adapter=name,
            weight=parent.weight,
            method=parent.adapter.method,
            digest=parent.adapter.digest,
            rank=ranks_of(one.weight for one in changes.values()),
            bytes=size_of(parent.adapter.tensors),
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


def _fields(result: Shape) -> dict[str, Any]:
    return attrs.asdict(result, recurse=False, filter=lambda field, _: field.name != "sites")
