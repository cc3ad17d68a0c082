"""Virtual tokens: positions of the sequence whose embeddings are an adapter's own.

A virtual token stands among the token ids as a number beyond the vocabulary: ``vocabulary + k`` is the k-th row of the
table that the plan in force holds. It is a position like any other: masks, caches, padding on either side, packing and
beams need to know nothing of it, and which row of a batch has which tokens is said by its ids alone.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from adapterkit.errors import SelectionError
from adapterkit.sites import INPUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

__all__ = ["InputAction", "virtual_count"]


@attrs.frozen(eq=False)
class InputAction:
    """Gives virtual tokens their embeddings.

    Attributes:
        table: Their embeddings, ``(n, hidden_size)``; asked for anew in each forward pass, since they may be in training.
    """

    table: Callable[[], Tensor]

    @classmethod
    def joined(cls, actions: Sequence[InputAction]) -> InputAction:
        """One table of several, in order."""
        tables = [action.table() for action in actions]
        whole = torch.cat([one.to(tables[0]) for one in tables])
        return cls(lambda: whole)

    def __call__(self, x: Any, y: Any) -> Any:  # noqa: ARG002 - what every action takes
        """Nothing: it acts before the first layer, through :meth:`place`."""
        return y

    def place(
        self, model: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The model's arguments with embeddings instead of ids.

        Raises:
            SelectionError: The ids hold no virtual token at the start of a sequence, so that the adapter would do nothing.
        """
        ids = inputs[0] if inputs else options.get("input_ids")
        if ids is None:
            raise SelectionError(
                "the adapter in use puts tokens before the sequence; it takes token ids, not embeddings"
            )
        embed: Any = model.get_input_embeddings()  # type: ignore[operator]
        known = embed.num_embeddings
        virtual = ids >= known
        if not _continues(options.get("past_key_values")) and not bool(virtual.any()):
            raise SelectionError(
                "the adapter in use puts tokens before the sequence, and these ids have no room for them: call base.logits or "
                "base.generate, which make it"
            )
        embeddings = embed(ids.masked_fill(virtual, 0))
        table = self.table().to(embeddings.dtype)
        own = table[(ids - known).clamp(0, len(table) - 1)]
        options = {**options, "input_ids": None, "inputs_embeds": torch.where(virtual[..., None], own, embeddings)}
        return (), _named(model, inputs, options)


def _named(model: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """The arguments that were given by position, by name: the first of them is gone."""
    names = list(inspect.signature(model.forward).parameters)
    return {**dict(zip(names[1:], inputs[1:], strict=False)), **options}


def _continues(cache: Any) -> bool:
    """Whether the sequence has begun before this forward pass."""
    return cache is not None and cache.get_seq_length() > 0


def virtual_count(plan: Mapping[str, Any] | None) -> int:
    """How many virtual tokens a plan for the whole batch puts before the sequence."""
    return len(plan[INPUT].table()) if plan and INPUT in plan else 0
