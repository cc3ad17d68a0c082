"""Which adapters are in memory: where the base computes, and on the host beside it."""

from .residency import Residency
from .tiers import Held

__all__ = ["Held", "Residency"]
