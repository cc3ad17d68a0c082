"""Random numbers of a run's own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

__all__ = ["RandomState"]


class RandomState:
    """A stream of random numbers that nothing else draws from: one seed governs a run, whatever goes on beside it.

    torch draws from one state for the whole process and one for each accelerator; within :meth:`drawn` these are the run's.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._devices = [] if device.type == "cpu" else [device]
        self._drawing = False
        with self._kept_apart():
            torch.manual_seed(seed)
            self._states = self._here()

    @contextlib.contextmanager
    def drawn(self) -> Iterator[None]:
        """Within this block torch draws from this stream; afterwards it goes on as if nothing had been drawn."""
        if self._drawing:
            yield
            return
        outside, self._drawing = self._here(), True
        self._set(self._states)
        try:
            yield
        finally:
            self._states, self._drawing = self._here(), False
            self._set(outside)

    @contextlib.contextmanager
    def again(self, states: Sequence[Tensor]) -> Iterator[None]:
        """Within this block the stream stands where :attr:`states` was taken; afterwards where it stood before."""
        now, self._states = self._states, list(states)
        try:
            yield
        finally:
            self._states = now

    def stand(self, states: Sequence[Tensor]) -> None:
        """Go on from where :attr:`states` was taken."""
        self._states = list(states)

    @property
    def states(self) -> tuple[Tensor, ...]:
        """Where the stream stands: one tensor of bytes for the host, and one for the accelerator."""
        return tuple(self._states)

    def state(self) -> dict[str, Tensor]:
        """The same by name, for a checkpoint."""
        return {f"random.{number}": state for number, state in enumerate(self._states)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from where :meth:`state` was taken."""
        self._states = [tensors[f"random.{number}"].to(torch.uint8) for number in range(len(self._states))]

    @contextlib.contextmanager
    def _kept_apart(self) -> Iterator[None]:
        outside = self._here()
        try:
            yield
        finally:
            self._set(outside)

    def _here(self) -> list[Tensor]:
        accelerator = [torch.get_device_module(device).get_rng_state(device) for device in self._devices]
        return [torch.get_rng_state(), *accelerator]

    def _set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for device, state in zip(self._devices, states[1:], strict=True):
            torch.get_device_module(device).set_rng_state(state, device)
