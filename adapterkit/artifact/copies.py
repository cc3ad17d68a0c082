"""What PEFT's files hold besides an adapter: copies of the base's own weights, which no adapter needs.

PEFT saves the weight of an embedding or a head that is a target along with the adapter. Such a copy is never loaded. It is
reduced to digests when the file is read, and a base that does not have that very weight refuses the adapter.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import attrs
import torch

from adapterkit.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["BaseCopy", "check_copies", "set_apart"]

PREFIX = "base_model.model."
INSIDE, WEIGHT = ".base_layer.weight", ".weight"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@attrs.frozen
class BaseCopy:
    """A copy of a weight, as far as it takes to know the weight again.

    Attributes:
        shape: Its shape.
        dtype: What it was stored in.
        digests: The sha256 of its numbers in each of the dtypes that a base may be in.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    digests: dict[torch.dtype, str]

    @classmethod
    def of(cls, tensor: Tensor) -> BaseCopy:
        """Of a tensor in a file."""
        return cls(tuple(tensor.shape), tensor.dtype, {dtype: _digest(tensor, dtype) for dtype in DTYPES})

    def is_copy_of(self, weight: Tensor) -> bool:
        """Whether it holds the same bits, in the dtype of the base or, where that is finer, in its own."""
        if tuple(weight.shape) != self.shape or not weight.is_floating_point():
            return False
        both = {weight.dtype, self.dtype} & set(DTYPES)
        return any(_digest(weight, dtype) == self.digests[dtype] for dtype in both)


def set_apart(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, BaseCopy]]:
    """The tensors of an adapter, and the copies by the names that the weights have in the base."""
    own = {name: tensor for name, tensor in tensors.items() if not _is_copy(name)}
    copies = {
        name.removeprefix(PREFIX).removesuffix(INSIDE) + WEIGHT: BaseCopy.of(tensor)
        for name, tensor in tensors.items()
        if _is_copy(name)
    }
    return own, copies


def check_copies(copies: Mapping[str, BaseCopy], weights: Mapping[str, Tensor]) -> None:
    """Refuse an adapter whose file holds another weight than the base has.

    Args:
        copies: By the names that the weights have in the base.
        weights: The base's parameters.

    Raises:
        ArtifactError: There is no such weight, or it differs in a bit.
    """
    for name, copy in copies.items():
        weight = weights.get(name)
        if weight is None or not copy.is_copy_of(weight.detach()):
            inside = name.removesuffix(WEIGHT) + INSIDE
            raise ArtifactError(
                f"the adapter does not fit this base: {inside} (one of the base's own weights) is not what the base has"
            )


def _is_copy(name: str) -> bool:
    return name.startswith(PREFIX) and name.endswith(INSIDE)


def _digest(tensor: Tensor, dtype: torch.dtype) -> str:
    numbers = tensor.to("cpu", dtype).contiguous().reshape(-1)
    return hashlib.sha256(numbers.view(torch.uint8).numpy().data).hexdigest()
