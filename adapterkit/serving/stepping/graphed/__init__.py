"""Decode steps that a GPU replays as one graph: one token for each row, any low-rank adapters, keys and values in pages."""

from __future__ import annotations

from .step import GraphedStep

__all__ = ["GraphedStep"]
