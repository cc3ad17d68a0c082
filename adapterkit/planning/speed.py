"""How long a step takes: what it computes and moves, over what a device does a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .calibration import Calibration
    from .devices import Device
    from .rehearsal import Step

__all__ = ["seconds_of_pass", "seconds_of_update"]

ADAMW_BYTES = 28
"""AdamW reads a number, its gradient and two moments, and writes all but the gradient again, each in 4 bytes."""


def seconds_of_pass(step: Step, device: Device, calibration: Calibration) -> float | None:
    """One forward and backward pass; None for a device of which nothing is known but its memory.

    Each operation takes as long as its computing or its reading and writing, whichever is more; all together never take less
    than PyTorch needs to start them.
    """
    if device.flops is None or device.bandwidth is None:
        return None
    own = (1.0, 1.0, 1.0) if device.is_cpu else (calibration.matrices, calibration.attention, calibration.bandwidth)
    matrices, attention, bandwidth = own
    busy = sum(
        times
        * max(
            one.flops / (device.flops * (attention if one.attention else matrices)),
            one.moved / (device.bandwidth * bandwidth),
        )
        for one, times in step.work.items()
    )
    return max(busy, 0.0 if device.is_cpu else step.launches * calibration.launch)


def seconds_of_update(step: Step, device: Device, calibration: Calibration) -> float:
    """The optimizer's step."""
    if device.bandwidth is None:
        return 0.0
    return ADAMW_BYTES * step.parameters / (device.bandwidth * (1.0 if device.is_cpu else calibration.bandwidth))
