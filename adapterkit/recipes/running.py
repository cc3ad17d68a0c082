"""Runs a recipe, stage after stage."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.base import Base
from adapterkit.errors import ArtifactError, ConfigError, SelectionError
from adapterkit.merging import merge
from adapterkit.publishing import find
from adapterkit.registry import default_registry

from .recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from adapterkit.adapter import Adapter
    from adapterkit.compose import Acting
    from adapterkit.registry import Registry

    from .recipe import Stage

__all__ = ["Bases", "find_parent", "run_recipe"]


def run_recipe(
    source: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]] | Recipe,
    *,
    registry: Registry | None = None,
) -> Adapter:
    """Merge as a recipe says: a YAML file, or what it would say as a mapping or a list of them.

    ::

        run_recipe("recipe.yml")
        run_recipe({"merge_method": "ties", "adapters": ["out/cards", "out/tone"], "parameters": {"density": 0.5}})

    Args:
        source: The recipe; paths in a file begin at its folder.
        registry: Where strategies and methods are found; the usual one by default.

    Returns:
        The last stage's adapter; the stages, with their parents by digest, are in its ``manifest.lineage["recipe"]``.

    Raises:
        ConfigError: The recipe does not fit, an adapter is not there, or a stage is refused; it names the stage.
        ArtifactError: A folder is refused.
        SelectionError: Changes that cannot be merged.
    """
    recipe, registry = read_recipe(source), registry or default_registry()
    bases = Bases(recipe.folder, registry)
    made: dict[str, Adapter] = {}
    said: list[dict[str, Any]] = []
    merged = None
    for stage in recipe.stages:
        with named(stage):
            parents = [made.get(one.adapter) or find_parent(recipe, one.adapter, registry) for one in stage.adapters]
            merged = merge(
                parents,
                stage.weights,
                stage.merge_method,
                rank=stage.rank,
                base=bases.of(stage),
                seed=stage.seed,
                space=stage.space,  # type: ignore[arg-type]  # merge says which there are
                registry=registry,
                **stage.parameters,
            )
        made[stage.name] = merged
        said.append(_said(stage, parents, made))
    if merged is None:
        raise ConfigError("the recipe does not fit", ["it has no stage"])
    lineage = {**merged.manifest.lineage, "recipe": said}
    return attrs.evolve(merged, manifest=attrs.evolve(merged.manifest, lineage=lineage))


@attrs.frozen(eq=False)
class Bases:
    """The bases that stages name, each opened once."""

    folder: Path
    registry: Registry
    _opened: dict[str, Base] = attrs.field(factory=dict, init=False)

    def of(self, stage: Stage) -> Base | None:
        """The stage's; None where it needs none. It is loaded when it is first needed."""
        if stage.base_model is None:
            return None
        if stage.base_model not in self._opened:
            here = self.folder / stage.base_model
            location = here if os.path.exists(here) else stage.base_model  # noqa: PTH110 - it raises nothing
            self._opened[stage.base_model] = Base(location, registry=self.registry)
        return self._opened[stage.base_model]


def find_parent(recipe: Recipe, name: str, registry: Registry) -> Acting:
    """What a recipe names: a path from its folder on, a reference of the store, or an address."""
    return find(name, registry=registry, folder=recipe.folder)


@contextlib.contextmanager
def named(stage: Stage) -> Iterator[None]:
    """Errors of a stage say which it is, where it stands in a recipe."""
    where = f"{stage.where}: " if stage.where else ""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{where}{str(error).partition(':')[0]}", error.problems) from error
    except (ArtifactError, SelectionError) as error:
        raise type(error)(f"{where}{error}") from error


def _said(stage: Stage, parents: Sequence[Acting], made: Mapping[str, Adapter]) -> dict[str, Any]:
    """A stage as it was done; by digests, as a path says nothing elsewhere."""
    adapters = [
        {"digest": parent.digest, "weight": weight, **({"stage": one.adapter} if one.adapter in made else {})}
        for one, parent, weight in zip(stage.adapters, parents, stage.weights, strict=True)
    ]
    values = attrs.asdict(stage, filter=lambda field, _: field.name not in ("where", "adapters", "base_model"))
    kept = {name: value for name, value in values.items() if value not in (None, "", {}, "weights")}
    return {**kept, "adapters": adapters}
