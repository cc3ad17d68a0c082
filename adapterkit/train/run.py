"""Training runs, from data to adapters: of one adapter, or of several over one base."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adapterkit.errors import AdapterkitError, ConfigError, JobsFailedError
from adapterkit.kernels import fused, has_kernels

from .concluding import conclude, fail
from .fleet import Fleet
from .forward import recomputing
from .interrupting import interruptible
from .jobs import Job, name_jobs, settled
from .journal import bars
from .passes import Together, alone
from .preparing import Around, begin, prepare
from .processes import Processes
from .record import begin_measuring

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from adapterkit.adapter import Adapter
    from adapterkit.base import Base
    from adapterkit.contracts import TrainOptions

    from .preparing import Prepared

__all__ = ["train", "train_many"]

ONE_AT_A_TIME = threading.Lock()
"""torch draws from one random state for the whole process; runs that took turns in it step by step would disturb each other."""
OF_THE_PASS = ("bf16", "gradient_checkpointing", "activation_offload", "use_fused_kernels")
"""Options that belong to a forward pass as a whole."""


def train(
    base: Base, data: Any, *, method: str, output: str | os.PathLike[str] | None = None, **options: Any
) -> Adapter:
    """See :meth:`adapterkit.Base.train`."""
    job = Job(data, method=method, **options)
    with running(base, [job], [Path(output) if output is not None else None]) as (ready, interrupted):
        (one,) = ready
        if one.done is not None:
            return one.done if one.training.processes.lockstep else base.load(one.done)
        fleet = Fleet([one.training], lambda passes: [alone(each) for each in passes], interrupted)
        fleet.run()
        if fleet.failed:
            raise fleet.failed[one.training]
        if fleet.stopped:
            raise KeyboardInterrupt(_interrupted(ready))
        return conclude(base, one)


def train_many(base: Base, jobs: Sequence[Job], *, output: str | os.PathLike[str] | None = None) -> list[Adapter]:
    """See :meth:`adapterkit.Base.train_many`."""
    named = name_jobs(jobs)
    folders = [Path(output, job.name) if output is not None else None for job in named]
    with running(base, named, folders) as (ready, interrupted):
        fleets = [
            Fleet([one.training for one in those], together(those), interrupted) for those in by_base(still(ready))
        ]
        for fleet in fleets:
            fleet.run()
        failed = {one: error for fleet in fleets for one, error in fleet.failed.items()}
        stopped = [one for fleet in fleets for one in fleet.stopped]
        adapters = []
        for one in ready:
            error = failed.get(one.training)
            if error is not None:
                fail(one, error)
            ended = error is None and one.training not in stopped
            adapters.append(base.load(one.done) if one.done else conclude(base, one) if ended else None)
    if stopped:
        raise KeyboardInterrupt(_interrupted(ready))
    if failed:
        problems = {one.training.run.name: failed[one.training] for one in ready if one.training in failed}
        raise JobsFailedError(problems, adapters)
    return [one for one in adapters if one is not None]


@contextlib.contextmanager
def running(
    base: Base, jobs: Sequence[Job], folders: Sequence[Path | None]
) -> Iterator[tuple[list[Prepared], list[bool]]]:
    """What a run needs around it: every job prepared, its start told, and its failure noted."""
    with ONE_AT_A_TIME, torch.enable_grad(), contextlib.ExitStack() as stack:
        processes = Processes.start()
        stack.enter_context(processes.sharing())
        shown = stack.enter_context(bars(shown=processes.main))
        around = Around(shown, processes, stack)
        ready = []
        for job, folder in zip(settled(jobs), folders, strict=True):
            with _named(job, len(jobs)):
                ready.append(prepare(base, job, folder, around))
        _check_agree(ready)
        for one in still(ready):
            begin(one, stack)
        interrupted = stack.enter_context(interruptible())
        for those in by_base(ready):
            stack.enter_context(passing(those[0].base, those[0].training.options))
        try:
            for one in still(ready):
                one.record.update()
                if processes.main:
                    one.base.registry.notify("adapterkit_train_started", run=one.training.run)
            for one in still(ready):
                one.training.log.open()
            begin_measuring(base.device)
            yield ready, interrupted
        except BaseException as error:
            for one in still(ready):
                if one.record.values["status"] == "running":
                    fail(one, error)
            raise


@contextlib.contextmanager
def passing(base: Base, options: TrainOptions) -> Iterator[None]:
    """What belongs to a forward pass as a whole, as the options have it."""
    with contextlib.ExitStack() as stack:
        if has_kernels(base.device) if options.use_fused_kernels is None else options.use_fused_kernels:
            stack.enter_context(fused(base.model, lambda: base.runtime.override(None)))
        if options.gradient_checkpointing:
            stack.enter_context(recomputing(base.model, base.runtime))
        yield


@contextlib.contextmanager
def _named(job: Job, of: int) -> Iterator[None]:
    """Within this block an error says which of several jobs it is of."""
    try:
        yield
    except AdapterkitError as error:
        if of > 1:
            error.args = (f"job {job.name!r}: {error}", *error.args[1:])
        raise


def still(ready: Sequence[Prepared]) -> list[Prepared]:
    """Those that have not reached their end in an earlier life."""
    return [one for one in ready if one.done is None]


def by_base(ready: Sequence[Prepared]) -> list[list[Prepared]]:
    """Those that share a base together: some methods train on a quantized twin."""
    groups: dict[int, list[Prepared]] = {}
    for one in ready:
        groups.setdefault(id(one.base), []).append(one)
    return list(groups.values())


def together(ready: Sequence[Prepared]) -> Together:
    """Makes the passes of all as one.

    Raises:
        ConfigError: Several processes share the run, in which each job would have to wait for every other.
    """
    if ready[0].training.processes.count > 1:
        raise ConfigError(
            "train_many does not fit", ["several processes: start it in one, or train the jobs one by one"]
        )
    return Together(ready[0].base)


def _check_agree(ready: Sequence[Prepared]) -> None:
    for those in by_base(ready):
        for name in OF_THE_PASS:
            values = {one.training.run.name: getattr(one.training.options, name) for one in those}
            if len(set(values.values())) > 1:
                said = ", ".join(f"{job}: {value}" for job, value in values.items())
                raise ConfigError(
                    "jobs do not fit together", [f"{name}: must be the same for all, and is not ({said})"]
                )


def _interrupted(ready: Sequence[Prepared]) -> str:
    said = [f"step {one.training.step} of {one.training.schedule.steps}" for one in ready]
    kept = "; go on with resume=True" if ready[0].training.checkpoints else ""
    return f"interrupted after {', '.join(said)}{kept}"
