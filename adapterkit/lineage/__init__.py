"""Where an adapter comes from: its base, its data, what made it, and the adapters that it was made of, as far as they are known."""

from .record import Lineage
from .tracing import trace

__all__ = ["Lineage", "trace"]
