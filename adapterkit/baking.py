"""Bakes an adapter into weights: an ordinary transformers folder, which needs adapterkit no more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .artifact.replacing import replacing
from .effects import Bias, Dense, LowRank, Rows, Scale
from .errors import SelectionError
from .resident import load_layers, lower
from .sites import INPUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from .base import Base
    from .compose import Acting
    from .effects import Effect, Effects
    from .sites import Site

__all__ = ["bake", "baked"]


def bake(base: Base, adapter: Acting, folder: str | os.PathLike[str]) -> Path:
    """See :meth:`adapterkit.Base.bake`."""
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SelectionError(f"{str(target)!r} is not empty: a model is written into a new folder")
    effects = _effects(base, adapter)
    state: dict[str, Tensor] = dict(base.model.state_dict())
    for site in base.sites:
        if site.name in effects:
            _check_tied(base.sites, effects, site)
            state |= {f"{site.name}.{name}": one for name, one in baked(site, effects[site.name]).items()}
    with replacing(target) as staging:
        base.model.save_pretrained(staging, state_dict=state)
        if base.has_tokenizer:
            base.tokenizer.save_pretrained(staging)
    return Path(os.path.realpath(target))


def _effects(base: Base, adapter: Any) -> Effects:
    """The adapter's effects, if they can be said as weights of this base.

    Raises:
        SelectionError: They cannot.
    """
    if any(site.is_quantized for site in base.sites):
        raise SelectionError(
            "this base is quantized, which would round the adapter away: bake onto the base as it is without `quantize`"
        )
    base.load(adapter)
    method = base.registry.method(adapter.method)
    effects = lower(base.registry, method, load_layers(base.registry, method, adapter, base.sites))
    if effects is None:
        raise SelectionError(f"method {adapter.method!r} cannot be said as changes of weights: it cannot be baked")
    if INPUT in effects:
        raise SelectionError("the adapter puts tokens before the sequence, which no weight can say: it cannot be baked")
    return effects


def baked(site: Site, effects: Sequence[Effect]) -> dict[str, Tensor]:
    """The parameters that a site's effects change, in the base's dtype: computed in float32 and cast once."""
    values = {name: parameter.detach().float() for name, parameter in site.parameters.items()}
    own = dict(values) | ({"weight": values["weight"].T} if site.kind in ("conv1d", "embedding") else {})
    transposed = site.kind in ("conv1d", "embedding")
    if transposed:
        values["weight"] = values["weight"].T
    for effect in effects:
        _apply(effect, values, own, site)
    if transposed:
        values["weight"] = values["weight"].T.contiguous()
    before = site.parameters
    return {name: value.to(before[name].dtype) for name, value in values.items() if name in before}


def _apply(effect: Effect, values: dict[str, Tensor], own: Mapping[str, Tensor], site: Site) -> None:
    """Change ``values`` as ``effect`` acts on the base's ``own``, weights as ``(out_features, in_features)``."""
    if isinstance(effect, LowRank):
        values["weight"] = values["weight"] + effect.delta().to(values["weight"].device)
    elif isinstance(effect, (Dense, Bias)):
        name, delta = (effect.parameter, effect.delta) if isinstance(effect, Dense) else ("bias", effect.vector)
        if name not in values:
            raise SelectionError(f"{site.name!r} has no {name} to add the adapter's to")
        values[name] = values[name] + delta.to(values[name])
    elif isinstance(effect, Scale):
        _scale(effect, values, own)
    elif isinstance(effect, Rows):
        table = (values["weight"].T if site.kind == "embedding" else values["weight"]).clone()
        table[effect.index.to(table.device)] = effect.rows.to(table)
        values["weight"] = table.T if site.kind == "embedding" else table


def _scale(effect: Scale, values: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
    vector = effect.vector.to(own["weight"])
    if effect.side == "input":  # adds what the base makes of the rest of the input, whatever was added before
        values["weight"] = values["weight"] + own["weight"] * (vector - 1.0)
        return
    values["weight"] = values["weight"] * vector[:, None]
    if "bias" in values:
        left_out = 0.0 if effect.bias else own["bias"]
        values["bias"] = (values["bias"] - left_out) * vector + left_out


def _check_tied(sites: Sequence[Site], effects: Effects, site: Site) -> None:
    """Refuse to change one of two layers that have one weight: saved as one, they would both change."""
    sharing = [one.name for one in sites if one.tied_to == (site.tied_to or site.name)] + [site.tied_to or site.name]
    left = sorted(set(sharing) - set(effects))
    if left:
        raise SelectionError(f"{site.name!r} shares its weight with {left[0]!r}, which the adapter does not change")
