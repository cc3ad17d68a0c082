"""The folder that a model is written into until it is complete, and what a bake that was killed has left of one."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.artifact.replacing import replacing
from adapterkit.errors import AdapterkitError, ArtifactError, SelectionError

from .report import REPORT

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_target", "staged"]

SPARE = 1 << 24
"""For configuration, tokenizer and card."""


def check_target(target: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        SelectionError: It does.
    """
    if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
        raise SelectionError(f"{str(target)!r} is not empty: a model is written into a new folder")


@contextlib.contextmanager
def staged(target: Path, size: int) -> Iterator[Path]:
    """A folder that becomes ``target`` when the block ends well, and vanishes when it does not.

    What bakes that were killed have left beside ``target`` is cleared away first: a folder whose writer is alive is locked.

    Args:
        target: The new folder.
        size: How many bytes will be written.

    Raises:
        ArtifactError: The disk is too full, or cannot be written to.
    """
    parent = Path(os.path.realpath(target)).parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _clear(parent)
        free = shutil.disk_usage(parent).free
        if free < size + SPARE:
            raise ArtifactError(
                f"{str(target)!r} cannot be written: the model takes {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there"
            )
        # the lock is held until the folder has its name
        with contextlib.ExitStack() as held, replacing(target) as staging:
            lock = _lock(staging)
            if lock is not None:
                held.callback(os.close, lock)
            (staging / REPORT).write_text("{}\n", encoding="utf-8")  # whose folder it is, should it be left over
            yield staging
    except AdapterkitError:
        raise
    except OSError as error:
        raise ArtifactError(f"{str(target)!r} cannot be written: {error.strerror or error}") from error


def _clear(parent: Path) -> None:
    for folder in parent.glob(".adapterkit-*"):
        lock = _lock(folder) if (folder / REPORT).is_file() else None
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Hold a folder until what is returned is closed, or this process ends in any way.

    None where another process holds it; and where folders cannot be locked, as on Windows, where nothing is cleared away.
    """
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
