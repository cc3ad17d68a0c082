"""Merge strategies: what becomes of several updates of one weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit import MergeStrategy, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["adapterkit_merge_strategies"]


@hookimpl
def adapterkit_merge_strategies() -> Iterator[MergeStrategy]:
    """The usual ones: exact sums and means, sums of what is pruned, elected signs, turns, and aligned subspaces."""
    # imported when they are asked for: they need torch
    from .arithmetic import magnitude_prune, soup, task_arithmetic
    from .breadcrumbs import breadcrumbs, breadcrumbs_ties
    from .dare import dare_linear, dare_ties
    from .della import della, della_linear
    from .exact import cat, linear, svd
    from .model_stock import model_stock
    from .sce import sce
    from .spherical import karcher, slerp
    from .subspaces import core_space, knots
    from .ties import ties

    exact: dict[Callable[..., Any], str] = {
        cat: "the weighted sum, in factors one after another: exact, its rank the sum of the ranks",
        svd: "the weighted sum in the best factors of any rank: exact where the rank has room for it",
        linear: "the weighted sum of whole changes",
        task_arithmetic: "the weighted sum, times a scaling: adds skills, takes one away by a negative weight",
        soup: "the weighted mean: for runs of one task",
    }
    others: dict[Callable[..., Any], str] = {
        magnitude_prune: "the weighted sum of each change's largest values: noise is left out",
        ties: "the largest values, and of these the mean of those with the majority's sign: for adapters at odds",
        dare_linear: "the weighted sum of values kept by chance, made up for: for large, redundant changes",
        dare_ties: "values kept by chance, and of these the mean of those with the majority's sign",
        breadcrumbs: "the weighted sum without the smallest and the very largest values: for many adapters",
        breadcrumbs_ties: "as breadcrumbs, and of these the mean of those with the majority's sign",
        della: "as dare_ties, but small values are dropped more often",
        della_linear: "as dare_linear, but small values are dropped more often",
        slerp: "turns from one change to another: a mean of two that is as long as they are",
        karcher: "the mean direction of several, as long as they are",
        model_stock: "the mean, the smaller the less the changes agree: for few runs of one task",
        sce: "the mean of values with the majority's sign, stronger changes counting more",
        knots: "ties in the outputs that the updates share (KnOTS): for LoRAs of different tasks",
        core_space: "ties in the inputs and outputs that the updates share: as knots, with less to compute",
    }
    for merge, summary in (exact | others).items():
        yield MergeStrategy(name=merge.__name__, merge=merge, exact=merge in exact, summary=summary)
