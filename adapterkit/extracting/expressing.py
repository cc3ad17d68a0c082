"""Low-rank updates as an adapter of the first method that has such adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit.errors import SelectionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from adapterkit.contracts import Method
    from adapterkit.effects import Effects
    from adapterkit.registry import Registry
    from adapterkit.sites import Site

__all__ = ["expressed"]


def expressed(
    registry: Registry, effects: Effects, sites: Sequence[Site] | None = None
) -> tuple[Method, Any, Mapping[str, Tensor]]:
    """The method, configuration and tensors of an adapter that does exactly this; methods are asked in the order of their names.

    Those that know no factors are not asked: they would keep whole changes of weights.

    Args:
        registry: Where methods are found.
        effects: By site.
        sites: The base's, on the meta device if need be: the configuration is then decided as before training.

    Raises:
        SelectionError: No method has such an adapter.
        TargetError: The base has no such layer.
    """
    for method in registry.methods():
        said = method.express(effects) if "LowRank" in method.traits.effects else None
        if said is not None:
            config, tensors = said
            if sites is not None:
                config = registry.call("configure", method, config=config, sites=sites)
            return method, config, tensors
    raise SelectionError("no method here has low-rank adapters; `adapterkit plugins --check` says what is there")
