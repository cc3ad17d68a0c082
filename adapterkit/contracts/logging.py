"""Where the records of a run go besides its own log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .training import Run

__all__ = ["Logger", "Sink"]


class Sink(Protocol):
    """Takes the records of one run; what it raises is logged, and it is not called again."""

    def log(self, record: Mapping[str, Any]) -> None:
        """One record: ``step``, and numbers by name, as in ``log.jsonl``."""

    def close(self, status: str) -> None:
        """The run is over: ``"finished"``, ``"stopped early"``, ``"interrupted"`` or ``"failed"``. Called once."""


@attrs.frozen(eq=False, kw_only=True)
class Logger:
    """A place for the records of runs.

    Attributes:
        name: What users write in ``report_to=``.
        open: Begins a run there. Called before the first record, in the one process that writes. The ``log.jsonl`` in
            ``run.output`` holds what was logged in an earlier life of the run, up to where it goes on; otherwise it is empty.
        requires: The library that it needs, as it is imported; it is looked for before anything is trained.
        summary: One line for listings.
    """

    name: str
    open: Callable[[Run], Sink]
    requires: str = ""
    summary: str = ""
