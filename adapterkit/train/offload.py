"""Keeps what the backward pass needs in the host's memory while the forward pass goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["offloading"]

LEAST_BYTES = 2**20
"""Smaller tensors stay: a copy costs more than they take."""


def offloading(stay: Iterable[Tensor]) -> torch.autograd.graph.saved_tensors_hooks:
    """Within this block, tensors that autograd saves are kept in the host's memory, and brought back when they are asked for.

    Under recomputation these are the inputs of the blocks, and little besides. Copies go in the order of the stream that
    computes, so that no memory is used again before it was read.

    Args:
        stay: Tensors whose memory is never copied: weights, which autograd saves too. Those that are spread over processes
            have no memory to know them by; they are saved within recomputed blocks alone, which this does not see.
    """
    addresses = {tensor.untyped_storage().data_ptr() for tensor in stay if not hasattr(tensor, "device_mesh")}

    def pack(tensor: Tensor) -> Any:
        if tensor.nbytes < LEAST_BYTES or tensor.untyped_storage().data_ptr() in addresses:
            return tensor
        # pinned: the device copies by itself while the next block is computed
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return tensor.device, host.copy_(tensor, non_blocking=tensor.is_cuda)

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        device, host = packed
        back: Tensor = host.to(device, non_blocking=True)
        return back

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)
