"""Who waits for adapters: what a request needs at once is given room at once, in the order in which it was asked for."""

from __future__ import annotations

import time

import attrs

__all__ = ["PATIENCE", "Claim"]

PATIENCE = 1.0
"""Seconds for which room is kept for a request that does not come back, as it may have been given up."""


@attrs.define(eq=False)
class Claim:
    """Adapters that are wanted together.

    Attributes:
        digests: Which ones.
        is_firm: Whether a request waits for them: it keeps its place in the order, and what was loaded for it stays until it is
            taken. What is only fetched ahead has neither.
        is_granted: Whether there is room for all of them, or they are there.
        asked: When they were last asked for, or one of them came.
    """

    digests: tuple[str, ...]
    is_firm: bool = True
    is_granted: bool = False
    asked: float = attrs.field(factory=time.monotonic)

    def renew(self) -> None:
        """Have its patience begin anew."""
        self.asked = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether nobody has come for too long."""
        return time.monotonic() - self.asked > PATIENCE
