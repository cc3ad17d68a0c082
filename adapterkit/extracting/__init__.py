"""Low-rank adapters out of what was trained in full."""

from .engine import extract

__all__ = ["extract"]
