"""Files of tensors, as transformers names and safetensors lays them out: a header that is known beforehand, and the bytes.

https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

import attrs
import torch
from safetensors import SafetensorError, safe_open

from adapterkit.checkpoint import INDEX, WHOLE
from adapterkit.errors import BaseLoadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

__all__ = ["FLOATS", "Shard", "Stored", "headers", "plan_shards", "write_index", "write_shard"]

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""What weights are computed with; anything else is copied as it is."""
BITS = re.compile(r"(\d+)(?:_|$)")
ALIGNMENT = 8


@attrs.frozen
class Stored:
    """How a tensor is stored: the name of its type in the format, its shape, and its size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    size: int

    def cast(self, dtype: torch.dtype | None) -> Stored:
        """The same in another floating-point type; None leaves it as it is, and so does anything that is not one."""
        if dtype is None or self.dtype not in FLOATS:
            return self
        name = next(name for name, one in FLOATS.items() if one == dtype)
        return Stored(name, self.shape, math.prod(self.shape) * dtype.itemsize)


@attrs.frozen
class Shard:
    """A file that is to be written: its name and its tensors, in order."""

    name: str
    tensors: dict[str, Stored]


def headers(files: Mapping[str, Path]) -> dict[str, Stored]:
    """How each tensor is stored, by its key; no number is read.

    Raises:
        BaseLoadError: A file is broken, or does not hold what the index says.
    """
    found: dict[str, Stored] = {}
    by_file: dict[Path, list[str]] = {}
    for key, file in files.items():
        by_file.setdefault(file, []).append(key)
    for file, mine in by_file.items():
        try:
            with safe_open(file, "pt") as opened:
                for key in mine:
                    part = opened.get_slice(key)
                    found[key] = _stored(part.get_dtype(), tuple(part.get_shape()))
        except (OSError, SafetensorError) as error:
            raise BaseLoadError(f"{str(file)!r} cannot be read: {error}") from error
    return found


def _stored(dtype: str, shape: tuple[int, ...]) -> Stored:
    bits = 8 if dtype == "BOOL" else int(BITS.search(dtype)[1])  # type: ignore[index]
    return Stored(dtype, shape, math.prod(shape) * bits // 8)


def plan_shards(tensors: Mapping[str, Stored], most: int) -> list[Shard]:
    """Tensors in files of at most ``most`` bytes, in their order; a larger one has a file of its own."""
    groups: list[dict[str, Stored]] = [{}]
    size = 0
    for key, one in tensors.items():
        if groups[-1] and size + one.size > most:
            groups.append({})
            size = 0
        groups[-1][key] = one
        size += one.size
    names = [f"model-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1)]
    return [
        Shard(name, _aligned(group)) for name, group in zip(names if len(groups) > 1 else [WHOLE], groups, strict=True)
    ]


def _aligned(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """Those of larger numbers first, so that each begins at a multiple of its number's size."""
    return dict(sorted(tensors.items(), key=lambda item: -item[1].size // max(1, math.prod(item[1].shape))))


def write_shard(file: Path, shard: Shard, numbers: Iterable[Tensor]) -> None:
    """Write a file: the header, and then the tensors' numbers, in order, in as many pieces as they come in.

    Raises:
        OSError: The disk is full, or does not want to.
    """
    with file.open("wb") as opened:
        opened.write(_header(shard))
        for one in numbers:
            flat = one.detach().cpu().contiguous().reshape(-1)
            opened.write(flat.view(torch.uint8).numpy().data)


def _header(shard: Shard) -> bytes:
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for key, one in shard.tensors.items():
        end = position + one.size
        described[key] = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def write_index(folder: Path, shards: list[Shard]) -> None:
    """Which file holds which tensor, where there are several."""
    if len(shards) == 1:
        return
    every = [one for shard in shards for one in shard.tensors.values()]
    totals = {
        "total_parameters": sum(math.prod(one.shape) for one in every),
        "total_size": sum(one.size for one in every),
    }
    places = {key: shard.name for shard in shards for key in shard.tensors}
    text = json.dumps({"metadata": totals, "weight_map": places}, indent=2, sort_keys=True)
    (folder / INDEX).write_text(text + "\n", encoding="utf-8")


def pieces(tensor: Tensor, size: int) -> Iterator[Tensor]:
    """A tensor's numbers in order, ``size`` at a time."""
    flat = tensor.detach().reshape(-1)
    return (flat[start : start + size] for start in range(0, len(flat), size))
