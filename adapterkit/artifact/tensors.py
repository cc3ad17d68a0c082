"""The tensors of an adapter file: read once, checked."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import attrs
import torch

from adapterkit.errors import ArtifactError

from .header import DTYPES, Entry, read_header
from .layout import WEIGHTS

if TYPE_CHECKING:
    import io
    from collections.abc import Mapping

    from torch import Tensor

    from .files import Files

__all__ = ["Weights", "check_tensors", "read_weights"]

CHUNK = 1 << 24
"""Numbers that are looked at together: a whole tensor at once would need its size again."""
MOST_KEY = 512


@attrs.frozen(eq=False)
class Weights:
    """A weights file: its tensors as they are called there, and the sha256 and size of those very bytes."""

    tensors: dict[str, Tensor]
    sha256: str
    size: int


def read_weights(files: Files, max_bytes: int) -> Weights:
    """Read the weights through one stream: what is hashed and checked is what is used.

    Raises:
        ArtifactError: The file is refused.
    """
    with files.open(WEIGHTS) as (file, size):
        try:
            return _read(file, size, max_bytes)
        except ArtifactError as error:
            raise ArtifactError(f"{WEIGHTS}: {error}") from None


def _read(file: io.RawIOBase, size: int, max_bytes: int) -> Weights:
    if size > max_bytes:
        raise ArtifactError(f"it has {size:,} bytes; at most {max_bytes:,} are read (max_bytes)")
    start, entries = read_header(file, size)
    data = _read_data(file, size - len(start))
    digest = hashlib.sha256(start)
    digest.update(data.numpy().data)
    tensors = {key: _tensor(data, entry) for key, entry in entries.items()}
    check_tensors(tensors)
    return Weights(tensors, digest.hexdigest(), size)


def _read_data(file: io.RawIOBase, count: int) -> Tensor:
    try:
        data = torch.empty(count, dtype=torch.uint8)
    except (RuntimeError, MemoryError):
        raise ArtifactError(f"there is no memory for its {count:,} bytes") from None
    rest = memoryview(data.numpy().data)
    while rest:
        got = file.readinto(rest)
        if not got:
            raise ArtifactError("it shrank while it was read")
        rest = rest[got:]
    if file.read(1):
        raise ArtifactError("it grew while it was read")
    return data


def _tensor(data: Tensor, entry: Entry) -> Tensor:
    part = data[entry.begin : entry.end]
    if entry.begin % entry.dtype.itemsize:  # a stranger's file need not be aligned
        part = part.clone()
    return part.view(entry.dtype).view(entry.shape)


def check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """What holds for the tensors of any adapter, on the way in and on the way out.

    Raises:
        ArtifactError: There are none; a name is not a path of modules; a tensor is empty, of a type that cannot be
            trained, or holds NaN or infinity.
    """
    if not tensors:
        raise ArtifactError("it holds no tensors")
    for name, tensor in tensors.items():
        if not _is_path(name):
            raise ArtifactError(f"tensor {name!r:.200} is not named by a path of modules")
        if tensor.dtype not in DTYPES.values() or not tensor.numel():
            raise ArtifactError(f"tensor {name!r} is {tensor.dtype} of shape {tuple(tensor.shape)}")
        if not _is_finite(tensor):
            raise ArtifactError(f"tensor {name!r} holds NaN or infinity: its training diverged, or the file is damaged")


def _is_path(name: str) -> bool:
    parts = name.split(".")
    return len(name) <= MOST_KEY and all(part and part.isprintable() and not set(part) & set(" /\\") for part in parts)


def _is_finite(tensor: Tensor) -> bool:
    flat = tensor.detach().reshape(-1)
    return all(bool(torch.isfinite(flat[i : i + CHUNK]).all()) for i in range(0, len(flat), CHUNK))
