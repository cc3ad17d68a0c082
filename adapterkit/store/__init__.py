"""Versions of adapters on this machine: stored by content, named, pointed at by aliases, every change in a journal."""

from .aliases import UNSET
from .names import is_reference
from .store import Store
from .values import Checked, Collected, Entry, Imported, Piece, StoredFile, Version

__all__ = [
    "UNSET",
    "Checked",
    "Collected",
    "Entry",
    "Imported",
    "Piece",
    "Store",
    "StoredFile",
    "Version",
    "is_reference",
]
