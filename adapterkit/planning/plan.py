"""What a run will take, before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .advice import Advice
    from .devices import Device
    from .memory import Memory

__all__ = ["Estimate", "Plan", "Rows"]


@attrs.frozen(kw_only=True)
class Rows:
    """The rows of a run.

    Attributes:
        rows: How many.
        tokens: Of all of them, as they are trained: no longer than ``max_length``.
        trained: How many tokens count in the loss.
        longest: Tokens of the longest row.
        counted: Whether they were counted with the base's tokenizer; otherwise every row has ``longest`` tokens, all trained.
    """

    rows: int
    tokens: int
    trained: int
    longest: int
    counted: bool = False

    @property
    def mean(self) -> int:
        """Tokens of a row in the middle."""
        return max(2, round(self.tokens / self.rows))


@attrs.frozen(kw_only=True)
class Estimate:
    """What training with one method will take. Bytes, seconds and dollars are estimates.

    Attributes:
        method: The method.
        reason: Why it cannot be done at all; empty where it can, and then all else is there.
        options: What to give to ``train`` besides what was asked for, so that it fits and is as fast as it can be.
        memory: What the device holds when it holds the most.
        fits: Whether the device has so much.
        parameters: How many numbers are trained.
        rank: Of a low-rank method; else None.
        tokens_per_second: In training; None for a device of which nothing is known but its memory.
        seconds: For all epochs.
        cost: For so long, in US dollars.
        largest_batch: Rows that fit into one forward pass, with these options.
        longest_context: Tokens of a single row that fit, with what saves most memory.
    """

    method: str
    reason: str = ""
    options: Mapping[str, Any] = attrs.field(factory=dict)
    memory: Memory | None = None
    fits: bool = False
    parameters: int = 0
    rank: int | None = None
    tokens_per_second: float | None = None
    seconds: float | None = None
    cost: float | None = None
    largest_batch: int | None = None
    longest_context: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        memory = self.memory
        parts = (
            None if memory is None else {**attrs.asdict(memory), "allocated": memory.allocated, "total": memory.total}
        )
        return {**attrs.asdict(self, filter=attrs.filters.exclude("memory")), "memory": parts}


@attrs.frozen(kw_only=True)
class Plan:
    """What a run will take with each of several methods: a mapping of :class:`Estimate` by method's name.

    Attributes:
        base: The base's name.
        parameters: How many numbers the base has.
        device: What it would run on.
        price: US dollars an hour; None where none is known.
        rows: The rows; None where neither data nor a number was given.
        batch_size: Rows of a batch.
        length: Tokens of the longest row, for which memory is planned.
        method: The method that was asked for.
        estimates: What each takes.
        advice: What to do, where a goal was given.
    """

    base: str
    parameters: int
    device: Device
    price: float | None
    rows: Rows | None
    batch_size: int
    length: int
    method: str
    estimates: Mapping[str, Estimate]
    advice: Advice | None = None

    def __getitem__(self, method: str) -> Estimate:
        """Raises: UnknownNameError: It was not planned for."""
        if method not in self.estimates:
            raise UnknownNameError(
                "estimate for method", method, self.estimates, "methods=(…) names what is planned for."
            )
        return self.estimates[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self.estimates)

    @property
    def asked(self) -> Estimate:
        """The estimate for the method that was asked for."""
        return self[self.method]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "base": self.base,
            "parameters": self.parameters,
            "device": attrs.asdict(self.device),
            "price_per_hour": self.price,
            "rows": None if self.rows is None else attrs.asdict(self.rows),
            "batch_size": self.batch_size,
            "length": self.length,
            "method": self.method,
            "estimates": {name: one.to_json() for name, one in self.estimates.items()},
            "advice": None if self.advice is None else self.advice.to_json(),
        }

    def __str__(self) -> str:
        from .showing import as_text

        return as_text(self)
