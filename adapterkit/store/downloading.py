"""Folders for what is fetched: whoever was cut off gets the same one again, and nobody else meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from typing import TYPE_CHECKING

from adapterkit.errors import RemoteError, StoreError

from .blobs import hold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["downloading"]


@contextlib.contextmanager
def downloading(downloads: Path, what: str) -> Iterator[Path]:
    """A folder in ``downloads``; see :meth:`Store.downloading`."""
    usual = downloads / hashlib.sha256(what.encode()).hexdigest()[:32]
    folder, held = _taken(downloads, usual)
    keep = False
    try:
        yield folder
    except (RemoteError, KeyboardInterrupt):
        keep = folder == usual  # what has arrived is kept: the next call goes on from there
        raise
    finally:
        if keep:
            with contextlib.suppress(OSError):
                os.utime(folder)  # its grace begins
        else:
            shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def _taken(downloads: Path, usual: Path) -> tuple[Path, int | None]:
    """The usual folder; one of its own where another holds that, or where folders cannot be locked, as on Windows."""
    own = usual.with_name(secrets.token_hex(16))
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        for folder in (usual, own):
            if link := next((one for one in (downloads, folder) if one.is_symlink()), None):
                raise StoreError(
                    f"{str(link)!r} is a link, which would lead strangers' files out of the store: remove it"
                )
            folder.mkdir(exist_ok=True)
            held = hold(folder)
            if held is not None:
                _clear_links(folder)
                break
    except OSError as error:
        raise StoreError(f"the store {str(downloads.parent)!r} cannot be written: {error}") from error
    return folder, held


def _clear_links(folder: Path) -> None:
    """Begin anew where a link lies among what has arrived: nothing that is fetched is one."""
    if not any(path.is_symlink() for path in folder.rglob("*")):
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
