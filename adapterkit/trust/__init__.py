"""Which adapters are let in: from which sources, signed by whom."""

from .reading import read_trusted

__all__ = ["read_trusted"]
