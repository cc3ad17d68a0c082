"""Adapters in the forms that other programs read."""

from .engine import Exported, export
from .job import Export

__all__ = ["Export", "Exported", "export"]
