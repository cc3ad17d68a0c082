"""What PEFT's files hold besides an adapter: copies of the base's own weights, which no adapter needs.

PEFT saves the weight of an embedding or a head along with the adapter where it is a target, and wherever its
``save_embedding_layers`` says so. Such a copy is never loaded. It is reduced to digests when the file is read, and a base that
does not have that very weight refuses the adapter. What PEFT holds beside a layer that is trained as a whole is left out too.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.contracts.method import KEY_PREFIX
from adapterkit.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["BaseCopy", "check_copies", "set_apart"]

WEIGHT = ".weight"
INSIDE = (".token_adapter.base_layer.weight", ".base_layer.weight")
"""What PEFT calls the weight of a layer that it has put its own around."""
TABLES = ("embed_in", "embed_out", "embed_tokens", "lm_head", "word_embeddings", "wte")
"""What embeddings and heads are called, which PEFT may save although nothing acts on them."""
ORIGINAL, SAVED = ".original_module", ".modules_to_save"
"""The two layers that PEFT holds where a whole copy is trained: the base's, which no longer acts, and the copy once more."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@attrs.frozen
class BaseCopy:
    """A copy of a weight, as far as it takes to know the weight again.

    Attributes:
        weight: What the weight is called in the base.
        shape: Its shape.
        dtype: What it was stored in.
        digests: The sha256 of its numbers in each of the dtypes that a base may be in.
    """

    weight: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    digests: dict[torch.dtype, str]

    @classmethod
    def of(cls, weight: str, tensor: Tensor) -> BaseCopy:
        """Of a tensor in a file."""
        return cls(weight, tuple(tensor.shape), tensor.dtype, {dtype: _digest(tensor, dtype) for dtype in DTYPES})

    def is_copy_of(self, weight: Tensor) -> bool:
        """Whether it holds the same bits, in the dtype of the base or, where that is finer, in its own."""
        if tuple(weight.shape) != self.shape or not weight.is_floating_point():
            return False
        both = {weight.dtype, self.dtype} & set(DTYPES)
        return any(_digest(weight, dtype) == self.digests[dtype] for dtype in both)


def set_apart(tensors: Mapping[str, Tensor], config: Any) -> tuple[dict[str, Tensor], dict[str, BaseCopy]]:
    """The tensors of an adapter, and the copies by their own names.

    Args:
        tensors: By their names in a file of PEFT's.
        config: The adapter's configuration, which says of which layers a whole copy is trained.
    """
    weights = {name: _weight_in_base(name, config) for name in tensors}
    own = {name: one for name, one in tensors.items() if not weights[name] and not _is_held_twice(name, tensors)}
    copies = {name.removeprefix(KEY_PREFIX): BaseCopy.of(one, tensors[name]) for name, one in weights.items() if one}
    return own, copies


def check_copies(copies: Mapping[str, BaseCopy], weights: Mapping[str, Tensor]) -> None:
    """Refuse an adapter whose file holds another weight than the base has.

    Args:
        copies: By their own names.
        weights: The base's parameters.

    Raises:
        ArtifactError: There is no such weight, or it differs in a bit.
    """
    for name, copy in copies.items():
        weight = weights.get(copy.weight)
        if weight is None or not copy.is_copy_of(weight.detach()):
            raise ArtifactError(
                f"the adapter does not fit this base: {name} (one of the base's own weights) is not what the base has"
            )


def _weight_in_base(name: str, config: Any) -> str:
    """What the weight is called that a tensor is a copy of; empty where it is none."""
    if not name.startswith(KEY_PREFIX):
        return ""
    path = name.removeprefix(KEY_PREFIX)
    for inside in INSIDE:
        if path.endswith(inside):
            return path.removesuffix(inside) + WEIGHT
    layer = path.removesuffix(WEIGHT)
    is_table = layer != path and layer.rpartition(".")[2] in TABLES
    return path if is_table and not _is_trained(layer, config) else ""


def _is_trained(layer: str, config: Any) -> bool:
    """Whether a whole copy of the layer, or of one that it is in, may be trained; PEFT asks for no dot before an end."""
    ends = tuple(getattr(config, "modules_to_save", None) or ())
    if ends and getattr(config, "ensure_weight_tying", False):
        return True  # one copy for two layers, of which the configuration may name the other
    parts = layer.split(".")
    return any(".".join(parts[:count]).endswith(ends) for count in range(1, len(parts) + 1))


def _is_held_twice(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is what PEFT holds beside a trained copy; the copy is what stands under the layer's own name."""
    layer, dot, last = name.rpartition(".")
    known = tensors.get(layer.removesuffix(ORIGINAL).removesuffix(SAVED) + dot + last)
    if known is None or not layer.endswith((ORIGINAL, SAVED)):
        return False
    return layer.endswith(ORIGINAL) or torch.equal(known, tensors[name])


def _digest(tensor: Tensor, dtype: torch.dtype) -> str:
    numbers = tensor.to("cpu", dtype).contiguous().reshape(-1)
    return hashlib.sha256(numbers.view(torch.uint8).numpy().data).hexdigest()
