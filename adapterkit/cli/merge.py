"""``adapterkit merge``: its options are those of the strategy, besides its own."""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from cyclopts import Parameter

from adapterkit.compose import named_parts
from adapterkit.errors import ConfigError
from adapterkit.merging.strategy import options_of
from adapterkit.recipes import Parent, Recipe, Stage, plan_recipe, read_recipe, run_recipe

from .acting import check_acting
from .flags import as_flags
from .methods import values_of
from .opening import AsJson  # noqa: TC001 - cyclopts reads the annotation
from .options import given, parameters
from .outputs import check_output, folders_of
from .plugins import PluginFiles, registry_with
from .tables import print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adapterkit.adapter import Adapter
    from adapterkit.recipes import Plan
    from adapterkit.recipes.planning import PlannedStage

__all__ = ["merge_command"]

ABOUT = """Make one adapter of several, by a recipe or by the options below; those of strategy {strategy} are the last.

{strategies}

The base is needed only for adapters whose change depends on its weights. The new folder is
printed, or with --json how the adapter was made.
"""
DEFAULT = "cat"
RECIPES = (".yml", ".yaml")


def merge_command(arguments: Sequence[str]) -> Callable[..., None]:
    """The command for the strategy that ``arguments`` name."""
    registry = registry_with(tuple(Path(file) for file in values_of(arguments, "--plugin")))
    chosen = registry.merge_strategy((values_of(arguments, "--strategy") or [DEFAULT])[-1])
    hints = get_type_hints(_own, include_extras=True)
    own = [one.replace(annotation=hints[name]) for name, one in inspect.signature(_own).parameters.items()]
    options = parameters(options_of(chosen))

    def command(*what: str, **said: Any) -> None:
        mine = {one.name: said.pop(one.name) for one in own[1:] if one.name in said}
        dry_run, as_json, output = (mine.pop(name, None) for name in ("dry_run", "as_json", "output"))
        mine.pop("plugin", None)
        recipe, output = _asked(list(what), output, dict(mine), given(said, options_of(chosen)))
        flags = () if _is_recipe(what) else (*mine, *said)
        with as_flags(*flags):
            if dry_run:
                _show(plan_recipe(recipe, registry=registry), as_json=as_json)
                return
            if output is None:
                raise ConfigError("merge does not fit", ["--output: is required: a folder for the adapter"])
            check_output(output, _inputs(recipe))
            merged = run_recipe(recipe, registry=registry)
        merged.save(output, registry=registry)
        _tell(merged, output, as_json=as_json)

    names = ", ".join(one.name for one in registry.merge_strategies())
    command.__doc__ = ABOUT.format(strategy=chosen.name, strategies=textwrap.fill(f"Strategies: {names}.", 98))
    command.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in (*own, *options)}
    return command


