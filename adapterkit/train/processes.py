"""The processes that share a run."""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import hashlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import torch
from torch import distributed, nn

from adapterkit.errors import ConfigError, TrainingError
from adapterkit.loading import default_device, set_own_device

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

__all__ = ["Processes"]

T = TypeVar("T")
STARTED_BY = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What ``accelerate launch`` and ``torchrun`` tell each process."""
OTHERS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism_config",
}
"""What accelerate may have been asked for besides, which an adapter's run has nothing to gain from."""
LONGEST_WAIT = dt.timedelta(days=1)
"""How long a process waits for another: the main one may be generating answers for its report."""
GONE = "gloo/transport/"
"""Where gloo's errors come from when the process at the other end of a connection has closed it, or was killed."""
BUCKET = 2**26
"""How many numbers are added up at once: 256 MiB in float32, which is what the sum takes besides the gradients."""


class _ElsewhereError(TrainingError):
    """What went wrong in another process: all know of it already."""


@attrs.define(eq=False)
class Processes:
    """How many processes share a run, and which one this is.

    Each holds the base and the whole adapter, takes its part of each step's batches, and adds up gradients with the others
    before the optimizer's step. Adapters are small: a few sums over all of them cost less than wrapping the model would.

    Between these sums each works by itself. Wherever they come together they also learn whether one of them has failed, so
    that none waits for a process that is gone.

    Attributes:
        rank: This process; 0 is the one that writes.
        count: All of them.
        host: The group in which they exchange what is in the host's memory; None for one process.
        lockstep: Whether each forward and backward pass is made by all at once, as a base in pieces needs it.
    """

    rank: int = 0
    count: int = 1
    host: Any = None
    lockstep: bool = False

    @classmethod
    def here(cls) -> Processes:
        """What torch.distributed says; one process when it was not started."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @classmethod
    def start(cls) -> Processes:
        """The same, after starting torch.distributed where this is one of several processes and nobody has done it yet.

        Raises:
            ConfigError: The launcher was asked for what this training does not do.
        """
        _check_launcher()
        several = all(os.environ.get(name) for name in STARTED_BY) and int(os.environ["WORLD_SIZE"]) > 1
        if several and not distributed.is_initialized():
            distributed.init_process_group(distributed.get_default_backend_for_device(default_device().type))
            atexit.register(_leave)
        found = cls.here()
        if found.count > 1:
            set_own_device()
            found.host = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
        return found

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and shows."""
        return self.rank == 0

    # -- what all of them do at once ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def sharing(self) -> Iterator[None]:
        """Within this block an error in one process is an error in all; none leaves it before all have come to its end.

        A process that fails while others are in a pass that needs it cannot tell them: it ends, and the launcher ends them.
        """
        if self.count == 1:
            yield
            return
        try:
            with self._quiet():
                yield
                self.meet()
            distributed.destroy_process_group(self.host)
        except BaseException as error:
            atexit.unregister(_leave)  # which would wait for those who wait for this one
            if self.lockstep and GONE in str(error):
                raise _gone(error) from error
            if isinstance(error, Exception) and not isinstance(error, _ElsewhereError) and not self.lockstep:
                with contextlib.suppress(_ElsewhereError):  # all that is left to say was said
                    self.meet(error=error)
            raise

    def meet(
        self, first: float = 0.0, second: float = 0.0, *, error: BaseException | None = None
    ) -> tuple[float, float]:
        """Wait for all; the sums of what each has brought along.

        Raises:
            TrainingError: Another process has failed, or is gone; says what it said.
        """
        if self.count == 1:
            return first, second
        brought = torch.tensor([error is not None, first, second], dtype=torch.float64)
        self._add_up(brought)
        failed, first, second = brought.tolist()
        if failed:
            self._tell(error)
        return first, second

    def exchange(self, value: T) -> list[T]:
        """What each process gives, by rank."""
        if self.count == 1:
            return [value]
        self.meet()
        return self._gather(value)

    def from_main(self, value: T) -> T:
        """What the main process gives."""
        return self.exchange(value if self.main else None)[0]  # type: ignore[return-value]

    def check_same(self, values: Mapping[str, Any]) -> None:
        """Find that all processes have the same: plain values, or layers, by their bits.

        Raises:
            TrainingError: Names what differs, in which process.
        """
        if self.count == 1:
            return
        found = self.exchange(
            {name: _digest(one) if isinstance(one, nn.Module) else one for name, one in values.items()}
        )
        for rank, theirs in enumerate(found):
            names = sorted(name for name in found[0].keys() | theirs.keys() if found[0].get(name) != theirs.get(name))
            if names:
                raise TrainingError(
                    f"processes 0 and {rank} do not do the same: {names[0]} is {found[0].get(names[0])!s:.80} and "
                    f"{theirs.get(names[0])!s:.80}. All need the same base, data and options, and see the same files"
                )

    def anywhere(self, here: Sequence[bool]) -> list[bool]:
        """For each of ``here``, whether it is so in any process."""
        if self.count == 1:
            return list(here)
        found = torch.tensor(here, dtype=torch.float32)
        self._add_up(found)
        return [bool(one) for one in found.tolist()]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the sum of all processes' gradients; where one has none, it is zero."""
        if self.count == 1:
            return
        for bucket in _buckets(one for one in parameters if one.requires_grad):
            flat = torch.cat([(torch.zeros_like(one) if one.grad is None else one.grad).reshape(-1) for one in bucket])
            self._add_up(flat)
            for one, total in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
                one.grad = total.view_as(one).clone() if one.grad is None else one.grad.copy_(total.view_as(one))

    def check_apart(self, device: torch.device) -> None:
        """Find that each process computes on a GPU of its own.

        Raises:
            ConfigError: Two share one.
        """
        if self.count == 1 or device.type != "cuda":
            return
        places = self.exchange((socket.gethostname(), str(torch.cuda.get_device_properties(device).uuid)))
        taken = {place: rank for rank, place in reversed(list(enumerate(places)))}
        for rank, place in enumerate(places):
            if taken[place] != rank:
                reason = (
                    f"processes {taken[place]} and {rank} compute on the same GPU of {place[0]!r}: start one for each GPU, and "
                    "load the base with device='auto', or onto f'cuda:{LOCAL_RANK}'"
                )
                raise ConfigError("the processes do not fit", [reason])

    def part(self, passes: Sequence[T]) -> Iterator[tuple[T, bool]]:
        """This process's part of forward passes that all share; in lockstep, who has fewer makes one more, which counts nothing."""
        mine = passes[self.rank :: self.count]
        yield from ((one, True) for one in mine)
        if self.lockstep and len(mine) * self.count < len(passes):
            yield passes[0], False

    # -- how ----------------------------------------------------------------------------------------------------------

    def _gather(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value, group=self.host)
        return found

    def _add_up(self, tensor: Tensor) -> None:
        try:
            distributed.all_reduce(tensor, group=self.host if tensor.device.type == "cpu" else None)
        except RuntimeError as error:  # gloo's; NCCL waits, until the launcher ends this process
            raise _gone(error) from error

    def _tell(self, error: BaseException | None) -> None:
        said = self._gather(None if error is None else str(error) or type(error).__name__)
        if error is None:
            rank, what = next((rank, what) for rank, what in enumerate(said) if what is not None)
            raise _ElsewhereError(f"process {rank} of {self.count}: {what}")

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Within this block, all processes but the main one say what went wrong, and nothing else."""
        logger = logging.getLogger("adapterkit")

        def passes(record: logging.LogRecord) -> bool:
            return self.main or record.levelno >= logging.ERROR

        logger.addFilter(passes)
        try:
            yield
        finally:
            logger.removeFilter(passes)


def _check_launcher() -> None:
    for name, what in OTHERS.items():
        if os.environ.get(name, "false").lower() == "true":
            reason = (
                f"{what}: only adapters are trained, and they and their optimizer are too small to be worth dividing. Leave it "
                "out: processes then share each step; with fsdp=True they share the base's weights too"
            )
            raise ConfigError("accelerate's configuration does not fit", [reason])


def _digest(layers: nn.Module) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(layers.state_dict().items()):
        total.update(name.encode())
        total.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return total.hexdigest()


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _gone(error: BaseException) -> _ElsewhereError:
    reason = str(error).splitlines()[0].partition(". ")[0]
    return _ElsewhereError(f"a process that shares this run is gone; what it said is the reason ({reason})")


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters in their order, as many at a time as are added up at once."""
    bucket: list[nn.Parameter] = []
    for one in parameters:
        if bucket and sum(other.numel() for other in bucket) + one.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(one)
    if bucket:
        yield bucket
