"""Reads the header of a safetensors file: every number is checked before anything is allocated for it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.errors import ArtifactError

from .layout import MOST_HEADER_BYTES, MOST_TENSORS
from .strict_json import unique_keys

if TYPE_CHECKING:
    import io

__all__ = ["Entry", "parse_header", "read_header"]

LENGTH_BYTES = 8
MOST_DIMENSIONS = 8
MOST_NUMBER = 1 << 62
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""An adapter holds numbers that were trained; integers, truth values and 8-bit floats are not."""
FIELDS = {"dtype", "shape", "data_offsets"}


@attrs.frozen
class Entry:
    """One tensor: its bytes are ``begin`` to ``end`` of the data that follow the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: io.RawIOBase, size: int) -> tuple[bytes, dict[str, Entry]]:
    """The raw bytes before the data, and the tensors by name, in the order of their bytes.

    Raises:
        ArtifactError: The file of ``size`` bytes is not safetensors to the letter, or larger than any adapter's.
    """
    start = file.read(LENGTH_BYTES) or b""
    length = int.from_bytes(start, "little")
    if length > MOST_HEADER_BYTES:
        raise ArtifactError(f"its header claims {length:,} bytes; at most {MOST_HEADER_BYTES:,} are read")
    if len(start) < LENGTH_BYTES or LENGTH_BYTES + length > size:
        raise ArtifactError("it is cut off: the header is not complete")
    raw = file.read(length) or b""
    return start + raw, parse_header(raw, size - LENGTH_BYTES - length)


def parse_header(raw: bytes, data_bytes: int) -> dict[str, Entry]:
    """The tensors that a header names, in the order of their bytes, which fill ``data_bytes`` exactly.

    Raises:
        ArtifactError: It does not say one thing and that completely.
    """
    # each tensor has one object and two lists; what has more is refused before the parser makes anything of it
    if raw.count(b"{") > MOST_TENSORS + 2 or raw.count(b"[") > 2 * MOST_TENSORS:
        raise ArtifactError(f"its header names more than {MOST_TENSORS:,} tensors")
    try:
        values = json.loads(raw.decode("utf-8"), object_pairs_hook=_entry)
    except RecursionError:
        raise ArtifactError("its header is nested too deeply") from None
    except ArtifactError as error:
        raise ArtifactError(f"its header: {error}") from None
    except ValueError as error:
        raise ArtifactError(f"its header is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise ArtifactError("its header is not a JSON object")
    _check_metadata(values.pop("__metadata__", {}))
    return _in_order(values, data_bytes)


def _entry(pairs: list[tuple[str, Any]]) -> Entry | dict[str, Any]:
    """Called by the parser at the end of each object, so that the first bad tensor is the last thing read."""
    values = unique_keys(pairs)
    if set(values) != FIELDS:
        return values
    dtype, shape, offsets = values["dtype"], values["shape"], values["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ArtifactError(f"a tensor has the type {dtype!r:.50}; an adapter's are {', '.join(DTYPES)}")
    if not _are_numbers(shape) or len(shape) > MOST_DIMENSIONS:
        raise ArtifactError(f"a tensor has the shape {shape!r:.100}")
    if 0 in shape:
        raise ArtifactError(f"a tensor is empty: its shape is {shape}")
    if not _are_numbers(offsets) or len(offsets) != 2:
        raise ArtifactError(f"a tensor has the offsets {offsets!r:.100}")
    return Entry(DTYPES[dtype], tuple(shape), *offsets)


def _are_numbers(values: Any) -> bool:
    # `type`, since True is an int to isinstance
    return isinstance(values, list) and all(type(value) is int and 0 <= value < MOST_NUMBER for value in values)


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ArtifactError("its header's metadata are not texts by name")


def _in_order(values: dict[str, Any], data_bytes: int) -> dict[str, Entry]:
    odd = next((name for name, entry in values.items() if not isinstance(entry, Entry)), None)
    if odd is not None:
        raise ArtifactError(f"its header does not describe {odd!r:.100} by {', '.join(sorted(FIELDS))}")
    entries = dict(sorted(values.items(), key=lambda item: (item[1].begin, item[1].end)))
    position = 0
    for name, entry in entries.items():
        if entry.begin != position:
            kind = "overlaps another" if entry.begin < position else "leaves a gap before it"
            raise ArtifactError(f"tensor {name!r:.200} {kind}: it starts at byte {entry.begin}, not {position}")
        size = entry.end - entry.begin
        if size != math.prod(entry.shape) * entry.dtype.itemsize:
            raise ArtifactError(f"tensor {name!r:.200} has {size} bytes, which its shape and type do not")
        position = entry.end
    if position != data_bytes:
        kind = "is cut off" if position > data_bytes else "has bytes that belong to no tensor"
        raise ArtifactError(f"it {kind}: its tensors end at byte {position:,} of {data_bytes:,}")
    return entries
