"""Parts of a forward and backward pass as one kernel each, where torch takes several and reads and writes everything each time.

Each is written in torch as well: that is what it has to equal, and what computes where Triton or a GPU is missing.
"""

from __future__ import annotations

from .available import has_kernels
from .fusing import fused
from .gated import silu_mul
from .losses import head_losses
from .rotary import rotate

__all__ = ["fused", "has_kernels", "head_losses", "rotate", "silu_mul"]
