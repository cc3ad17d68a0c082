"""``merge``: several adapters become one."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch

from adapterkit.adapter import Adapter
from adapterkit.artifact.manifest import Manifest, versions
from adapterkit.errors import ConfigError, SelectionError, UnknownNameError, suggest
from adapterkit.registry import Registry, default_registry

from .acting import acting
from .expressing import Wanted, express
from .joining import Joined, join
from .parents import base_of, gather, other_bases
from .progress import shown
from .refusing import refusals
from .strategy import Strategy, options_of, prepare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapterkit.base import Base
    from adapterkit.compose import Acting
    from adapterkit.contracts import MergeStrategy
    from adapterkit.effects import Effect

    from .acting import AgainstBase, Alone
    from .changes import Change
    from .parents import Parent

__all__ = ["merge"]

logger = logging.getLogger("adapterkit")

LARGEST = 1e37
"""What float32 holds, with room for sums."""
MUCH = 0.2
"""The part of a change from which on it is said that it was cut off."""
SHOWN = 3
"""How many sites an error names for each reason."""


def merge(
    adapters: Acting | Sequence[Acting],
    weights: Sequence[float] | None = None,
    strategy: str = "cat",
    *,
    rank: int | None = None,
    base: Base | None = None,
    seed: int = 0,
    space: Literal["weights", "factors"] = "weights",
    registry: Registry | None = None,
    **options: Any,
) -> Adapter:
    """Make one adapter of several, without the base in memory.

    What each adapter changes is counted from the base alone, and merged site by site in float32. A site that an adapter leaves
    alone is changed by nothing there. Ranks, scales and targets may differ, and so may methods: updates of low rank stay of low
    rank, and whole changes of weights make an adapter of a method that can hold them, such as ``full``. The result is of the
    first parent's method that can say it, else of the first that can. Equal inputs give equal bytes::

        merge([cards, tone], [0.7, 0.3])                        # what Blend({cards: 0.7, tone: 0.3}) does, exactly
        merge([cards, tone], [0.7, 0.3], "svd", rank=16)        # the same in 16 directions
        merge([cards, tone], strategy="ties", density=0.5)

    Args:
        adapters: Adapters; a Stack or a Blend counts as its parts, with their weights multiplied by its own. A single one may
            stand without a list.
        weights: A finite number for each; a negative one takes a skill away. All are 1 by default, as in a Stack.
        strategy: How several changes of one weight become one. ``"cat"`` is exact. Strategies come from plugins.
        rank: The most directions of an update at each site. By default updates keep the rank that the strategy gives them, and
            whole changes that it makes of updates alone are cut to the sum of their ranks; the lineage says what was lost.
        base: The base, for adapters whose change depends on its weights: DoRA, trained copies and tokens, IA3. There they become
            changes of weights. Strategies that compare with the base's weights need it as well. It is not changed.
        seed: For strategies that draw random numbers. Each weight has its own, whatever else is merged.
        space: With ``"factors"`` the strategy is given A and B apart, each with the root of its weight, as PEFT's ``linear``,
            ``ties``, ``dare_linear``, ``dare_ties`` and ``magnitude_prune`` do. The result has the parents' rank, which must be
            equal; but the product of merged factors is not what merging their products gives.
        registry: Where strategies and methods are found; by default the base's, or the usual one.
        **options: The strategy's own options, such as ``density``.

    Returns:
        The adapter. Its ``manifest.lineage`` has the strategy and its options, the parents by digest, and ``lost``: the Frobenius
        norm of what was cut off, relative to that of the change, ``overall`` and at the ``site`` where it was the ``largest``.

    Raises:
        ConfigError: No adapters, weights that do not match them, adapters of several bases, an unknown strategy or option; all
            problems together.
        SelectionError: Changes that cannot be merged, with their sites and what to do instead.
        ArtifactError: An adapter does not fit the base.
    """
    if isinstance(base, (str, os.PathLike)):
        raise ConfigError("these adapters cannot be merged so", [f"base: a loaded one: Base({str(base)!r})"])
    registry = registry or (base.registry if base is not None else default_registry())
    parents, asked = _checked(adapters, weights, strategy, rank, base, seed, space, registry, options)
    with torch.no_grad():
        deeds = acting(registry, parents, base)
        joined = _joined(parents, deeds, asked)
        effects = {site: one.effects for site, one in joined.items() if one.effects}
        wanted = Wanted(effects, deeds.methods(parents), deeds.borrowed(), base)
        method, config, tensors = express(registry, wanted, [one.adapter.method for one in parents])
    if method.name not in {one.adapter.method for one in parents}:
        logger.warning(
            "the merged adapter is of method %r, which no parent is of; a rank= may keep it low-rank", method.name
        )
    lost = _lost(joined)
    if lost["overall"] > MUCH:
        logger.warning(
            "%.0f%% of what strategy %r made of the changes does not fit into the rank, and was cut off: a higher rank= keeps more",
            100 * lost["overall"],
            strategy,
        )
    lineage = {
        "kind": "merge",
        "strategy": strategy,
        "options": dict(asked.options),
        **({"space": space} if space != "weights" else {}),
        "weights": [one.weight for one in parents],
        "rank": rank,
        "seed": seed,
        "parents": [_said(one) for one in parents],
        "lost": lost,
    }
    manifest = Manifest(
        base=base_of(parents, base), plugin=registry.provider(method), versions=versions(), lineage=lineage
    )
    return Adapter(method.name, config, tensors, manifest)


def _checked(
    adapters: Any,
    weights: Any,
    name: Any,
    rank: Any,
    base: Base | None,
    seed: Any,
    space: Any,
    registry: Registry,
    options: dict[str, Any],
) -> tuple[tuple[Parent, ...], Strategy]:
    """The parents and the strategy, once everything that is asked for is seen to make sense.

    Raises:
        ConfigError: Everything that is wrong.
    """
    parents, problems = gather(adapters, weights)
    problems += other_bases(parents, base)
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
        problems.append(f"rank: must be a whole number from 1 on, not {rank!r:.50}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        problems.append(f"seed: must be a whole number, not {seed!r:.50}")
    if space not in ("weights", "factors"):
        problems.append(f"space: must be 'weights' or 'factors', not {space!r:.50}")
    asked = None
    try:
        record = registry.merge_strategy(str(name))
        foreign = [one for one in options if one not in attrs.fields_dict(options_of(record))]
        problems += [_foreign(one, record, registry) for one in foreign]
        asked = prepare(
            record,
            {one: value for one, value in options.items() if one not in foreign},
            weights=[one.weight for one in parents],
            rank=rank,
            seed=seed,
            in_factors=space == "factors",
        )
        if asked.needs_base and base is None:
            problems.append(f"base: strategy {name!r} compares with the base's own weights: give base=…")
        _ = asked.sums if parents and not problems else ()
    except UnknownNameError as error:
        problems.append(f"strategy: {error}")
    except ConfigError as error:
        problems += error.problems
    if problems or asked is None:
        raise ConfigError("these adapters cannot be merged so", problems)
    return parents, asked


def _foreign(option: str, record: MergeStrategy, registry: Registry) -> str:
    """What to say of an option that a strategy does not have."""
    others = [one.name for one in registry.merge_strategies() if option in attrs.fields_dict(options_of(one))]
    whose = f"; it is one of {', '.join(others)}" if others else suggest(option, attrs.fields_dict(options_of(record)))
    return f"{option}: strategy {record.name!r} has no such option{whose}"


def _joined(parents: Sequence[Parent], deeds: Alone | AgainstBase, strategy: Strategy) -> dict[str, Joined]:
    """What the merged adapter does at each site, one site after another.

    Raises:
        SelectionError: The sites where the changes cannot be merged, by reason.
    """
    joined: dict[str, Joined] = {}
    wrong: dict[str, list[str]] = defaultdict(list)
    for site in shown("merging", deeds.places()):
        changes = deeds.at(site)
        if all(one is None for one in changes):
            continue
        for reason in [*_too_large(parents, changes), *refusals(parents, changes, strategy)]:
            wrong[reason].append(site)
        if not wrong:
            own = functools.partial(deeds.own, site) if "base" in strategy.filled else _nothing
            joined[site] = join(site, changes, strategy, own)
            if not all(map(_is_finite, joined[site].effects)):
                wrong["the merged change is not finite: a weight or an option is too large"].append(site)
    if wrong:
        lines = "".join(f"\n  - {_named(sites)}: {reason}" for reason, sites in wrong.items())
        raise SelectionError(f"these adapters cannot be merged:{lines}")
    return joined


def _too_large(parents: Sequence[Parent], changes: Sequence[Change | None]) -> list[str]:
    """What is not finite, or would not be in float32."""
    return [
        f"{parent}, with the weight {parent.weight:g}, holds numbers that are not finite or too large"
        for parent, change in zip(parents, changes, strict=True)
        if change is not None and not change.size() * max(1.0, abs(parent.weight)) <= LARGEST  # as NaN is not
    ]


def _nothing(_: str) -> None:
    """What a strategy is told of the base's own parameters that does not ask for them."""


