"""The loss of rows that nothing is learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional

from adapterkit.data.batching import in_passes
from adapterkit.data.lengths import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from adapterkit.contracts import Example, Forward, Loss

    Collate = Callable[[Sequence[Example]], Mapping[str, torch.Tensor]]

__all__ = ["Shared", "mean_loss", "passes", "row_losses"]


class Shared(Protocol):
    """The processes that share a measurement."""

    def part(self, passes: list[list[int]]) -> Iterator[tuple[list[int], bool]]:
        """This process's part of passes, and whether each counts."""

    def meet(self, first: float, second: float) -> tuple[float, float]:
        """The sums of what each process brings along."""


@torch.no_grad()
def mean_loss(
    loss_of: Callable[[Any], Loss],
    examples: Sequence[Example],
    batch_size: int,
    collate: Collate,
    most_tokens: int | None = None,
    shared: Shared | None = None,
) -> float:
    """The mean loss of the trained tokens of ``examples``, in passes of ``batch_size`` rows and at most ``most_tokens`` tokens.

    Processes that are ``shared`` with each make a part of the passes.
    """
    total, count = 0.0, 0.0  # rows may have weights
    work = list(passes([len(one.input_ids) for one in examples], batch_size, most_tokens))
    for rows, counts in ((one, True) for one in work) if shared is None else shared.part(work):
        loss = loss_of(collate([examples[row] for row in rows]))
        if counts:
            total, count = total + float(loss.total), count + float(loss.tokens)
    if shared is not None:
        total, count = shared.meet(total, count)
    return total / count


@torch.no_grad()
def row_losses(
    forward: Forward,
    examples: Sequence[Example],
    batch_size: int,
    collate: Collate,
    most_tokens: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """For each row the summed cross-entropy of its trained tokens, each of which counts once, whatever its weight in training.

    Args:
        forward: The base with the adapter in force.
        examples: The rows.
        batch_size: Rows in one pass.
        collate: Pads the rows of a pass.
        most_tokens: Tokens in one pass.
        progress: Called with the number of rows of each pass that is done.
    """
    losses = [0.0] * len(examples)
    for rows in passes([len(one.input_ids) for one in examples], batch_size, most_tokens):
        batch = collate([examples[row] for row in rows])
        labels = functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
        positions = labels != IGNORED
        of_tokens = forward.token_losses(batch, positions, labels[positions])
        place = torch.arange(len(rows), device=labels.device)[:, None].expand_as(labels)[positions]
        sums = torch.zeros(len(rows), dtype=torch.float64, device=labels.device).index_add(0, place, of_tokens.double())
        for row, loss in zip(rows, sums.tolist(), strict=True):
            losses[row] = loss
        progress(len(rows))
    return losses


def passes(lengths: Sequence[int], batch_size: int, most_tokens: int | None = None) -> Iterator[list[int]]:
    """Rows of like length together: at most ``batch_size`` of them, and ``most_tokens`` tokens; a longer row goes alone."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        yield from in_passes(order[start : start + batch_size], lengths, most_tokens)
