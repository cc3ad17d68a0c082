"""From effects at a site to what acts there: moved to where the site computes, with whatever can be folded in folded in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from adapterkit.effects import Bias, Dense, LowRank, PrefixKV, Rows, Scale, Tokens
from adapterkit.errors import ArtifactError, PluginError
from adapterkit.sites import INPUT

from .actions import (
    AddBias,
    AddDense,
    AddLowRank,
    ChangeParameters,
    ReplaceColumns,
    ReplaceRows,
    ScaleInput,
    ScaleOutput,
)
from .shapes import check_shape
from .tokens import InputAction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from adapterkit.effects import Effect
    from adapterkit.sites import Site

    from .actions import Action

    Place = Callable[[Tensor], Tensor]

__all__ = ["actions_for", "check_effect"]

LAYERS = ("linear", "conv1d", "embedding")


def actions_for(site: Site, effects: Sequence[Effect], device: torch.device, dtype: torch.dtype) -> list[Action]:
    """One action for each effect, in order; the changed parameters of one module are one action.

    Raises:
        ArtifactError: A factor is infinite in ``dtype``, and would reach other rows too: zero times infinity is no number.
        PluginError: An effect of a kind that cannot act at such a site.
    """

    def place(tensor: Tensor) -> Tensor:
        placed = tensor.detach().to(device, dtype, copy=True)
        if not torch.isfinite(placed).all():
            raise ArtifactError(
                f"the adapter's factors at {site.name!r}, with its scale, are too large for the base's {dtype}"
            )
        return placed

    dense = [effect for effect in effects if isinstance(effect, Dense)]
    if not any(_is_inside(effect, site) for effect in dense):
        return [_action(effect, site, place) for effect in effects]
    # before the others: what the module makes of changed parameters replaces its output
    deltas: dict[str, Tensor] = {}
    for one in dense:
        check_shape(one, site)
        delta = place(one.delta.T if _is_turned(one, site) else one.delta)
        deltas[one.parameter] = deltas[one.parameter] + delta if one.parameter in deltas else delta
    return [
        ChangeParameters(site.module, deltas),
        *(_action(effect, site, place) for effect in effects if effect not in dense),
    ]


def _is_inside(effect: Dense, site: Site) -> bool:
    """Whether a changed parameter cannot be told apart from the module's own arithmetic."""
    return site.kind == "module" or effect.parameter not in ("weight", "bias")


def _is_turned(effect: Dense, site: Site) -> bool:
    """Whether its delta is the transpose of the parameter."""
    return effect.parameter == "weight" and site.kind in ("conv1d", "embedding")


def check_effect(effect: Effect, site: Site) -> None:
    """Refuse an effect that cannot act at a site.

    Raises:
        PluginError: It is of a kind that cannot act there, or not of the site's sizes.
    """
    if isinstance(effect, (Tokens, PrefixKV)):
        fits = site.name == INPUT
    else:
        is_table = site.kind == "embedding"
        wrong = (isinstance(effect, Rows) and not (is_table or site.is_head)) or (is_table and _is_of_input(effect))
        inside = isinstance(effect, Dense) and _is_inside(effect, site)
        fits = inside or (site.kind in LAYERS and type(effect) in _AT_LAYERS and not wrong)
    if not fits:
        raise PluginError(
            f"the effect {type(effect).__name__} cannot act at {site.name!r}, which is a site of kind {site.kind!r}"
        )
    check_shape(effect, site)


def _action(effect: Effect, site: Site, place: Place) -> Action:
    check_effect(effect, site)
    if isinstance(effect, Tokens):
        table = place(effect.embeddings)
        return InputAction(lambda: table)
    if isinstance(effect, PrefixKV):
        pair = place(effect.keys), place(effect.values)
        return InputAction.of_prefix(lambda: pair)
    return _AT_LAYERS[type(effect)](effect, site, place)


def _is_of_input(effect: Effect) -> bool:
    """Whether it scales the input, which at an embedding is numbers of tokens."""
    return isinstance(effect, Scale) and effect.side == "input"


def _low_rank(effect: LowRank, site: Site, place: Place) -> Action:
    return AddLowRank(place(effect.down), _times(effect.up, effect.scale * site.output_scale, place))


def _dense(effect: Dense, site: Site, place: Place) -> Action:
    if effect.parameter == "bias":
        return AddBias(place(effect.delta))
    return AddDense(_times(effect.delta, site.output_scale, place))


def _bias(effect: Bias, site: Site, place: Place) -> Action:  # noqa: ARG001 - as the others
    return AddBias(place(effect.vector))


def _rows(effect: Rows, site: Site, place: Place) -> Action:
    rows = _times(effect.rows, site.output_scale, place)
    index = effect.index.to(rows.device)
    return ReplaceRows(index, rows) if site.kind == "embedding" else ReplaceColumns(index, rows, _bias_of(site))


def _scale(effect: Scale, site: Site, place: Place) -> Action:
    if effect.side == "input":
        return ScaleInput(place(effect.vector), site.module)
    return ScaleOutput(place(effect.vector), None if effect.bias else _bias_of(site))


def _times(tensor: Tensor, scale: float, place: Place) -> Tensor:
    return place(tensor if scale == 1.0 else tensor.to(torch.promote_types(tensor.dtype, torch.float32)) * scale)


def _bias_of(site: Site) -> Tensor | None:
    bias: Tensor | None = getattr(site.module, "bias", None)
    return bias


_AT_LAYERS: dict[type, Callable[..., Action]] = {
    LowRank: _low_rank,
    Dense: _dense,
    Bias: _bias,
    Scale: _scale,
    Rows: _rows,
}
