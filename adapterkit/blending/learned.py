"""What was learned, with what it is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.compose import Blend

__all__ = ["LearnedBlend"]


@attrs.frozen(kw_only=True)
class LearnedBlend:
    """A blend whose weights were found on examples.

    Attributes:
        blend: The adapters with these weights.
        weights: By the adapters' names.
        losses: The mean loss of the trained tokens of the held-out rows, in nats: of the ``"base"`` alone, of each adapter alone
            by its name, of the ``"uniform"`` blend, which the search began with, and of the ``"learned"`` one.
        rows: How many rows the weights were found on.
        held_out: How many rows the losses are of.
    """

    blend: Blend
    weights: Mapping[str, float]
    losses: Mapping[str, float]
    rows: int
    held_out: int

    def to_json(self) -> dict[str, Any]:
        """All but the adapters themselves."""
        return {"digest": self.blend.digest, **attrs.asdict(self, filter=lambda field, _: field.name != "blend")}
