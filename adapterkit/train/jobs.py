"""What is asked for: one adapter to be trained, as a value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs.validators import ge

from adapterkit.config import build_config
from adapterkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["TRAIN_TAKES", "Job", "RunOptions", "name_jobs", "settled", "sort_options"]


@attrs.frozen(init=False)
class Job:
    """One adapter to be trained: what :meth:`adapterkit.Base.train` takes, as a value.

    Args:
        data: Its training rows.
        method: The name of a method plugin.
        name: What it is called in logs, and its folder in ``output``; by default its number.
        **options: What ``train`` takes besides.
    """

    data: Any
    method: str
    name: str
    options: Mapping[str, Any]

    def __init__(self, data: Any, *, method: str = "lora", name: str = "", **options: Any) -> None:
        self.__attrs_init__(data, method, name, options)


@attrs.frozen(kw_only=True)
class RunOptions:
    """What of a run is neither its method's nor its steps'."""

    objective: str = "sft"
    """What the run minimises."""
    general_data: Any = None
    """Raw text that the run is not about; what it forgets is measured on it, on passages of our own by default."""
    resume: bool = False
    """Go on from the last checkpoint in ``output``, where there is one."""
    report: bool = True
    """Write ``report.html`` into ``output``, with scores of the adapter and the base, and an audit of the data."""
    report_rows: int = attrs.field(default=200, validator=ge(0))
    """The most held-out rows that the report's scores are of."""


DATA_OPTIONS = ("columns", "format", "eval_data", "eval_split", "replay", "replay_ratio")
TRAIN_TAKES = ("data", "method", "output", *DATA_OPTIONS, *(field.name for field in attrs.fields(RunOptions)))


def sort_options(job: Job) -> tuple[dict[str, Any], RunOptions, dict[str, Any]]:
    """A job's options: those about its data, those about its run, and the others, which are its method's or its steps'.

    Raises:
        ConfigError: Values that do not fit.
    """
    rest = dict(job.options)
    about_data = {name: rest.pop(name) for name in DATA_OPTIONS if name in rest}
    about_run = {field.name: rest.pop(field.name) for field in attrs.fields(RunOptions) if field.name in rest}
    return about_data, build_config(RunOptions, about_run, what="options of train"), rest


def settled(jobs: Sequence[Job]) -> list[Job]:
    """The same jobs, with lists for iterators: rows are gone through more than once, and jobs may share them."""
    iterators = {id(job.data): job.data for job in jobs if isinstance(job.data, Iterator)}
    lists = {key: list(rows) for key, rows in iterators.items()}
    return [
        Job(lists[id(job.data)], method=job.method, name=job.name, **job.options) if id(job.data) in lists else job
        for job in jobs
    ]


def name_jobs(jobs: Sequence[Job]) -> list[Job]:
    """The same jobs, each with a name: its number where it has none.

    Raises:
        ConfigError: There is none, something is no job, or two have one name.
    """
    strange = [one for one in jobs if not isinstance(one, Job)]
    if not jobs or strange:
        problem = f"{strange[0]!r:.80} is no Job" if strange else "there is no job"
        raise ConfigError("train_many needs jobs", [f"{problem}: give Job(data, method=..., rank=...)"])
    named = [
        job if job.name else Job(job.data, method=job.method, name=str(n), **job.options) for n, job in enumerate(jobs)
    ]
    names = [job.name for job in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    bad = [name for name in names if Path(name).name != name]
    problems = [f"{name!r}: two jobs have this name" for name in twice]
    problems += [f"{name!r}: a job's name is that of its folder too, and may hold no separator" for name in bad]
    if problems:
        raise ConfigError("names of jobs do not fit", problems)
    return named
