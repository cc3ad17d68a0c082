"""What a run says while it goes on: a JSON line for each record, loggers and listeners told, a progress bar on a terminal."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from adapterkit.cures import for_missing
from adapterkit.errors import ConfigError, TrainingError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from adapterkit.contracts import Logger, Run, Sink
    from adapterkit.registry import Registry

__all__ = ["Bars", "Journal", "bars", "find_loggers"]

logger = logging.getLogger("adapterkit")


class Journal:
    """Takes the records of a run.

    Args:
        run: The run.
        registry: Whose listeners are told; None tells nobody.
        shown: Where progress is shown.
        loggers: Where the records go besides.
        writes: Whether this process writes and tells; of several that share a run, one does.
    """

    def __init__(
        self, run: Run, registry: Registry | None, shown: Bars, loggers: Sequence[Logger] = (), *, writes: bool = True
    ) -> None:
        self.records: list[dict[str, Any]] = []
        self._run, self._registry, self._writes = run, registry, writes
        self._show = shown.add(run) if writes else _nowhere
        self._loggers = loggers if writes else ()
        self._sinks: dict[str, Sink] = {}
        self._path: Path | None = run.output / "log.jsonl" if run.output and writes else None

    def begin(self) -> None:
        """Begin the log anew: an earlier run's may be there."""
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("", encoding="utf-8")

    def go_on_after(self, records: int) -> None:
        """Go on after so many records of the log that is there; what was written later is written again.

        Raises:
            TrainingError: It has fewer.
        """
        if self._path:
            written = self._path.read_text(encoding="utf-8") if self._path.is_file() else ""
            lines = written.splitlines(keepends=True)[:records]
            if len(lines) < records:
                raise TrainingError(
                    f"{str(self._path)!r} has {len(lines)} records, and the run that is to be resumed had written {records}: "
                    "put the log back, or start anew"
                )
            self._path.write_text("".join(lines), encoding="utf-8")
            self.records = [json.loads(line) for line in lines]

    def sync(self) -> None:
        """Bring the log to the disk: a checkpoint counts on what it has written so far."""
        if self._path and self._path.is_file():
            with self._path.open("rb") as file:
                os.fsync(file.fileno())

    def open(self) -> None:
        """Begin with the loggers, once it is known which records are kept; one that fails is left out from then on."""
        for one in self._loggers:
            with _left_out_if_it_fails(one.name):
                self._sinks[one.name] = one.open(self._run)

    def close(self, status: str) -> None:
        """The run is over: tell each logger that is left, once."""
        sinks, self._sinks = self._sinks, {}
        for name, sink in sinks.items():
            with _left_out_if_it_fails(name):
                sink.close(status)

    def __call__(self, record: dict[str, Any]) -> None:
        """Keep, write, show and tell one record."""
        self.records.append(record)
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        self._show(record)
        for name, sink in list(self._sinks.items()):
            with _left_out_if_it_fails(name, lambda: self._sinks.pop(name)):  # noqa: B023 - called at once
                sink.log(dict(record))
        if self._writes and self._registry:
            self._registry.notify("adapterkit_train_logged", run=self._run, record=record)

    def last(self, name: str, until: int | None = None) -> float | None:
        """The last value that was logged under ``name``, or the last one up to a step."""
        found = (one for one in reversed(self.records) if name in one and (until is None or one["step"] <= until))
        return next((one[name] for one in found), None)


def find_loggers(registry: Registry, names: Sequence[str]) -> list[Logger]:
    """The loggers that ``report_to`` names.

    Raises:
        ConfigError: No plugin provides one, or the library that it needs is not installed.
    """
    found, problems = [], []
    for name in dict.fromkeys(names):
        try:
            one = registry.logger(name)
        except UnknownNameError as error:
            problems.append(f"report_to: {error}")
            continue
        found.append(one)
        if one.requires and find_spec(one.requires.partition(".")[0]) is None:
            problems.append(f"report_to: {name!r} needs {one.requires}: {for_missing(one.requires)}")
    if problems:
        raise ConfigError("options of train do not fit", problems)
    return found


@contextlib.contextmanager
def _left_out_if_it_fails(name: str, undo: Callable[[], object] | None = None) -> Iterator[None]:
    """What goes wrong with a logger costs its records, and not the run."""
    try:
        yield
    except Exception:
        if undo:
            undo()
        logger.exception("logger %r failed and is left out from here on; the run goes on", name)


class Bars:
    """Progress bars with the loss, tokens per second and the time that is left; none where nobody looks."""

    def __init__(self, progress: Any = None) -> None:
        self._progress = progress

    def add(self, run: Run) -> Any:
        """A bar for one run: a function that takes its records."""
        if self._progress is None:
            return _nowhere
        title = f"training {run.name or run.method}"
        task = self._progress.add_task(title, total=run.steps, said="")

        def show(record: dict[str, Any]) -> None:
            if "loss" in record:
                said = f"loss {record['loss']:.3f}  {record['tokens_per_second']:,.0f} tokens/s"
            else:
                said = "  ".join(f"{name} {value:.3f}" for name, value in record.items() if name != "step")
            self._progress.update(task, completed=record["step"], said=said)

        return show


def _nowhere(record: dict[str, Any]) -> None:
    """Where no bar is, nothing is shown."""


@contextlib.contextmanager
def bars(*, shown: bool = True) -> Iterator[Bars]:
    """Bars on standard error, when that is a terminal and they are to be ``shown``."""
    if not shown or not sys.stderr.isatty():
        yield Bars()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:
        yield Bars(progress)
