"""What may be wrong with an upload: adapters that must not get in, and names that are none."""

from __future__ import annotations

import json
import os
import random
import struct
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NAMES", "SPOILERS"]

WEIGHTS, MANIFEST = "adapter_model.safetensors", "adapterkit.json"
NAMES = (
    "../x",
    "/etc/passwd",
    "x\0y",
    "a" * 10_000,
    "ca\u0433ds",
    "\uff43ards",
    "..",
    "x/../y",
    "-rf",
    "C:\\x",
    "x\n",
    "",
)


def truncated(folder: Path) -> None:
    """The file ends in the middle."""
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size // 2)


def huge_header(folder: Path) -> None:
    """The header says that it is longer than any disk."""
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**62) + raw[8:])


def lying_header(folder: Path) -> None:
    """All tensors are said to begin at the same place."""
    raw = (folder / WEIGHTS).read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    for entry in header.values():
        if "data_offsets" in entry:
            entry["data_offsets"] = [0, entry["data_offsets"][1] - entry["data_offsets"][0]]
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])
    (folder / MANIFEST).unlink()


def wrong_shapes(folder: Path) -> None:
    """A row is missing everywhere; no manifest says so."""
    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor[:-1].clone() for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / MANIFEST).unlink()


def missing_tensor(folder: Path) -> None:
    """A tensor is missing; no manifest says so."""
    tensors = load_file(folder / WEIGHTS)
    save_file(dict(sorted(tensors.items())[1:]), folder / WEIGHTS)
    (folder / MANIFEST).unlink()


def not_numbers(folder: Path) -> None:
    """All numbers are NaN; no manifest says so."""
    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / MANIFEST).unlink()


def other_numbers(folder: Path) -> None:
    """One byte of the numbers is another one than the manifest says."""
    raw = bytearray((folder / WEIGHTS).read_bytes())
    raw[-1] ^= 1
    (folder / WEIGHTS).write_bytes(raw)


def random_bytes(folder: Path) -> None:
    """No such file at all."""
    (folder / WEIGHTS).write_bytes(random.Random(1).randbytes(65_536))


def no_weights(folder: Path) -> None:
    """The file is missing."""
    (folder / WEIGHTS).unlink()


def link_outside(folder: Path) -> None:
    """The file is a link to another one of the machine."""
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("/etc/passwd")


SPOILERS = (
    *(truncated, huge_header, lying_header, wrong_shapes, missing_tensor, not_numbers, other_numbers, random_bytes),
    *(no_weights, link_outside),
)
