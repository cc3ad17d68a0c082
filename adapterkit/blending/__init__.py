"""Learned blends: the weights of several adapters, found on a few examples."""

from .learned import LearnedBlend
from .learning import BlendOptions, learn_blend

__all__ = ["BlendOptions", "LearnedBlend", "learn_blend"]
