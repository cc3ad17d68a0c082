"""What computes in the place of a model's own layers while every row has one token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn

from adapterkit.errors import SelectionError
from adapterkit.kernels import decoding
from adapterkit.kernels.fusing import norm_epsilon

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Now", "Projection", "attention_of", "gated_of", "norm_of", "paged_attention"]


@attrs.define(eq=False)
class Now:
    """What the parts of the step under way are given beside their input.

    Attributes:
        keys: For each layer, ``(pages, page_size, kv_heads, size)``.
        values: The same.
        table: Each row's pages, ``(rows, most pages)``.
        lengths: How many tokens each row has, the new one included, ``(rows,)``.
        most: No row has more tokens.
        weights: With which weight each row has each rank, ``(rows, most ranks)``.
        rank: How many of those ranks count; 0 where no row has an adapter.
        counters: The stream's.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    table: Tensor
    lengths: Tensor
    most: int
    weights: Tensor
    rank: int
    counters: decoding.Counters

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, turn: Any, scale: float) -> Tensor:
        """Keep what is new of keys and values, and ask all of them."""
        keys, values = self.keys[layer], self.values[layer]
        q = decoding.store(q, k, v, turn, keys, values, self.table, self.lengths)
        return decoding.attend(q, keys, values, self.table, self.lengths, scale, self.most, self.counters)


class Projection:
    """One to three linear layers that are given the same input, and what adapters add to each.

    Attributes:
        names: Their sites.
        widths: Their out_features.
        down: ``(sites, most ranks, in_features)``; None until an adapter acts here.
        up: ``(most ranks, all out_features)``; None as well.
    """

    def __init__(self, now: Now, layers: Mapping[str, nn.Module]) -> None:
        self.names, self._layers, self._now = tuple(layers), tuple(layers.values()), now
        self.widths = [int(one.out_features) for one in self._layers]  # type: ignore[arg-type]
        self.size = int(self._layers[0].in_features)  # type: ignore[arg-type]
        self.down: Tensor | None = None
        self.up: Tensor | None = None
        self._own = [one.forward for one in self._layers]
        self._weights: list[Tensor] = []
        self._bias: Tensor | None = None
        if all(map(_is_plain, self._layers)):
            self._weights = [one.weight for one in self._layers]  # type: ignore[misc]
            self._bias = _joined_bias([one.bias for one in self._layers], self._weights)

    def __call__(self, x: Tensor) -> Tensor:
        """``(rows, in_features)`` to ``(rows, all out_features)``."""
        now, low = self._now, None
        if len(x) != len(now.lengths):
            raise SelectionError(f"{self.names[0]!r} is given {len(x)} inputs for {len(now.lengths)} rows")
        if now.rank and self.down is not None:
            low = decoding.shrink(x, self.down, now.weights, now.rank, now.counters)
        if self._weights:
            return decoding.project(x, self._weights, self._bias, low, self.up, now.counters)
        y = torch.cat([own(x) for own in self._own], dim=1)  # quantized layers, which have code of their own
        if low is not None and self.up is not None:
            decoding.expand_(y, self.widths, low, self.up, now.counters)
        return y

    def forward(self, x: Tensor) -> Tensor:
        """The same, for an input of any shape with one token for each row: what a layer's ``forward`` is."""
        return self(x.reshape(-1, self.size)).view(*x.shape[:-1], sum(self.widths))


def _joined_bias(given: Sequence[Any], weights: Sequence[Tensor]) -> Tensor | None:
    if all(one is None for one in given):
        return None
    own = [weight.new_zeros(len(weight)) if one is None else one for one, weight in zip(given, weights, strict=True)]
    return torch.cat(own).detach()


def _is_plain(layer: nn.Module) -> bool:
    weight = layer._parameters.get("weight")  # noqa: SLF001
    return type(layer) is nn.Linear and weight is not None and weight.is_contiguous()


def attention_of(module: Any, now: Now, projection: Projection) -> Callable[..., Any]:
    """A Llama-like attention's ``forward``: one projection for queries, keys and values, and positions turned in one kernel."""

    def forward(hidden_states: Tensor, position_embeddings: Any = None, **_: Any) -> tuple[Tensor, None]:
        rows = len(hidden_states)
        q, k, v = torch.split(projection(hidden_states.reshape(-1, projection.size)), projection.widths, dim=1)
        cos, sin = (one.expand(rows, 1, -1).reshape(rows, -1) for one in position_embeddings)
        if cos.shape[1] != module.head_dim:
            raise SelectionError(f"{cos.shape[1]} of the {module.head_dim} numbers of a head are turned")
        out = now.attend(module.layer_idx, q, k, v, (cos, sin), module.scaling)
        return module.o_proj(out.view(rows, 1, -1)), None

    return forward


def norm_of(module: Any) -> Callable[[Tensor], Tensor]:
    """A norm's ``forward``."""

    def forward(hidden_states: Tensor) -> Tensor:
        return decoding.norm(hidden_states, module.weight, norm_epsilon(module))

    return forward


def gated_of(module: Any, projection: Projection) -> Callable[[Tensor], Tensor]:
    """A gated MLP's ``forward``: one projection for both halves."""

    def forward(x: Tensor) -> Tensor:
        out: Tensor = module.down_proj(
            decoding.gate(projection(x.reshape(-1, projection.size))).view(*x.shape[:-1], -1)
        )
        return out

    return forward


def paged_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """What transformers' attention layers call where no ``forward`` is replaced: ``(rows, heads, 1, size)`` each.

    Raises:
        SelectionError: The layer attends otherwise than to all tokens before it.
    """
    asked = {name: one for name, one in options.items() if name in UNKNOWN and one is not None}
    if asked or attention_mask is not None or query.shape[2] != 1:
        what = sorted(asked) or "a mask"
        raise SelectionError(f"{type(module).__name__} attends with {what}, for which there is no kernel")
    rows, heads, _, size = query.shape
    scale = options.get("scaling") or size**-0.5
    q, k, v = (one.reshape(rows, -1) for one in (query, key, value))
    return module.adapterkit_now.attend(module.layer_idx, q, k, v, None, scale).view(rows, 1, heads, size), None


UNKNOWN = {"sliding_window", "softcap", "s_aux", "sinks", "position_bias", "head_mask"}
"""What a layer may ask of attention that this one does not do."""
