"""Counts what a forward and backward pass takes, while it runs on tensors that have shapes and no numbers."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Meter", "Operation", "Peak", "rounded"]

BLOCK = 512
"""PyTorch's allocator on CUDA hands out memory in multiples of this many bytes."""

ATEN = torch.ops.aten
INNER = {ATEN.mm: (0, 1), ATEN.bmm: (0, 2), ATEN.addmm: (1, 1), ATEN.baddbmm: (1, 2), ATEN._grouped_mm: (0, -1)}  # noqa: SLF001
"""Products of matrices: which argument, and which of its dimensions, is summed over."""
GROUPED = ATEN._grouped_mm  # noqa: SLF001 - products of the experts of a mixture
INDEXED = {ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._index_put_impl_, ATEN._unsafe_index}  # noqa: SLF001
MADE_OF_NOTHING = {ATEN.empty, ATEN.empty_like, ATEN.empty_strided, ATEN.new_empty, ATEN.new_empty_strided}


def rounded(size: int) -> int:
    """So many bytes as the allocator takes for ``size``."""
    return -(-size // BLOCK) * BLOCK


@attrs.frozen
class Operation:
    """One kind of work: ``flops`` to compute and ``moved`` bytes to read and write; attention has kernels of its own."""

    flops: int
    moved: int
    attention: bool = False


@attrs.frozen
class Peak:
    """The most that was held at once, in bytes; ``gradients`` of it in gradients of what is trained."""

    held: float = 0.0
    gradients: float = 0.0


@attrs.define(eq=False)
class _Held:
    size: int
    reference: Any


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this block, every operation is counted.

    What depends on numbers, which are not there, is given what a run finds: a boolean mask chooses :attr:`chosen` places, two
    tensors that are compared are the same, and a yes-or-no question of an error check is answered with no.

    Attributes:
        held: Bytes of the tensors that were made within the block and are still there.
        gradients: How many of them are gradients of what is trained.
        peaks: The most that was held, by the name of the phase.
        work: How often each operation was done.
        launches: How many kernels were started.
        chosen: How many places a boolean mask chooses.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.gradients = self.launches = self.chosen = 0
        self.peaks: dict[str, Peak] = {}
        self.work: Counter[Operation] = Counter()
        self._phase = ""
        self._tensors: dict[int, _Held] = {}
        for tensor in known:  # made before, and counted elsewhere
            self._see(tensor, size=0)

    def enter(self, phase: str) -> None:
        """From now on, what is held counts for this phase."""
        self._phase = phase
        self._note()

    def charge(self, flops: int, moved: int, *, attention: bool = False, launches: int = 1) -> None:
        """Count so much work, and the kernels that do it."""
        self.work[Operation(flops, moved, attention)] += 1
        self.launches += launches

    def is_gradient(self, tensor: Tensor) -> None:
        """Count what was made as a gradient, which stays until the optimizer has used it."""
        self.gradients += rounded(tensor.untyped_storage().nbytes())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        packet, kwargs = func.overloadpacket, kwargs or {}
        if packet is ATEN._local_scalar_dense:  # noqa: SLF001
            return False if args[0].dtype == torch.bool else 0
        if packet is ATEN.equal:
            return True
        if packet in INDEXED and any(_is_mask(one) for one in args[1]):
            args = (args[0], self._places(args[1]), *args[2:])
        out = _grouped(*args) if packet is GROUPED else func(*args, **kwargs)
        made = [tensor for tensor in _tensors(out) if self._see(tensor)]
        if packet in MADE_OF_NOTHING or not (made or func._schema.is_mutable):  # noqa: SLF001
            return out  # a view, or memory that nothing was written to yet
        given = [tensor for one in (*args, *kwargs.values()) for tensor in _tensors(one)]
        self.charge(_flops(packet, args, out), sum(one.nbytes for one in (*given, *_tensors(out))))
        return out

    def _places(self, index: Any) -> list[Any]:
        """Numbers of places instead of a mask over as many dimensions as it has."""
        found: list[Any] = []
        for one in index:
            if _is_mask(one):
                place = torch.empty(self.chosen, dtype=torch.long, device=one.device)
                self._see(place)
                found += [place] * one.dim()
            else:
                found.append(one)
        return found

    def _see(self, tensor: Tensor, size: int | None = None) -> bool:
        """Whether its memory is new."""
        storage = tensor.untyped_storage()
        key = storage._cdata  # noqa: SLF001 - what tells one from another
        if key in self._tensors:
            return False
        size = rounded(storage.nbytes()) if size is None else size
        self._tensors[key] = _Held(size, weakref.ref(storage, lambda _: self._gone(key)))
        self.held += size
        self._note()
        return True

    def _gone(self, key: int) -> None:
        self.held -= self._tensors.pop(key).size

    def _note(self) -> None:
        if self.held > self.peaks.setdefault(self._phase, Peak()).held:
            self.peaks[self._phase] = Peak(self.held, self.gradients)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [one for one in value if isinstance(one, Tensor)] if isinstance(value, (list, tuple)) else []


def _grouped(left: Tensor, right: Tensor, *rest: Any) -> Tensor:
    """What a grouped product gives, in any dtype: its kernels, and so its shapes, are for bfloat16 only."""
    if left.dim() == right.dim() == 2:
        return left.new_empty(len(rest[0]), left.shape[0], right.shape[1])
    return left.new_empty(*left.shape[:-1], right.shape[-1])


def _is_mask(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bool


def _flops(packet: Any, args: Any, out: Any) -> int:
    if packet not in INNER:
        return 0
    argument, dimension = INNER[packet]
    return int(2 * out.numel() * args[argument].shape[dimension])
