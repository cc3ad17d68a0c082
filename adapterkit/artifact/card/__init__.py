"""The README.md beside an adapter or a model: the Hub's metadata, and what is known of it; the rest is left out."""

from .about import HUB_ID, Publication
from .adapter import render
from .lacking import missing
from .model import render_model

__all__ = ["HUB_ID", "Publication", "missing", "render", "render_model"]