def _named(sites: Sequence[str]) -> str:
    more = f" and {len(sites) - SHOWN} more" if len(sites) > SHOWN else ""
    return ", ".join(map(repr, sites[:SHOWN])) + more


def _is_finite(effect: Effect) -> bool:
    values = (getattr(effect, field.name) for field in attrs.fields(type(effect)))
    return all(bool(torch.isfinite(one).all()) for one in values if isinstance(one, torch.Tensor))


def _said(parent: Parent) -> dict[str, Any]:
    adapter = parent.adapter
    return {
        "digest": adapter.digest,
        "method": adapter.method,
        "weight": parent.weight,
        "base": adapter.manifest.base.fingerprint,
    }


def _lost(joined: Mapping[str, Joined]) -> dict[str, Any]:
    """What was cut off, beside what was there: overall, and at the site where it was the largest part."""
    parts = {site: one.lost / one.total for site, one in joined.items() if one.lost and one.total}
    worst = max(parts, key=lambda site: (parts[site], site), default="")
    lost = math.hypot(*(joined[site].lost for site in parts))
    total = math.hypot(*(one.total for one in joined.values()))
    return {"overall": _short(lost / total if parts else 0.0), "largest": _short(parts.get(worst, 0.0)), "site": worst}


def _short(value: float) -> float:
    return float(f"{value:.3g}")
