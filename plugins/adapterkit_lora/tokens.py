"""Trained tokens: some rows of an embedding, and of the head that shares its weight (PEFT's ``trainable_token_indices``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapterkit import ConfigError, Rows, Site

from .copies import copy_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TiedTokens", "TokensLayer"]


class TokensLayer(nn.Module):
    """The rows of some tokens, trained from where the base has them; at the head they make these tokens' logits.

    Raises:
        ConfigError: The site has no such rows.
    """

    def __init__(self, site: Site, index: Sequence[int]) -> None:
        super().__init__()
        self.site, self.index = site, tuple(index)
        self.token_adapter = _Rows(site, self.index)

    def rows(self) -> Tensor:
        """The trained rows, ``(n, features)``."""
        return self.token_adapter.trainable_tokens_delta

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``y`` moved by as much as the rows were; nothing at the start."""
        index = torch.tensor(self.index, device=y.device)
        change = self.rows() - _rows(self.site, self.index).detach().to(self.rows().dtype)
        if self.site.kind != "embedding":
            return y.index_add(-1, index, functional.linear(x, change.to(x.dtype)).to(y.dtype))
        hits = x[..., None] == index
        moved = functional.embedding(hits.int().argmax(dim=-1), change) * hits.any(dim=-1, keepdim=True)
        return y + (moved * self.site.output_scale).to(y.dtype)

    def lower(self) -> tuple[Rows, ...]:
        """The same as an effect."""
        return (Rows(torch.tensor(self.index), self.rows().detach()),)


class TiedTokens(TokensLayer):
    """At a head whose weight is the embedding's: the embedding's trained rows, which are saved there alone."""

    def __init__(self, site: Site, owner: TokensLayer) -> None:
        nn.Module.__init__(self)
        self.site, self.index = site, owner.index
        self._owner = (owner,)  # not registered: the rows are the owner's

    def rows(self) -> Tensor:
        """The owner's."""
        return self._owner[0].rows()


class _Rows(nn.Module):
    """Holds rows under the name that PEFT gives them on disk."""

    def __init__(self, site: Site, index: tuple[int, ...]) -> None:
        super().__init__()
        size = site.in_features if site.kind == "embedding" else site.out_features
        if not index or len(set(index)) < len(index) or min(index) < 0 or max(index) >= size or site.is_quantized:
            raise ConfigError(
                "options do not fit this base",
                [f"trainable_token_indices: {list(index)} are no rows of {site.name!r}, which has {size}"],
            )
        self.trainable_tokens_delta = nn.Parameter(copy_of(_rows(site, index)))


def _rows(site: Site, index: tuple[int, ...]) -> Tensor:
    """The base's rows of these tokens."""
    table: Tensor = site.module.weight  # type: ignore[assignment]
    return table[torch.tensor(index, device=table.device)]
