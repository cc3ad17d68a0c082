"""Bakes through a model in memory, and transformers' own way to write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from adapterkit.loading import progress_on_a_terminal

from .casting import cast, dtype_name, summed
from .report import Measure
from .summing import changed_parameters
from .updates import Updates, tied_sites

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from adapterkit.artifact.manifest import BaseReference
    from adapterkit.compose import Acting
    from adapterkit.registry import Registry
    from adapterkit.sites import Site

    from .updates import Parts

__all__ = ["Loaded", "baked"]


class Loaded:
    """A model in memory, and what is to be added to it; the model itself is left as it is.

    Args:
        registry: The plugins.
        model: The transformers model.
        sites: Its sites.
        acting: An adapter, a stack or a blend.
        base: What the base is called.
        dtype: What to cast its weights to; None keeps each as it is.
        whole: Why the model is in memory.

    Raises:
        ArtifactError: An adapter does not fit the base.
        SelectionError: One cannot be said as changes of its weights.
    """

    def __init__(
        self,
        registry: Registry,
        model: Any,
        sites: Sequence[Site],
        acting: Acting,
        *,
        base: BaseReference,
        dtype: torch.dtype | None,
        whole: str,
    ) -> None:
        self._model, self._sites, self._dtype = model, sites, dtype
        self.base, self.whole = base, whole
        self.updates = Updates(registry, acting, sites, dict(model.named_parameters(remove_duplicate=False)))

    @property
    def size(self) -> int:
        """How many bytes of tensors are to be written."""
        size = self._dtype.itemsize if self._dtype else 0
        return sum(one.numel() * (size or one.itemsize) for one in self._model.parameters())

    @property
    def dtype(self) -> str:
        """What its weights are stored in."""
        return dtype_name(self._dtype or self._model.dtype)

    def write(self, folder: Path, most: int, tell: Callable[[int], None]) -> dict[str, Measure]:
        """Write the model with :meth:`save_pretrained`.

        Returns:
            What became of each parameter that was changed.

        Raises:
            SelectionError: Layers that share a weight are not changed alike.
        """
        for group in tied_sites(self._sites):
            if self.updates.touched & {site.name for site in group}:
                self.updates.check_tied(group)
        measures: dict[str, Measure] = {}
        state = {name: self._cast(name, one) for name, one in self._model.state_dict().items()}
        for site in self._sites:
            if site.name in self.updates.touched:
                new = baked(site, self.updates.at(site), dtype=self._dtype, measures=measures)
                state |= {f"{site.name}.{name}": one for name, one in new.items()}
        with progress_on_a_terminal():
            self._model.save_pretrained(folder, state_dict=state, max_shard_size=most)
        tell(self.size)
        return measures

    def _cast(self, name: str, tensor: Tensor) -> Tensor:
        if self._dtype is None or not tensor.is_floating_point():
            return tensor
        return cast(tensor, self._dtype, name)


def baked(
    site: Site, parts: Parts, *, dtype: torch.dtype | None = None, measures: dict[str, Measure] | None = None
) -> dict[str, Tensor]:
    """The parameters of a site that adapters change, with their changes: computed in float32 at least and cast once.

    Args:
        site: The site.
        parts: The effects of each adapter there, and the adapter's weight.
        dtype: What to cast to; the parameter's own by default.
        measures: Takes what became of each, by the model's name for it.
    """
    made: dict[str, Tensor] = {}
    for name in sorted(changed_parameters(site, parts)):
        before = site.parameters[name]
        measure = Measure()
        pieces = list(summed(site, name, parts, dtype or before.dtype, measure))
        made[name] = torch.cat(pieces).reshape(before.shape)
        if measures is not None:
            measures[f"{site.name}.{name}"] = measure
    return made
