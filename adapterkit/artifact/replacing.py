"""Replaces a folder as a whole: what is found is the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.errors import ArtifactError, SelectionError

from .layout import CARD, MANIFEST, PEFT_CONFIG, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["check_apart", "check_replaceable", "replacing"]

OURS = {CARD, MANIFEST, PEFT_CONFIG, WEIGHTS}


@contextlib.contextmanager
def replacing(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder beside ``folder``, which takes its place when the block ends well and vanishes when it does not.

    The new files are on the disk before the old folder is moved aside; between the two renames there is none, and if
    the second one fails, the first is undone.

    Raises:
        ArtifactError: ``folder`` exists and is neither empty nor an adapter's.
    """
    target = Path(os.path.realpath(folder))
    check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".adapterkit-{secrets.token_hex(8)}")
    staging.mkdir()
    try:
        yield staging
        for path in (*staging.iterdir(), staging):
            _sync(path)
        _swap(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _sync(target.parent)


def check_replaceable(target: Path) -> None:
    """Refuse to replace anything but an adapter's folder or an empty one.

    Raises:
        ArtifactError: It holds something else.
    """
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise ArtifactError("there is a file of this name; give a folder")
    held = {path.name for path in target.iterdir()}
    if held and not held & {MANIFEST, PEFT_CONFIG}:
        raise ArtifactError("it holds something that is no adapter; give an empty folder or a new name")
    if held - OURS:
        raise ArtifactError(f"it also holds {min(held - OURS)!r}, which would be lost; move it away or give a new name")


def check_apart(output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse to write over what is read.

    Args:
        output: Where something is to be written.
        inputs: What it is made of; what is no path here, such as a Hub id, is passed over.

    Raises:
        SelectionError: The output is one of the inputs, lies in one, or holds one.
    """
    mine = Path(os.path.realpath(output))
    for one in inputs:
        theirs = Path(os.path.realpath(one))
        if theirs.exists() and (mine == theirs or mine in theirs.parents or theirs in mine.parents):
            how = "is" if mine == theirs else "holds" if mine in theirs.parents else "lies in"
            raise SelectionError(f"the output {str(output)!r} {how} the input {str(one)!r}: give another folder")


def _swap(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    aside = staging.with_name(staging.name + "-old")
    target.rename(aside)
    try:
        staging.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
