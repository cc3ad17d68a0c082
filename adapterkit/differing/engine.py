"""``diff``: what differs between two adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from adapterkit.publishing import find_one
from adapterkit.registry import default_registry

from .difference import Difference
from .facts import facts
from .layers import compare_layers

if TYPE_CHECKING:
    import os

    from adapterkit.adapter import Adapter
    from adapterkit.registry import Registry
    from adapterkit.store import Store

__all__ = ["diff"]


def diff(
    first: Adapter | str | os.PathLike[str],
    second: Adapter | str | os.PathLike[str],
    *,
    store: Store | None = None,
    registry: Registry | None = None,
) -> Difference:
    """What differs between two adapters: what they say of themselves, and, site by site, what they do. It needs no base.

    ::

        found = diff("cards@3", "cards@4")
        found.config, found.scores, found.overall.cosine, found.layers[0]

    Of low-rank updates the effects are compared, ``‖ΔW - ΔW'‖ / ‖ΔW‖`` and the cosine, by products of their factors: no matrix of a
    layer's size is made. Two adapters that hold other tensors may do the same.

    Args:
        first: An adapter, its folder, or a reference of the store.
        second: The other one.
        store: Where references are looked up; the default store without one.
        registry: The plugins to use.

    Raises:
        ArtifactError: A folder is refused.
        SelectionError: Several adapters are named at once.
    """
    plugins = registry or default_registry()
    one, other = (find_one(each, registry=plugins, store=store) for each in (first, second))
    with torch.no_grad():
        compared = compare_layers(plugins, one, other)
    return Difference(
        first=one.digest,
        second=other.digest,
        **facts(one, other),
        layers=compared.layers,
        same=compared.same,
        only_first=compared.only_first,
        only_second=compared.only_second,
        unlike=compared.unlike,
        overall=compared.overall,
    )
