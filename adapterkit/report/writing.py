"""Writes a page whole or not at all: who opens it finds the old one or the new one."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from adapterkit.errors import RunError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_page"]

OURS = '<meta name="generator" content="adapterkit'
HEAD = 2_000
"""Where the mark of a page of ours is found, in characters."""


def write_page(path: Path, text: str) -> Path:
    """Put ``text`` in the place of what is at ``path``.

    Raises:
        RunError: The disk refuses it, or a file is there that no report was written to; it is as it was.
    """
    if path.is_dir():
        raise RunError(f"{str(path)!r} is a folder; give the name of a file, such as {str(path / 'report.html')!r}")
    staging = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        _check_ours(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with staging.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    except OSError as error:
        raise RunError(f"the report is not written to {str(path)!r}: {error.strerror}") from error
    finally:
        staging.unlink(missing_ok=True)
    return path


def _check_ours(path: Path) -> None:
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        head = file.read(HEAD)
    if head and OURS not in head:
        raise RunError(f"{str(path)!r} is no report of adapterkit and would be lost; give another name")
