"""Git's object ids: the ids of files, folders and commits are those that ``git`` gives to the same content."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["blob_id", "commit_id", "pointer", "tree_ids"]


def blob_id(content: bytes) -> str:
    """The id of a file with this content."""
    return _object_id("blob", content)


def pointer(sha256: str, size: int) -> bytes:
    """The file that git keeps in place of one in large file storage (https://github.com/git-lfs/git-lfs, docs/spec.md)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def tree_ids(blobs: Mapping[str, str]) -> dict[str, str]:
    """The ids of all folders by path, ``""`` being the outermost.

    Args:
        blobs: The ids of all files by path.
    """
    root: dict[str, Any] = {}
    for path, oid in blobs.items():
        *folders, name = path.split("/")
        place = root
        for folder in folders:
            place = place.setdefault(folder + "/", {})
        place[name] = oid
    found: dict[str, str] = {}
    _tree_id(root, "", found)
    return found


def commit_id(tree: str, parent: str | None, message: str, seconds: int) -> str:
    """The id of a commit at a time in seconds since 1970."""
    who = f"adapterkit test Hub <hub@localhost> {seconds} +0000"
    parents = f"parent {parent}\n" if parent else ""
    return _object_id("commit", f"tree {tree}\n{parents}author {who}\ncommitter {who}\n\n{message}\n".encode())


def _tree_id(entries: Mapping[str, Any], path: str, found: dict[str, str]) -> str:
    written = b""
    for key in sorted(entries, key=_encoded):  # git sorts a folder as if its name ended in a slash: here it does
        name = key.removesuffix("/")
        inner = entries[key]
        oid = _tree_id(inner, f"{path}/{name}" if path else name, found) if isinstance(inner, dict) else inner
        mode = b"40000" if isinstance(inner, dict) else b"100644"
        written += mode + b" " + _encoded(name) + b"\0" + bytes.fromhex(oid)
    found[path] = _object_id("tree", written)
    return found[path]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _object_id(kind: str, content: bytes) -> str:
    return hashlib.sha1(b"%s %d\0%s" % (kind.encode(), len(content), content), usedforsecurity=False).hexdigest()
