"""Replaces a folder as a whole: what is found is the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.errors import ArtifactError, SelectionError

from .layout import MANIFEST, OURS, PEFT_CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["check_apart", "check_replaceable", "lock", "replacing", "sync"]

HIDDEN = ".adapterkit-"
OLD = "-old"
"""The end of the name of a folder that was moved aside."""
A_MOMENT = 60
"""Seconds in which a writer has surely taken hold of the folder that it made."""


@contextlib.contextmanager
def replacing(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder beside ``folder``, which takes its place when the block ends well and vanishes when it does not.

    The new files are on the disk before the old folder is moved aside; between the two renames there is none, and if
    the second one fails, the first is undone. What writers of ``folder`` that were killed have left beside it is cleared
    away first, and where one died between the renames, the old folder is put back.

    Raises:
        ArtifactError: ``folder`` exists and is neither empty nor an adapter's.
    """
    target = Path(os.path.realpath(folder))
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{HIDDEN}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"
    staging = target.with_name(prefix + secrets.token_hex(8))
    _clear_up(target, prefix)
    check_replaceable(target)
    staging.mkdir()
    held = lock(staging, wait=True)  # until this writer ends, in any way
    try:
        yield staging
        for path in (*staging.iterdir(), staging):
            sync(path)
        _swap(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        if held is not None:
            os.close(held)
    sync(target.parent)


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
    if held - set(OURS):
        raise ArtifactError(
            f"it also holds {min(held - set(OURS))!r}, which would be lost; move it away or give a new name"
        )


def check_apart(output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse to write over what is read.

    Args:
        output: Where something is to be written.
        inputs: What it is made of; what is no path here, such as a Hub id, is passed over.

    Raises:
        SelectionError: The output is one of the inputs, lies in one, or holds one; or it is no path.
    """
    try:
        mine = Path(os.path.realpath(output))
    except ValueError as error:
        raise SelectionError(f"the output {str(output)!r} is no path: {error}") from None
    for one in inputs:
        if not os.path.exists(one):  # noqa: PTH110 - it raises nothing, whatever is no path
            continue
        theirs = Path(os.path.realpath(one))
        if mine == theirs or mine in theirs.parents or theirs in mine.parents:
            how = "is" if mine == theirs else "holds" if mine in theirs.parents else "lies in"
            raise SelectionError(f"the output {str(output)!r} {how} the input {str(one)!r}: give another folder")


def lock(folder: Path, *, wait: bool = False) -> int | None:
    """Hold a folder until what is returned is closed, or this process ends in any way.

    Args:
        folder: What to hold.
        wait: Whether to wait for another holder.

    Returns:
        A descriptor; None where another holds it, and where folders cannot be locked, as on Windows.
    """
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _clear_up(target: Path, prefix: str) -> None:
    """Put back an old folder whose writer died before the new one took its place, and remove what dead writers have left."""
    found = sorted(target.parent.glob(f"{prefix}*"))
    left = [folder for folder in found if _is_left(folder.with_name(folder.name.removesuffix(OLD)))]
    for folder in left:
        if folder.name.endswith(OLD) and not os.path.lexists(target):
            with contextlib.suppress(FileNotFoundError):  # another one put it back
                folder.rename(target)
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)


def _is_left(staging: Path) -> bool:
    """Whether nobody writes there any more; an empty folder may have been made just now, and not be held yet."""
    try:
        if not any(staging.iterdir()) and time.time() - staging.stat().st_mtime < A_MOMENT:
            return False
    except FileNotFoundError:
        return True
    held = lock(staging)
    if held is not None:
        os.close(held)
    return held is not None


def _swap(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    aside = staging.with_name(staging.name + OLD)
    target.rename(aside)
    try:
        staging.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    with contextlib.suppress(OSError):
        aside.rename(staging)  # from now on it is no old folder that could be put back: half of it may be left over
        shutil.rmtree(staging, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until what a file or a folder holds is on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
