"""Where Triton's kernels run."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["has_kernels", "runs_kernels"]

TRITON = find_spec("triton") is not None
"""torch's builds for GPUs bring it along."""


def has_kernels(device: torch.device) -> bool:
    """Whether the kernels run on a device."""
    return device.type == "cuda" and TRITON


def runs_kernels(tensor: Tensor) -> bool:
    """Whether to compute with a kernel: they are made for 32 bits and fewer."""
    return tensor.is_cuda and TRITON and tensor.element_size() <= 4
