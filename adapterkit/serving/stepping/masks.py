"""Which positions a token sees, for bases whose layers look everywhere or through a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.errors import SelectionError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Masks"]

FULL, WINDOW = "full_attention", "sliding_attention"


@attrs.frozen
class Masks:
    """What a base takes as its mask.

    Attributes:
        kinds: The kinds of layers that it has.
        window: How many positions a layer with a window sees, its own among them.
    """

    kinds: tuple[str, ...] = (FULL,)
    window: int | None = None

    @classmethod
    def of(cls, config: Any) -> Masks:
        """Of a model's configuration.

        Raises:
            SelectionError: Some of its layers keep something else than keys and values.
        """
        text = config.get_text_config()
        kinds = tuple(dict.fromkeys(getattr(text, "layer_types", None) or ()))
        window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
        if not kinds:
            return cls((WINDOW,) if window else (FULL,), window)
        strange = [kind for kind in kinds if kind not in (FULL, WINDOW)]
        if strange:
            raise SelectionError(
                f"this base has layers of the kind {strange[0]!r}, which the engine does not serve yet"
            )
        return cls(kinds, window)

    def make(self, starts: Tensor, width: int, length: int) -> Tensor | dict[str, Tensor]:
        """The mask of one step, true where a token sees a position: ``(rows, 1, width, length)``, or one for each kind of layer.

        Args:
            starts: ``(rows,)``, the position of each row's first token.
            width: Tokens of each row.
            length: Positions that are looked at.
        """
        own = starts[:, None, None, None] + torch.arange(width, device=starts.device)[:, None]
        other = torch.arange(length, device=starts.device)
        seen = other <= own
        near = seen if self.window is None else seen & (other > own - self.window)
        masks = {FULL: seen, WINDOW: near}
        return {kind: masks[kind] for kind in self.kinds} if len(self.kinds) > 1 else masks[self.kinds[0]]
