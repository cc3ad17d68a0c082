"""The few numbers of a plan that no shape tells: they are fitted to what runs on a GPU took, which is kept beside them."""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from typing import Any

import attrs

from .devices import GIB, Device

__all__ = ["Calibration", "Measured", "measurements"]

HOPPER = 9
MIB = 2**20


@attrs.frozen(kw_only=True)
class Calibration:
    """What is added to a rehearsal, and how near a device comes to its data sheet.

    Attributes:
        slack: What is held over what shapes say, as a part of it: the allocator leaves up to a MiB behind a large tensor.
        cached: Bytes that the allocator has taken from the driver and not handed out, and
        cached_share: the same as a part of what is made and given up again.
        context: Bytes that CUDA takes before the first tensor.
        matrices: Share of the data sheet's operations a second in products of matrices.
        attention: The same in attention.
        bandwidth: Share of the data sheet's bandwidth.
        launch: Seconds that PyTorch takes to start one kernel.
    """

    slack: float = 0.01
    cached: float = 0.2 * GIB
    cached_share: float = 0.6
    context: float = 600 * MIB
    matrices: float = 0.65
    attention: float = 0.3
    bandwidth: float = 0.75
    launch: float = 8e-6

    @staticmethod
    def workspace(device: Device) -> int:
        """Bytes that cuBLAS keeps for itself (PyTorch's notes on CUDA, ``CUBLAS_WORKSPACE_CONFIG``)."""
        return 0 if device.is_cpu else 32 * MIB if device.generation >= HOPPER else 8320 * 1024


@attrs.frozen(kw_only=True)
class Measured:
    """What one run took.

    Attributes:
        base: The name of the base's shape, of :attr:`Measurements.bases`.
        method: How it was trained.
        rows: Rows of a batch.
        length: Tokens of a row; all but the first were trained.
        options: The run's options, where they were not the method's own.
        allocated: The most that the allocator had handed out, in GiB.
        reserved: The most that it had taken from the driver, in GiB.
        tokens_per_second: Tokens a second after the first step; 0 where it was not looked at.
        packed: Whether several rows were in one sequence.
    """

    base: str
    method: str
    rows: int
    length: int
    options: dict[str, Any]
    allocated: float
    reserved: float
    tokens_per_second: float = 0.0
    packed: bool = False


@attrs.frozen(kw_only=True)
class Measurements:
    """All runs of one device, and what was fitted to them.

    Attributes:
        device: What they ran on.
        date: When.
        versions: Of what.
        bases: The configurations of the bases by name, as transformers' LlamaConfig takes them.
        runs: What each took.
        fitted: The numbers.
    """

    device: str
    date: str
    versions: dict[str, str]
    bases: dict[str, dict[str, Any]]
    runs: tuple[Measured, ...]
    fitted: Calibration


@functools.cache
def measurements() -> Measurements:
    """What is kept in ``measured.json``."""
    kept = json.loads(files(__package__).joinpath("measured.json").read_text(encoding="utf-8"))
    return Measurements(
        **{**kept, "runs": tuple(Measured(**run) for run in kept["runs"]), "fitted": Calibration(**kept["fitted"])}
    )


def gib(size: float) -> float:
    """Bytes in GiB."""
    return size / GIB
