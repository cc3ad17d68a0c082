"""What a run says while it goes on: a JSON line for each record, listeners told, and a progress bar on a terminal."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from adapterkit.contracts import Run
    from adapterkit.registry import Registry

__all__ = ["Journal", "journal"]


class Journal:
    """Takes the records of a run."""

    def __init__(self, run: Run, registry: Registry, bar: _Bar | None) -> None:
        self.records: list[dict[str, Any]] = []
        self._run, self._registry, self._bar = run, registry, bar
        self._path: Path | None = run.output / "log.jsonl" if run.output else None
        if self._path:  # a log of an earlier run is begun anew
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("", encoding="utf-8")

    def __call__(self, record: dict[str, Any]) -> None:
        """Keep, write, show and tell one record."""
        self.records.append(record)
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        if self._bar:
            self._bar.show(record)
        self._registry.notify("adapterkit_train_logged", run=self._run, record=record)

    def last(self, name: str) -> float | None:
        """The last value that was logged under ``name``."""
        return next((record[name] for record in reversed(self.records) if name in record), None)


class _Bar:
    """A progress bar with the loss, tokens per second and the time that is left."""

    def __init__(self, steps: int, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task = self.progress.add_task(title, total=steps, said="")

    def show(self, record: dict[str, Any]) -> None:
        """Move to the record's step."""
        if "loss" in record:
            said = f"loss {record['loss']:.3f}  {record['tokens_per_second']:,.0f} tokens/s"
        else:
            said = "  ".join(f"{name} {value:.3f}" for name, value in record.items() if name != "step")
        self.progress.update(self.task, completed=record["step"], said=said)


@contextlib.contextmanager
def journal(run: Run, registry: Registry) -> Iterator[Journal]:
    """A journal that is open within this block."""
    if not sys.stderr.isatty():
        yield Journal(run, registry, None)
        return
    bar = _Bar(run.steps, f"training {run.method}")
    with bar.progress:
        yield Journal(run, registry, bar)
