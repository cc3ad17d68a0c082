"""Puts adapters where the base computes, beside whatever it is doing."""

from __future__ import annotations

import copy
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs
import torch

from adapterkit.runtime import plan_tensors

if TYPE_CHECKING:
    from adapterkit.adapter import Adapter
    from adapterkit.resident import Resident
    from adapterkit.shared import SharedModel

__all__ = ["Placing", "host_bytes"]


class Placing:
    """Makes adapters ready to act on a base; on a GPU on a stream of its own, which the batch does not wait for."""

    def __init__(self, base: SharedModel) -> None:
        self._base, self._device = base, base.device
        self._itemsize = base.dtype.itemsize
        self._stream: torch.cuda.Stream | None = None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the base is whole for every stream from here on
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def place(self, adapter: Adapter) -> Resident:
        """The adapter, all of it on the device; its own tensors, which stay on the host, are left out.

        Raises:
            ArtifactError: It does not fit the base.
        """
        if self._stream is None:
            resident = self._base.prepare(adapter)
        else:
            with torch.cuda.stream(self._stream):
                resident = self._base.prepare(adapter)
            self._stream.synchronize()
            batch = torch.cuda.default_stream(self._device)
            for tensor in plan_tensors(resident.plan, self._base.model):
                if tensor.is_cuda:
                    tensor.record_stream(batch)  # or its memory could be given away while the batch still reads it
        return attrs.evolve(resident, adapter=_without_tensors(adapter))

    def likely_bytes(self, adapter: Adapter) -> int:
        """What an adapter will take, as far as that is known before it is there: its numbers in the base's dtype."""
        return adapter.parameters * self._itemsize


def host_bytes(adapter: Adapter) -> int:
    """What an adapter's tensors take on the host."""
    return sum(tensor.nbytes for tensor in adapter.tensors.values())


def _without_tensors(adapter: Adapter) -> Adapter:
    """The same adapter by digest, which is taken of the tensors before they are left out."""
    _ = adapter.digest
    light = copy.copy(adapter)
    object.__setattr__(light, "tensors", MappingProxyType({}))
    return light
