"""Whether an effect fits its site: what does not would be spread over a layer by broadcasting, or leave a part of it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit.effects import Bias, Dense, LowRank, PrefixKV, Rows, Scale, Tokens
from adapterkit.errors import PluginError

if TYPE_CHECKING:
    from adapterkit.effects import Effect
    from adapterkit.sites import Site

    Shapes = tuple[tuple[int, ...], ...]

__all__ = ["check_shape"]


def check_shape(effect: Effect, site: Site) -> None:
    """Refuse an effect whose tensors are not of the site's sizes.

    Raises:
        PluginError: Names the effect and the site.
    """
    found, wanted = _found(effect), _wanted(effect, site)
    if found != wanted:
        raise PluginError(
            f"the effect {type(effect).__name__} does not fit {site.name!r}: its shapes are {found}, and {wanted} are asked for"
        )
    if isinstance(effect, Rows):
        _check_index(effect, site)


def _found(effect: Effect) -> Shapes:
    if isinstance(effect, LowRank):
        return tuple(effect.down.shape), tuple(effect.up.shape)
    if isinstance(effect, Rows):
        return tuple(effect.index.shape), tuple(effect.rows.shape)
    if isinstance(effect, PrefixKV):
        return tuple(effect.keys.shape), tuple(effect.values.shape)
    if isinstance(effect, Dense):
        return (tuple(effect.delta.shape),)
    if isinstance(effect, (Bias, Scale)):
        return (tuple(effect.vector.shape),)
    return (tuple(effect.embeddings.shape),) if isinstance(effect, Tokens) else ()


def _wanted(effect: Effect, site: Site) -> Shapes:
    out, size = site.out_features, site.in_features
    if isinstance(effect, LowRank):
        rank = effect.down.shape[0] if effect.down.dim() else 1
        return (rank, size), (out, rank)
    if isinstance(effect, Rows):
        count = effect.index.numel()
        return (count,), (count, out if site.kind == "embedding" else size)
    if isinstance(effect, (Tokens, PrefixKV)):
        return _of_input(effect, site)
    if isinstance(effect, Dense):
        return (_of_parameter(effect.parameter, site),)
    if isinstance(effect, (Bias, Scale)):
        return ((size if isinstance(effect, Scale) and effect.side == "input" else out,),)
    return ()


def _of_input(effect: Tokens | PrefixKV, site: Site) -> Shapes:
    if isinstance(effect, Tokens):
        return ((effect.embeddings.shape[0] if effect.embeddings.dim() else 1, site.out_features),)
    whole = (*site.cache[:2], effect.keys.shape[2] if effect.keys.dim() == 4 else 1, *site.cache[2:])
    return whole, whole


def _of_parameter(name: str, site: Site) -> tuple[int, ...]:
    """The shape of a delta; a layer without a bias may be given one."""
    if site.kind != "module" and name in ("weight", "bias"):
        return (site.out_features, site.in_features) if name == "weight" else (site.out_features,)
    if name not in site.parameters:
        raise PluginError(f"the effect Dense does not fit {site.name!r}: it has no parameter {name!r}")
    return tuple(site.parameters[name].shape)


def _check_index(effect: Rows, site: Site) -> None:
    index, size = effect.index.tolist(), site.in_features if site.kind == "embedding" else site.out_features
    if len(set(index)) < len(index) or any(not 0 <= one < size for one in index):
        raise PluginError(
            f"the effect Rows does not fit {site.name!r}: {index} are not rows of a table of {size}, each named once"
        )
