"""``run.json``: what a run was, how far it came and what it took; reports are made of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
from typing import TYPE_CHECKING, Any

import torch

from adapterkit.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["RunRecord", "begin_measuring", "claimed", "device_name", "peak_memory"]

logger = logging.getLogger("adapterkit")

SCHEMA = 1


class RunRecord:
    """The record of one run, written anew whenever there is something new to say; nowhere for a run without a folder.

    Args:
        folder: The run's; None when nothing is written, or by another process.
        fixed: What is known before the first step.
    """

    def __init__(self, folder: Path | None, fixed: Mapping[str, Any]) -> None:
        self._path = folder / "run.json" if folder else None
        self.values: dict[str, Any] = {
            "schema": SCHEMA,
            **fixed,
            "started": _now(),
            "finished": None,
            "seconds": None,
            "tokens": 0,
            "peak_memory": None,
            "status": "running",
            "reason": None,
            "last_step": 0,
            "best_step": None,
            "adapter": None,
        }

    def update(self, **values: Any) -> None:
        """Note values, and write all."""
        self.values.update(values)
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_name(".run.json.new")
        beside.write_text(json.dumps(self.values, indent=1, ensure_ascii=False), encoding="utf-8")
        beside.replace(self._path)

    def end(self, status: str, reason: str | None = None, **values: Any) -> None:
        """The run is over, in one way or another."""
        self.update(status=status, reason=reason, finished=_now(), **values)

    @staticmethod
    def read(folder: Path) -> dict[str, Any] | None:
        """What an earlier run in this folder has left; None where there is nothing that can be read."""
        try:
            values = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) else None


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep every other run out of a folder within this block, and until this process ends in whatever way.

    Raises:
        TrainingError: Another run has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.name == "nt":  # where a folder cannot be locked
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"another run is writing into {str(folder)!r}: give this one a folder of its own"
            ) from None
        except OSError:  # a file system without locks
            logger.warning("%r cannot be locked: see to it that no other run writes there", str(folder))
        yield
    finally:
        os.close(handle)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def device_name(device: torch.device) -> str:
    """What the device is called by who made it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


def begin_measuring(device: torch.device) -> None:
    """Let the peak of an accelerator be this run's: what came before it in the process does not count."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that were in use: of the accelerator, or of the process where it computes on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if os.name == "nt":
        return None
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
