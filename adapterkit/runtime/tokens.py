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

__all__ = ["InputAction", "prefix_count", "virtual_count"]


@attrs.frozen(eq=False)
class InputAction:
    """Gives virtual tokens what stands for them: embeddings, or the keys and values of a prefix.

    Both are asked for anew in each forward pass, since they may be in training.

    Attributes:
        table: Embeddings, ``(n, hidden_size)``; n may be 0.
        prefix: Given the number of sequences, keys and values, ``(layers, sequences, heads, prefix_length, head_dim)``.
        prefix_length: How many positions at the start of the ids are the prefix's.
        rows: For each row, how long its own prefix is and which numbers of the table are its own; empty where all are every row's.
    """

    table: Callable[[], Tensor]
    prefix: Callable[[int], tuple[Tensor, Tensor]] | None = None
    prefix_length: int = 0
    rows: tuple[tuple[int, range], ...] = ()

    @classmethod
    def of(cls, layer: Any) -> InputAction:
        """What a layer at the input does: it has ``tokens()``, or ``prefix()``, as the effects are."""
        if not hasattr(layer, "prefix"):
            return cls(layer.tokens)
        return cls.of_prefix(layer.prefix)

    @classmethod
    def of_prefix(cls, prefix: Callable[[], tuple[Tensor, Tensor]]) -> InputAction:
        """The same prefix for every sequence."""

        def spread(count: int) -> tuple[Tensor, Tensor]:
            keys, values = (one[:, None].expand(-1, count, -1, -1, -1) for one in prefix())
            return keys, values

        return cls(lambda: torch.empty(0, 0), spread, prefix()[0].shape[2])

    def __call__(self, x: Any, y: Any) -> Any:  # noqa: ARG002 - what every action takes
        """Nothing: it acts before the first layer, through :meth:`place`."""
        return y

    def place(
        self, model: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The model's arguments with embeddings instead of ids, and the prefix in the cache.

        Raises:
            SelectionError: A sequence begins without its virtual tokens, so that the adapter would do nothing there, or with
                others than its own; or the model wants the ids themselves.
        """
        ids = inputs[0] if inputs else options.get("input_ids")
        if ids is None:
            raise SelectionError(
                "the adapter in use puts tokens before the sequence; it takes token ids, not embeddings"
            )
        embed: Any = model.get_input_embeddings()  # type: ignore[operator]
        known = embed.num_embeddings
        options = _named(model, inputs, options)
        if not _continues(options.get("past_key_values")):
            _check_model(model)
            _check_room(ids, known, self.rows or ((self.prefix_length, range(len(self.table()))),))
            if self.prefix is not None:
                ids, options = _after_prefix(self.prefix(len(ids)), ids, options, embed.weight.dtype)
        virtual = ids >= known
        embeddings = embed(ids.masked_fill(virtual, 0))
        table = self.table().to(embeddings.dtype)
        if len(table):
            own = table[(ids - known).clamp_min(0)]
            embeddings = torch.where(virtual[..., None], own, embeddings)
        return (), {**options, "input_ids": None, "inputs_embeds": embeddings}


def _check_model(model: Any) -> None:
    """Refuse a model that looks tokens up once more behind its embeddings, as Gemma 3n does: it would leave that out."""
    config = model.config.get_text_config() if hasattr(model, "config") else None
    if getattr(config, "hidden_size_per_layer_input", None):
        raise SelectionError(
            "the adapter in use puts tokens before the sequence, and this model needs the ids themselves in every layer: it "
            "cannot have virtual tokens"
        )


def _check_room(ids: Tensor, known: int, rows: Sequence[tuple[int, range]]) -> None:
    """Refuse ids in which a row lacks virtual tokens of its own, has a part of them, or has others.

    A sequence may hold several packed rows, each behind tokens of its own, so that these may stand anywhere; a prefix may not.
    """
    if len(ids) % len(rows):
        raise SelectionError(
            f"{len(rows)} adapters for {len(ids)} rows: give one for each row, or a single one for all"
        )
    longest = max(prefix for prefix, _ in rows)
    sizes = torch.tensor([[longest - prefix, own.start, own.stop] for prefix, own in rows], device=ids.device)
    start, first, end = sizes.repeat_interleave(len(ids) // len(rows), 0).T[..., None]
    prefix, number = ids[:, :longest] >= known, ids[:, longest:] - known
    before, after = (torch.nn.functional.pad(number, pad, value=-1) for pad in ((1, -1), (-1, 1)))
    lacks = ((first < end) & (number != first).all(-1, keepdim=True)).any()
    whole = ((number == first) | (before == number - 1)) & ((number == end - 1) | (after == number + 1))
    strange = ((number >= 0) & ~((first <= number) & (number < end) & whole)).any()
    places = torch.arange(prefix.shape[1], device=ids.device)
    if prefix.shape[1] < longest or bool(lacks | (prefix != (places >= start)).any()):
        raise SelectionError(
            "the adapter in use puts tokens before the sequence, and these ids have no room for them: call base.logits or "
            "base.generate, which make it"
        )
    if bool(strange):
        raise SelectionError(
            "these ids hold virtual tokens that are not those of the row's own adapter, one after another: call base.logits or "
            "base.generate, which put them there"
        )


def _after_prefix(
    prefix: tuple[Tensor, Tensor], ids: Tensor, options: dict[str, Any], dtype: torch.dtype
) -> tuple[Tensor, dict[str, Any]]:
    """Ids and arguments without the positions of the prefix, which is in the cache instead."""
    from transformers import DynamicCache

    cache = options.get("past_key_values")
    cache = DynamicCache() if cache is None else cache
    for layer, (keys, values) in enumerate(zip(*prefix, strict=True)):
        cache.update(keys.contiguous().to(dtype), values.contiguous().to(dtype), layer)
    length = prefix[0].shape[3]
    shorter = {
        name: options[name][..., length:]
        for name in ("position_ids", "cache_position")
        if options.get(name) is not None
    }
    if not shorter:
        shorter = {"position_ids": torch.arange(length, ids.shape[1], device=ids.device)[None]}
    return ids[:, length:], {**options, **shorter, "past_key_values": cache}


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


def prefix_count(plan: Mapping[str, Any] | None) -> int:
    """How many positions of keys and values a plan puts before the sequence."""
    return int(plan[INPUT].prefix_length) if plan and INPUT in plan else 0
