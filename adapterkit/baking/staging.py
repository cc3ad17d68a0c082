"""The folder that a model is written into until it is complete, and what a bake that was killed has left of one."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.artifact.replacing import lock, replacing
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
        with replacing(target) as staging:
            (staging / REPORT).write_text("{}\n", encoding="utf-8")  # whose folder it is, should it be left over
            yield staging
    except AdapterkitError:
        raise
    except OSError as error:
        raise ArtifactError(f"{str(target)!r} cannot be written: {error.strerror or error}") from error


def _clear(parent: Path) -> None:
    for folder in parent.glob(".adapterkit-*"):
        held = lock(folder) if (folder / REPORT).is_file() else None
        if held is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)
