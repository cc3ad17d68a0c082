"""A second model over the very same weights, whose parts compute one token of every row."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

from adapterkit.kernels.fusing import Trial, is_gated, is_norm

from .parts import Projection, attention_of, gated_of, norm_of, paged_attention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from .parts import Now

__all__ = ["Twin"]

ATTENTION = "adapterkit_paged_decode"
"""The name by which transformers' attention layers find :func:`paged_attention`."""


class Twin:
    """A copy of a model's structure; parameters, buffers and hooks are the model's own, and the model is not touched.

    What may be computed by kernels is tried first: :meth:`settle` says that the trials are over. Where a kernel's answer is not
    the layer's, the layer's own code stays.

    Args:
        model: A transformers model.
        sites: Names of its linear layers.
        now: What its parts are given.
    """

    def __init__(self, model: Any, sites: Iterable[str], now: Now) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(ATTENTION, paged_attention)
        shared = {id(one): one for one in (*model.parameters(), *model.buffers())}
        self.model = copy.deepcopy(model, shared)
        self.model.config._attn_implementation = ATTENTION  # noqa: SLF001 - transformers' name for it
        self._now, self._sites = now, tuple(sites)
        self._trials: dict[type, Trial] = {}
        self._tried: list[tuple[Any, Callable[..., Any], Projection | None]] = []
        for name, module in self.model.named_modules():
            if hasattr(module, "layer_idx"):
                module.adapterkit_now = now
            self._try(name, module)

    def __call__(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Logits ``(rows, vocabulary)`` for one token of each row, ids and positions ``(rows,)``."""
        out: Tensor = self.model(input_ids=ids[:, None], position_ids=positions[:, None], use_cache=False).logits
        return out[:, -1]

    def settle(self) -> tuple[Projection, ...]:
        """Use every kernel that has passed its trial, from now on; the projections that there are."""
        fused: list[Projection] = []
        for module, kernel, projection in self._tried:
            del module.forward
            if self._trials[type(module)].passed:
                module.forward = kernel
                fused += [projection] if projection is not None else []
        done = {name for one in fused for name in one.names}
        for name in self._sites:
            if name not in done:
                layer = self.model.get_submodule(name)
                fused.append(Projection(self._now, {name: layer}))
                layer.forward = fused[-1].forward
        return tuple(fused)

    def _try(self, name: str, module: Any) -> None:
        projection: Projection | None = None
        kernel: Callable[..., Any] | None = None
        if is_norm(module):
            kernel = norm_of(module)
        elif self._are_sites(name, "gate_proj", "up_proj") and is_gated(module):
            projection = self._together(name, module, "gate_proj", "up_proj")
            kernel = gated_of(module, projection)
        elif self._are_sites(name, "q_proj", "k_proj", "v_proj", "o_proj") and hasattr(module, "layer_idx"):
            projection = self._together(name, module, "q_proj", "k_proj", "v_proj")
            kernel = attention_of(module, self._now, projection)
        if kernel is not None:
            trial = self._trials.setdefault(type(module), Trial(type(module).__name__))
            self._tried.append((module, kernel, projection))
            module.forward = _trying(module.forward, kernel, trial)

    def _are_sites(self, name: str, *layers: str) -> bool:
        return all(f"{name}.{layer}" in self._sites for layer in layers)

    def _together(self, name: str, module: Any, *layers: str) -> Projection:
        return Projection(self._now, {f"{name}.{layer}": getattr(module, layer) for layer in layers})


def _trying(own: Callable[..., Any], kernel: Callable[..., Any], trial: Trial) -> Callable[..., Any]:
    @functools.wraps(own)
    def forward(*given: Any, **named: Any) -> Any:
        if trial.passed is not False:
            trial.passed = None
            trial.passes(lambda: _first(own(*given, **named)), lambda: _first(kernel(*given, **named)))
        return own(*given, **named)  # last: whatever keys the kernel has kept are replaced

    return forward


def _first(out: Any) -> Any:
    return out[0] if isinstance(out, tuple) else out
