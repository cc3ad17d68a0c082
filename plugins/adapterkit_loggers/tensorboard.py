"""Records as event files of TensorBoard."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from adapterkit import Run

__all__ = ["TensorBoard"]

FLUSH_SECONDS = 10
"""How long a record may wait before it can be looked at."""


class TensorBoard:
    """Writes into ``tensorboard`` in the run's folder; without one, into a new folder in ``runs``.

    Whatever a folder holds of steps that the run does not keep, be it of a run that was begun anew or of what came after the
    last checkpoint, is purged: TensorBoard leaves it out from here on, and shows no step twice.
    """

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._step = _last_step(run.output)
        self._writer: Any = SummaryWriter(
            run.output / "tensorboard" if run.output else None,
            comment=f"_{run.name or run.method}",
            purge_step=self._step + 1,
            flush_secs=FLUSH_SECONDS,
        )

    def log(self, record: Mapping[str, Any]) -> None:
        """Every number under the name that it has in ``log.jsonl``."""
        self._step = record["step"]
        for name, value in record.items():
            if name != "step":
                self._writer.add_scalar(name, value, self._step)

    def close(self, status: str) -> None:
        """Say how the run ended, and bring everything to the disk."""
        self._writer.add_text("status", status, self._step)
        self._writer.close()


def _last_step(output: Path | None) -> int:
    """The last step that the run's log has kept; -1 when the run begins."""
    log = output / "log.jsonl" if output else None
    lines = log.read_text(encoding="utf-8").splitlines() if log and log.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else -1
