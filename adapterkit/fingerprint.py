"""What tells one base from another, whatever it is called and however it is loaded."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import nn

from .config import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from torch import Tensor

__all__ = ["fingerprint", "same_base"]

SAMPLES = 256
"""How many numbers of each tensor are looked at."""
QUANTIZED = "quantized"


def fingerprint(
    model: nn.Module, read: Callable[[str], Tensor] | None = None, absent: Container[str] = frozenset()
) -> str:
    """Two sha256 digests with a dot between: of what quantization leaves alone, and of all other weights.

    Each is over names, shapes and evenly spread numbers, rounded to bfloat16 first, so that a base loaded in float32 and in
    bfloat16 is the same base. In a quantized base, and where a weight cannot be read, the second digest is the word ``quantized``.

    Args:
        model: The base.
        read: Gives a parameter of a name, where the model itself is on the meta device and has none.
        absent: The names of those that ``read`` does not have, such as experts that are stored one by one.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tensors = dict(model.named_parameters())
    kept = {name: tensor for name, tensor in tensors.items() if tensor.dim() == 1 or id(tensor) in embeddings}
    rest = {name: tensor for name, tensor in tensors.items() if name not in kept}
    unknown = any(name in absent for name in tensors) or any(not tensor.is_floating_point() for tensor in rest.values())
    own = read or tensors.__getitem__

    def known(name: str) -> Tensor:
        return torch.zeros(()).expand(tensors[name].shape) if name in absent else own(name)

    return f"{_digest(kept, known)}.{QUANTIZED if unknown else _digest(rest, own)}"


def same_base(one: str, other: str) -> bool:
    """Whether two fingerprints are of the same base; where either is quantized, as far as that can be told."""
    kept, _, rest = one.partition(".")
    other_kept, _, other_rest = other.partition(".")
    return kept == other_kept and (rest == other_rest or QUANTIZED in (rest, other_rest))


def _digest(names: Iterable[str], read: Callable[[str], Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(names):
        tensor = read(name)
        total.update(canonical_json([name, list(tensor.shape)]).encode())
        total.update(_sample(tensor))
    return total.hexdigest()


def _sample(tensor: Tensor) -> bytes:
    flat = tensor.detach().reshape(-1)
    step = max(1, len(flat) // SAMPLES)
    # one comparable rounding whatever the dtype; viewed as bytes since numpy knows no bfloat16
    rounded = flat[::step][:SAMPLES].to(torch.bfloat16).cpu().contiguous()
    return rounded.view(torch.uint8).numpy().tobytes()
