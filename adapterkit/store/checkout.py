"""Writes a version as an adapter folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.artifact.layout import CARD
from adapterkit.artifact.replacing import check_apart, replacing
from adapterkit.errors import ArtifactError

if TYPE_CHECKING:
    import io
    from typing import BinaryIO

    from .pieces import StoredFiles
    from .values import StoredFile

__all__ = ["copy", "write"]

CHUNK = 1 << 20


def write(files: StoredFiles, folder: str | os.PathLike[str], store: Path) -> Path:
    """Write the files into a folder, all or nothing; see :meth:`Store.checkout`."""
    check_apart(folder, [store])
    try:
        with replacing(folder) as staging:
            for name, file in files.files.items():
                with files.open(name) as (stream, _), (staging / name).open("xb") as out:
                    copy(stream, out, file)
            if not (staging / CARD).exists():
                from adapterkit.artifact.writer import write_card  # it needs torch, which looking into a store does not

                write_card(staging)
    except (ArtifactError, OSError) as error:
        raise ArtifactError(f"{files} is not written to {str(folder)!r}: {error}") from error
    return Path(os.path.realpath(folder))


def copy(stream: io.RawIOBase, out: BinaryIO, file: StoredFile) -> None:
    """Copy a file out of the store.

    Raises:
        ArtifactError: It is not what was stored.
    """
    digest = hashlib.sha256()
    while data := stream.read(CHUNK):
        digest.update(data)
        out.write(data)
    if digest.hexdigest() != file.sha256:
        raise ArtifactError(f"{file.name} is damaged in the store: look with `adapterkit store verify`")
