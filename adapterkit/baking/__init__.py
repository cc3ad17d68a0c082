"""Bakes adapters into a base: an ordinary transformers folder, which needs adapterkit no more."""

from .bake import bake
from .loaded import baked
from .report import Baked, BakedLayer

__all__ = ["Baked", "BakedLayer", "bake", "baked"]
