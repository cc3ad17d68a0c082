"""What differs between two adapters: what they say of themselves, what they hold, and what they do."""

from .difference import Changed, Difference, Layer
from .engine import diff

__all__ = ["Changed", "Difference", "Layer", "diff"]
