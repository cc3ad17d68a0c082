"""What a run holds in the device's memory when it holds the most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .rehearsal import CHECK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .calibration import Calibration
    from .devices import Device
    from .rehearsal import Step

__all__ = ["Memory", "memory_of"]


@attrs.frozen(kw_only=True)
class Memory:
    """Bytes at the moment of the peak, by what they are for.

    Attributes:
        weights: The base, by what its weights are stored in.
        adapter: What is trained.
        gradients: The gradients of it that are there at that moment.
        optimizer: AdamW's two moments.
        activations: What the forward pass keeps for the backward pass.
        working: What is made and given up again: gradients of activations, weights written out of 4 bits, a part of the logits.
        workspace: What cuBLAS keeps for itself.
        cached: What the allocator has taken from the driver besides.
        context: What CUDA takes before the first tensor.
        phase: When that is.
    """

    weights: Mapping[str, float]
    adapter: float
    gradients: float
    optimizer: float
    activations: float
    working: float
    workspace: float
    cached: float
    context: float
    phase: str

    @property
    def allocated(self) -> float:
        """What ``torch.cuda.max_memory_allocated`` would say."""
        parts = (self.adapter, self.gradients, self.optimizer, self.activations, self.working, self.workspace)
        return sum(self.weights.values()) + sum(parts)

    @property
    def reserved(self) -> float:
        """What ``torch.cuda.max_memory_reserved`` would say."""
        return self.allocated + self.cached

    @property
    def total(self) -> float:
        """What the device must have."""
        return self.reserved + self.context


def memory_of(step: Step, device: Device, calibration: Calibration) -> Memory:
    """The memory of a run whose steps take what ``step`` does."""
    held = {phase: peak.held + (0.0 if phase == CHECK else step.optimizer) for phase, peak in step.peaks.items()}
    phase = max(held, key=lambda name: held[name])
    peak = step.peaks[phase]
    besides = (peak.held - peak.gradients) * (1 + calibration.slack)
    activations = min(step.kept.get(phase.replace("forward", "backward"), 0.0), besides)
    memory = Memory(
        weights=dict(step.weights),
        adapter=step.adapter,
        gradients=peak.gradients,
        optimizer=0.0 if phase == CHECK else step.optimizer,
        activations=activations,
        working=besides - activations,
        workspace=calibration.workspace(device),
        cached=0.0,
        context=0.0 if device.is_cpu else calibration.context,
        phase=phase,
    )
    if device.is_cpu:
        return memory
    return attrs.evolve(memory, cached=calibration.cached + calibration.cached_share * memory.working)
