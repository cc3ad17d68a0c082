"""From logits to a token, for one row by itself."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import torch

from adapterkit.errors import AdapterkitError, EngineError
from adapterkit.generation import processors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from adapterkit.serving.asking import AskOptions

    from .constraints import Constraint

__all__ = ["Chooser", "alternatives", "choose"]


class Chooser:
    """Which token a request takes: the likeliest, or one by luck of its own."""

    def __init__(self, options: AskOptions, device: torch.device, constraint: Constraint | None = None) -> None:
        seed = options.seed if options.seed is not None else secrets.randbits(62)
        self._processors = processors(options, seed=seed, rows=(0,), device=device)
        self._constraint = constraint
        self.is_greedy = not self._processors and constraint is None

    def __call__(self, logits: Tensor) -> int:
        """The token, of ``logits`` ``(vocabulary,)``."""
        scores = (logits if self._constraint is None else self._constraint(logits))[None]
        token = int((self._processors(None, scores) if self._processors else scores).argmax())
        if self._constraint is not None:
            self._constraint.took(token)
        return token


def choose(logits: Tensor, choosers: Sequence[Chooser]) -> list[int | AdapterkitError]:
    """The next token of each row of ``logits`` ``(rows, vocabulary)``; an error for a row that cannot have one."""
    sound = torch.isfinite(logits.amax(dim=-1)).tolist()  # a NaN anywhere is the maximum
    likeliest = logits.argmax(dim=-1).tolist()
    return [
        EngineError("the adapter's numbers are too large for this base: what it answers is no number")
        if not fine
        else (token if chooser.is_greedy else _chosen(chooser, row))
        for fine, token, chooser, row in zip(sound, likeliest, choosers, logits, strict=True)
    ]


def _chosen(chooser: Chooser, row: Tensor) -> int | AdapterkitError:
    try:
        return chooser(row)
    except AdapterkitError as error:  # no token may come next
        return error


def alternatives(logits: Tensor, token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """The log-probability of a token, and the ``count`` likeliest with theirs, of ``logits`` ``(vocabulary,)``."""
    logprobs = logits.log_softmax(dim=-1)
    top = logprobs.topk(min(count, len(logprobs)))
    return float(logprobs[token]), list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
