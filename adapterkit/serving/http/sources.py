"""Where adapters may be added from over HTTP: what the operator has allowed, and nothing else."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.compose import blended_folders
from adapterkit.errors import ConfigError
from adapterkit.publishing.address import is_address, parse_address
from adapterkit.store import is_reference

from .errors import RefusalError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from adapterkit.store import Store

__all__ = ["allowed", "check_patterns"]

MOST = 1000
HINT = "the operator allows sources with --allow-source"


def check_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns, with folders as the file system knows them.

    Raises:
        ConfigError: One is neither a folder that is there nor an address.
    """
    kept, problems = [], []
    for pattern in patterns:
        if is_address(pattern):
            kept.append(pattern)
        elif Path(pattern).is_dir():
            kept.append(os.path.realpath(pattern))
        else:
            problems.append(f"{pattern!r:.200} is neither a folder nor an address such as hf://org/*")
    if problems:
        raise ConfigError("allow_sources do not fit", problems)
    return tuple(kept)


def allowed(source: str, patterns: Iterable[str], store: Store | None) -> str:
    """A source that may be read, as it is to be read: a path comes back without links.

    Args:
        source: A folder or a blend's file, by its absolute path; an address; or a reference of the store.
        patterns: What :func:`check_patterns` gave.
        store: The engine's store.

    Raises:
        RefusalError: It is not allowed. Whether anything is there is not said.
    """
    if len(source) > MOST or not source.isprintable():
        raise RefusalError(
            400, f"source does not fit: one line of at most {MOST:,} characters is taken", param="source"
        )
    if is_address(source):
        return _address(source, patterns)
    if is_reference(source):
        if store is None or source not in store or os.path.lexists(source):
            raise _refused(f"{source!r} is not in the server's store")
        return source
    if not os.path.isabs(source):  # noqa: PTH117 - the same rule for what is no path at all
        raise _refused(f"{source!r} is no absolute path, address or reference of the store")
    path = os.path.realpath(source)
    folders = [one for one in patterns if not is_address(one)]
    if not _within(path, folders):
        raise _refused(f"{source!r} is not in a folder that is allowed; {HINT}")
    if os.path.isfile(path) and not all(_within(os.path.realpath(one), folders) for one in blended_folders(path)):  # noqa: PTH113
        raise _refused(f"{source!r} names adapters in folders that are not allowed; {HINT}")
    return path


def _address(source: str, patterns: Iterable[str]) -> str:
    url = parse_address(source).url
    scheme, _, path = url.partition("://")
    local = scheme in ("file", "local") and os.path.realpath(path) != path
    if local or not any(_matches(url, pattern) for pattern in patterns if is_address(pattern)):
        raise _refused(f"{source!r} is not an address that is allowed; {HINT}")
    return source


def _matches(url: str, pattern: str) -> bool:
    """Part by part: a star stands for one part of an address, and not for a slash."""
    parts, wanted = url.split("/"), pattern.rstrip("/").split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _within(path: str, folders: Iterable[str]) -> bool:
    return any(os.path.commonpath([path, folder]) == folder for folder in folders)


def _refused(message: str) -> RefusalError:
    return RefusalError(403, message, "permission_error", "source", "source_not_allowed")
