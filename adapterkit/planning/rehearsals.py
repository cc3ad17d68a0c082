"""Rehearsals of one base: of few of its blocks, from which all are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .rehearsal import Stage, Step
from .skeleton import depths, skeleton

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapterkit.contracts import Method, TrainOptions
    from adapterkit.registry import Registry

    from .rehearsal import Row
    from .skeleton import BaseShape, Skeleton

__all__ = ["Rehearsals"]


class Rehearsals:
    """Takes steps on a base without numbers, with any method and options.

    Args:
        shape: The base.
        registry: The plugins.
        fused: Whether the device has kernels for norms and gated layers.
    """

    def __init__(self, shape: BaseShape, registry: Registry, *, fused: bool) -> None:
        self.shape, self._registry, self._fused = shape, registry, fused
        self._skeletons: dict[tuple[int, str, bool], Skeleton] = {}
        self._stages: dict[tuple[int, str], Stage] = {}
        self._depths: dict[tuple[str, bool], tuple[int, ...]] = {}

    def step(
        self, method: Method, config: Any, options: TrainOptions, rows: Sequence[Row], *, packed: bool | None = None
    ) -> Step:
        """What a step on ``rows`` takes; see :meth:`adapterkit.planning.rehearsal.Stage.rehearse`.

        Args:
            method: The method.
            config: Its configuration; the same for every call with this method.
            options: The run's options.
            rows: The rows of a batch.
            packed: Whether several rows are in one sequence; by default as a run would have it.
        """
        stored = self.quantized(method, config)
        chosen = self._enough(*stored)
        steps = [
            self._stage(layers, method, config, stored).rehearse(rows, options, packed=packed) for layers in chosen
        ]
        if len(steps) == 1:
            return steps[0]
        return Step.through(list(zip(chosen, steps, strict=True)), self.shape.layers)

    def quantized(self, method: Method, config: Any) -> tuple[str, bool]:
        """What the base is quantized in while the method trains on it, and whether its scales are too."""
        needs = method.base_options(config)
        if self.shape.stored:
            return self.shape.stored, self.shape.double_quant
        return str(needs.get("quantize", "")), bool(needs.get("double_quant", True))

    def parameters(self) -> int:
        """How many numbers the whole base has."""
        return sum(one.numel() for one in self._skeleton(self.shape.layers, "", double_quant=True).model.parameters())

    def _stage(self, layers: int, method: Method, config: Any, stored: tuple[str, bool]) -> Stage:
        key = (layers, method.name)
        if key not in self._stages:
            base = self._skeleton(layers, stored[0], double_quant=stored[1])
            self._stages[key] = Stage(base, method, config, self._registry)
        return self._stages[key]

    def _skeleton(self, layers: int, quantize: str, *, double_quant: bool) -> Skeleton:
        key = (layers, quantize, double_quant)
        if key not in self._skeletons:
            self._skeletons[key] = skeleton(self.shape, layers, quantize, double_quant=double_quant, fused=self._fused)
        return self._skeletons[key]

    def _enough(self, quantize: str, double_quant: bool) -> tuple[int, ...]:  # noqa: FBT001 - a part of a key
        """So many blocks as the whole can be known from: blocks that are not alike, as in some mixtures, are all rehearsed."""
        key = (quantize, double_quant)
        if key not in self._depths:
            few, total = depths(self.shape), self.shape.layers
            sizes = [
                sum(self._skeleton(layers, quantize, double_quant=double_quant).bytes_by_dtype().values())
                for layers in (*few, total)
            ]
            even = len(few) == 1 or (sizes[2] - sizes[1]) * (few[1] - few[0]) == (sizes[1] - sizes[0]) * (
                total - few[1]
            )
            self._depths[key] = few if even else (total,)
        return self._depths[key]