def _own(
    *what: Annotated[
        str,
        Parameter(
            help="RECIPE.yml OUTPUT; or adapters and files of blends, each perhaps with a weight: out/cards*0.7."
        ),
    ],
    output: Annotated[
        Path | None, Parameter(help="A folder for the adapter; one that is already there is replaced.")
    ] = None,
    weights: Annotated[
        str | None,
        Parameter(help="A number for each, such as 0.7,-0.3; all are 1 by default.", allow_leading_hyphen=True),
    ] = None,
    strategy: Annotated[
        str | None, Parameter(help=f"How several changes of a weight become one. [default: {DEFAULT}]")
    ] = None,
    rank: Annotated[int | None, Parameter(help="The most directions of the result at each site.")] = None,
    base: Annotated[
        str | None, Parameter(help="The base, where its weights are needed: a folder with a model, or a Hub id.")
    ] = None,
    seed: Annotated[int | None, Parameter(help="Governs what is drawn at random. [default: 0]")] = None,
    space: Annotated[
        Literal["weights", "factors"] | None,
        Parameter(help="Whether whole changes are merged, or A and B apart, as PEFT does. [default: weights]"),
    ] = None,
    dry_run: Annotated[
        bool, Parameter(help="Say what would be done and what is refused; merge nothing.", negative="")
    ] = False,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """The command's own options, as cyclopts reads them."""


def _asked(
    words: list[str], output: Path | None, mine: dict[str, Any], options: dict[str, Any]
) -> tuple[Recipe, Path | None]:
    """The recipe that the words and options are, and where the adapter goes.

    Raises:
        ConfigError: They do not go together.
    """
    if not words:
        raise ConfigError("merge does not fit", ["give RECIPE.yml OUTPUT, or the adapters to merge"])
    if not _is_recipe(words):
        return _recipe(words, mine, options), output
    beside = sorted(name for name, value in {**mine, **options}.items() if value is not None)
    problems = [f"--{name.replace('_', '-')}: the recipe says it" for name in beside]
    if len(words) > 2 or (len(words) == 2 and output is not None):
        problems.append("give RECIPE.yml OUTPUT, and nothing else: adapters are named in the recipe")
    if problems:
        raise ConfigError("merge does not fit", problems)
    return read_recipe(words[0]), Path(words[1]) if len(words) == 2 else output


def _is_recipe(words: Sequence[str]) -> bool:
    return bool(words) and words[0].lower().endswith(RECIPES)


def _recipe(adapters: Sequence[str], mine: dict[str, Any], options: dict[str, Any]) -> Recipe:
    """The recipe of one stage that options are."""
    for one in adapters:
        check_acting(one, "merge")
    parts = [part for one in adapters for part in ([(one, 1.0)] if Path(one).exists() else named_parts(one))]
    adapters = [one for one, _ in parts]
    weights: Sequence[float | None] = [weight for _, weight in parts]
    if all(weight == 1.0 for weight in weights):
        weights = _weights(mine.pop("weights", None), len(adapters))
    elif mine.pop("weights", None) is not None:
        raise ConfigError("merge does not fit", ["--weights: the adapters have weights behind a star already"])
    renamed = {"merge_method": mine.pop("strategy", None), "base_model": mine.pop("base", None), **mine}
    stage = Stage(
        adapters=tuple(Parent(adapter=one, weight=weight) for one, weight in zip(adapters, weights, strict=True)),
        parameters=options,
        **{name: value for name, value in renamed.items() if value is not None},
    )
    return Recipe(stages=(stage,))


def _weights(text: str | None, count: int) -> list[float | None]:
    if text is None:
        return [None] * count
    try:
        found: list[float | None] = [float(one) for one in text.split(",")]
    except ValueError:
        raise ConfigError("merge does not fit", [f"--weights: {text!r} is not like 0.7,-0.3"]) from None
    if len(found) != count:
        hint = "give one for each, with a comma between: 0.7,0.3"
        raise ConfigError("merge does not fit", [f"--weights: {len(found)} for {count} adapters; {hint}"])
    return found


def _inputs(recipe: Recipe) -> list[Path]:
    """All that is read: adapters, files of blends and the adapters that these name, bases."""
    named = [recipe.folder / one.adapter for stage in recipe.stages for one in stage.adapters]
    bases = [recipe.folder / stage.base_model for stage in recipe.stages if stage.base_model is not None]
    return bases + [path for one in named if one.exists() for path in folders_of(str(one))]


def _tell(merged: Adapter, output: Path, *, as_json: bool) -> None:
    lineage = merged.manifest.lineage
    if as_json:
        about = {"adapter": str(output), "digest": merged.digest, "method": merged.method, "lineage": lineage}
        print(json.dumps(about, indent=2, ensure_ascii=False))
        return
    lost = f"; {lineage['lost']['overall']:.1%} of the change was cut off" if lineage["lost"]["overall"] else ""
    count = len(lineage["parents"])
    plural = "" if count == 1 else "s"
    print(f"{lineage['strategy']} of {count} adapter{plural}{lost}; digest {merged.digest}", file=sys.stderr)
    print(output)


# -- the plan -------------------------------------------------------------------------------------------------------------


def _show(plan: Plan, *, as_json: bool) -> None:
    """The plan, and an error where something is refused.

    Raises:
        ConfigError: Something is.
    """
    if as_json:
        print(json.dumps(plan.to_json(), indent=2, ensure_ascii=False))
    else:
        for number, one in enumerate(plan.stages, 1):
            _show_stage(one, number, alone=len(plan.stages) == 1)
    if plan.refused:
        raise ConfigError("this cannot be merged", plan.refused)


def _show_stage(planned: PlannedStage, number: int, *, alone: bool) -> None:
    stage = planned.stage
    options = "".join(f" {name}={value}" for name, value in planned.options.items())
    title = f"{stage.name or 'result'}: " if not alone else ""
    print(f"{number}. {title}{stage.merge_method}{options}" + (f" rank={stage.rank}" if stage.rank else ""))
    rows = [
        [f"   {one.weight:g} ×", one.adapter, one.method, one.digest[:12], _rank(one.rank), _size(one.bytes)]
        for one in planned.parents
    ]
    made = planned.result
    result = ["   =", "refused", "", "", "", ""]
    if made is not None:
        most = _rank(made.rank) if made.rank is None else f"at most {_rank(made.rank)}"
        result = ["   =", stage.name or "the adapter", made.method, f"{made.sites} sites", most, _size(made.bytes)]
    print_table([*rows, result])


def _rank(ranks: tuple[int, int] | None) -> str:
    if ranks is None:
        return "whole weights"
    return f"rank {ranks[0]}" if ranks[0] == ranks[1] else f"rank {ranks[0]} to {ranks[1]}"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"
