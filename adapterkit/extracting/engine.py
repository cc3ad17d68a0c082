"""A full fine-tune as a low-rank adapter: the difference of each weight from the base's, by randomised SVD."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.adapter import Adapter
from adapterkit.artifact.fit import check_base
from adapterkit.artifact.manifest import BaseReference, Manifest, versions
from adapterkit.checkpoint import Checkpoint, model_without_weights
from adapterkit.config import to_dict
from adapterkit.effects import LowRank
from adapterkit.errors import ConfigError, SelectionError
from adapterkit.evaluation.progress import progress
from adapterkit.fingerprint import fingerprint
from adapterkit.lowrank import of_rank, within_error
from adapterkit.registry import default_registry
from adapterkit.sites import ALL_LINEAR, find_sites, match

from .changes import Weights, changes_of_adapter, changes_of_model, differing_settings
from .expressing import expressed
from .order import check_base_is_model, check_base_is_older, holds_adapter

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from adapterkit.effects import Effects
    from adapterkit.lowrank import Factors
    from adapterkit.registry import Registry
    from adapterkit.sites import Site

    from .changes import Change

__all__ = ["extract"]

logger = logging.getLogger("adapterkit")

DEFAULT_RANK = 16
LEAST_ERROR = 1e-6
MOST_SEED = 1 << 64
SEEN = 5e-4
"""Of smaller parts of the difference nothing is said: they may be rounding."""
MOST_SHOWN = 12
FACTORED = ("linear", "conv1d", "embedding")


def extract(
    base: str | os.PathLike[str],
    tuned: str | os.PathLike[str] | Adapter,
    rank: int | None = None,
    max_error: float | None = None,
    *,
    target_modules: str | Sequence[str] = ALL_LINEAR,
    ignore_rest: bool = False,
    seed: int = 0,
    registry: Registry | None = None,
) -> Adapter:
    """What was tuned in full, as a low-rank adapter of its base.

    Both models are read tensor by tensor: the memory is that of the largest layer, a few times over, and of the adapter. The
    factors come from a randomised SVD (Halko et al. 2011, arXiv 0909.4061), and are the same for the same ``seed``.

    Args:
        base: The folder of the base, as transformers writes it, in safetensors.
        tuned: The folder of a model that was fine-tuned from it; or an adapter, or its folder, such as one of the method ``full``.
        rank: The rank of every layer that differs; 16 where ``max_error`` is not given either. What a layer's difference has beyond
            it is cut off: a higher one keeps more.
        max_error: Instead of a rank: each layer has the smallest one whose error, relative to the difference and by Frobenius
            norms, is at most this.
        target_modules: ``"all-linear"`` (all but the head), names of layers, or a regular expression for whole names.
        ignore_rest: Whether to leave out what differs and is no weight of a target, such as norms; otherwise it is an error.
        seed: Of the random start.
        registry: Where methods are looked up.

    Returns:
        An adapter; ``manifest.lineage`` has the error of each layer, which is how much of its difference was cut off, and what was
        left out.

    Raises:
        ConfigError: A rank and an error, or values that are none.
        BaseLoadError: A folder that cannot be read.
        BaseMismatchError: The adapter was made for another base.
        SelectionError: The models do not differ, differ in more than the targets, or cannot be compared; says in what. Or the
            base was baked from what is given as tuned.
        TargetError: The base has no layer of such a name.
    """
    _check_options(rank, max_error, target_modules, seed)
    registry = registry or default_registry()
    check_base_is_model(base, tuned)
    ours = _Ours.read(base)
    targets = {one.name for one in match(target_modules, [one for one in ours.sites if one.kind in FACTORED])}
    settings, changes, origin = _compared(ours, tuned, registry)
    within = [one for one in changes if one.site and one.site.name in targets and one.parameter == "weight"]
    lost = _lost(changes, within, settings)
    if lost and not ignore_rest:
        raise SelectionError(_refusal(lost))
    if not within:
        raise SelectionError("no weight of a target differs from the base's: there is nothing to extract")
    by_default = rank is None and max_error is None
    rank = DEFAULT_RANK if by_default else rank
    _check_rank(rank, within)
    found = _factored(within, rank, max_error, seed)
    _tell_error(max_error, found)
    if by_default and _overall(found) >= SEEN:
        logger.warning(
            "rank %d, the default, cuts off %.1f%% of the difference: a higher rank= keeps more",
            rank,
            100 * _overall(found),
        )
    lineage = {
        "kind": "extract",
        "base": to_dict(ours.reference),
        "tuned": origin,
        **({"max_error": max_error} if rank is None else {"rank": rank}),
        "seed": seed,
        "error": _overall(found),
        "sites": {name: {"rank": one.rank, "error": round(one.error, 6)} for name, (one, _) in found.items()},
        "lost": lost,
    }
    method, config, tensors = expressed(registry, _effects(within, found), ours.sites)
    manifest = Manifest(base=ours.reference, plugin=registry.provider(method), versions=versions(), lineage=lineage)
    return Adapter(method.name, config, tensors, manifest)


@attrs.frozen(eq=False)
class _Ours:
    """The base: its weights on disk, its places, and what adapters remember it by."""

    weights: Weights
    sites: tuple[Site, ...]
    reference: BaseReference

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> _Ours:
        checkpoint = Checkpoint.open(folder)
        model = model_without_weights(checkpoint.config)
        sites = find_sites(model)
        weights = Weights(checkpoint, model, sites)
        return cls(weights, sites, BaseReference(name=str(folder), fingerprint=_fingerprint(weights)))


def _fingerprint(weights: Weights) -> str:
    """The fingerprint of a model; half of it where its files have weights in other forms than the model, such as single experts."""
    absent = {name for name, _ in weights.model.named_parameters() if name not in weights}
    return fingerprint(weights.model, weights.__getitem__, absent)


def _check_options(rank: Any, max_error: Any, target_modules: Any, seed: Any) -> None:
    problems = []
    if rank is not None and max_error is not None:
        problems.append("rank: give a rank or max_error, not both")
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
        problems.append(f"rank: must be a whole number from 1 on, not {rank!r:.50}")
    if max_error is not None and not (isinstance(max_error, (int, float)) and LEAST_ERROR <= max_error < 1.0):
        problems.append(
            f"max_error: must be between {LEAST_ERROR:g}, below which float32 rounds, and 1, not {max_error!r:.50}"
        )
    names = [target_modules] if isinstance(target_modules, str) else target_modules
    if not isinstance(names, Collection) or not all(isinstance(one, str) for one in names):
        problems.append(f"target_modules: must be names of layers, or a pattern of them, not {target_modules!r:.50}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < MOST_SEED:
        problems.append(f"seed: must be a whole number from 0 to below 2**64, not {seed!r:.50}")
    if problems:
        raise ConfigError("options of extract do not fit", problems)


def _check_rank(rank: int | None, within: Sequence[Change]) -> None:
    """Refuse a rank that no layer can have; one that is no higher than the default fits wherever it is given.

    Raises:
        ConfigError: It is.
    """
    most = max(within, key=lambda one: min(one.shape))
    if rank is not None and rank > max(DEFAULT_RANK, min(most.shape)):
        limit = f"rank={rank} is over its limit: a weight {most.shape} has {min(most.shape)} directions"
        raise ConfigError("options of extract do not fit", [limit])


def _tell_error(max_error: float | None, found: Mapping[str, tuple[Factors, float]]) -> None:
    """Say where an error was asked for that no rank has."""
    name, error = max(((name, one.error) for name, (one, _) in found.items()), key=lambda item: item[1])
    if max_error is not None and error > max_error:
        logger.warning(
            "max_error=%g is not met: the error of %s is %.2g at every rank, as float32 rounds more away",
            max_error,
            name,
            error,
        )


def _compared(ours: _Ours, tuned: Any, registry: Registry) -> tuple[list[str], list[Change], dict[str, Any]]:
    """The settings and the parameters that differ, and what the tuned side is."""
    adapter = tuned if isinstance(tuned, Adapter) else _adapter_in(tuned, registry)
    if adapter is not None:
        check_base(adapter.manifest, ours.reference.fingerprint)
        return (
            [],
            changes_of_adapter(registry, adapter, ours.sites),
            {"method": adapter.method, "digest": adapter.digest},
        )
    checkpoint = Checkpoint.open(tuned)
    settings = differing_settings(ours.weights.checkpoint.config, checkpoint.config)
    theirs = Weights(checkpoint, ours.weights.model, ours.sites)
    mark = _fingerprint(theirs)
    check_base_is_older(ours.weights.checkpoint, checkpoint, mark)
    names = ("comparing",)
    with progress(names, len(ours.weights.stored)) as step:
        changes = changes_of_model(ours.weights, theirs, lambda: step(*names, 1))
    return settings, changes, {"name": str(tuned), "fingerprint": mark}


def _adapter_in(folder: str | os.PathLike[str], registry: Registry) -> Adapter | None:
    """The adapter of a folder; None where it holds a model."""
    return Adapter.load(folder, registry=registry) if holds_adapter(folder) else None


def _lost(changes: Sequence[Change], within: Sequence[Change], settings: Sequence[str]) -> dict[str, Any]:
    """What a low-rank adapter of the targets does not hold, by name: how many numbers, and how far from the base's.

    A weight at two places is named once, unless one of them is a target.
    """
    kept = {one.site.name for one in within if one.site}
    lost: dict[str, Any] = {}
    for one in changes:
        if one in within or (one.is_shared and one.site and one.site.tied_to not in kept):
            continue
        size = one.size()
        lost[one.name] = {"numbers": one.count} | ({} if size is None else {"change": round(size, 6)})
    return lost | {f"config.json: {one}": {} for one in settings}


def _refusal(lost: Mapping[str, Any]) -> str:
    lines = []
    for name, said in list(lost.items())[:MOST_SHOWN]:
        numbers = f": {said['numbers']:,} numbers" if "numbers" in said else ""
        change = f", changed by {said['change']:.2%}" if "change" in said else ""
        lines.append(f"\n  - {name}{numbers}{change}")
    more = f"\n  - and {len(lost) - MOST_SHOWN} more" if len(lost) > MOST_SHOWN else ""
    return (
        "more was tuned than the weights of the targets, and a low-rank adapter of these cannot hold it:"
        + "".join(lines)
        + more
        + "\nname embeddings and heads among target_modules, or leave the rest out: ignore_rest=True"
    )


def _factored(
    within: Sequence[Change], rank: int | None, max_error: float | None, seed: int
) -> dict[str, tuple[Factors, float]]:
    """Each target's factors, and the squared norm of what they stand for."""
    found: dict[str, tuple[Factors, float]] = {}
    names = ("extracting",)
    with progress(names, len(within)) as step, torch.no_grad():
        for one in within:
            delta = one.of_weight()
            generator = torch.Generator().manual_seed(seed)
            factors = within_error(delta, max_error, generator) if max_error else of_rank(delta, rank or 1, generator)
            found[one.site.name] = factors, float(torch.linalg.vector_norm(delta)) ** 2  # type: ignore[union-attr]
            step(*names, 1)
    return found


def _overall(found: Mapping[str, tuple[Factors, float]]) -> float:
    """The error of all layers together, relative to all differences."""
    total = sum(squared for _, squared in found.values())
    left = sum(squared * one.error**2 for one, squared in found.values())
    return float(round((left / total) ** 0.5, 6))


def _effects(within: Sequence[Change], found: Mapping[str, tuple[Factors, float]]) -> Effects:
    kinds = {one.site.name: one.site.kind for one in within if one.site}
    return {
        name: (LowRank(one.down, one.up, 1.0, embedding=kinds[name] == "embedding"),)
        for name, (one, _) in found.items()
    }
