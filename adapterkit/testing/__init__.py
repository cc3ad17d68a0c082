"""For tests of adapterkit and of plugins: tiny models that are built in memory."""

from .models import tiny_gpt2, tiny_llama

__all__ = ["tiny_gpt2", "tiny_llama"]
