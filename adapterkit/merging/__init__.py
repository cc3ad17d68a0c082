"""Several adapters become one, with or without their base.

The package is not called after its function: ``adapterkit.merge`` would become the package as soon as anybody imported a
module of it.
"""

from .engine import merge

__all__ = ["merge"]
