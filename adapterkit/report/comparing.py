"""Several runs side by side: what differed, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.errors import ConfigError, UnknownNameError

from .differences import differences
from .reading import read_run
from .scores import all_scores, lower_is_better
from .verdicts import measured_forgetting, price
from .writing import write_page

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .reading import RunFolder
    from .scores import Score
    from .verdicts import Forgetting

__all__ = ["ComparedRun", "RunComparison", "compare_runs", "summarise"]

SORTS = ("started", "name", "seconds", "forgetting")
DONE = ("finished", "stopped early")
"""Runs that ended with an adapter: one that broke off early has forgotten little, which is no merit."""
SAME = 1e-3
"""Perplexities of the base that are nearer than this part of themselves were measured on the same text."""


@attrs.frozen(kw_only=True)
class ComparedRun:
    """One of several runs.

    Attributes:
        name: Its folder's name, with as many of the folders above it as tell it from the others.
        color: The number of its colour: by when it was started, however the runs are sorted.
        folder: What it left behind.
        scores: By name.
        forgetting: Perplexity of general text, before and after; None when it was not measured.
        cost: In the currency of the price; None without one.
    """

    name: str
    color: int
    folder: RunFolder
    scores: Mapping[str, Score]
    forgetting: Forgetting | None
    cost: float | None

    @property
    def held_out(self) -> str | None:
        """The digest of the rows that it was scored on."""
        digest = (self.folder.run.eval_data or {}).get("digest")
        return digest if isinstance(digest, str) else None

    def to_json(self) -> dict[str, Any]:
        """The run as JSON values."""
        told = self.folder.run
        return {
            "name": self.name,
            "folder": str(self.folder.path),
            **{
                name: getattr(told, name)
                for name in ("method", "status", "reason", "started", "last_step", "best_step")
            },
            **{name: getattr(told, name) for name in ("seconds", "tokens", "peak_memory", "parameters", "adapter")},
            "cost": self.cost,
            "eval_data": self.held_out,
            "scores": {name: score.value for name, score in self.scores.items()},
            "intervals": {name: score.interval for name, score in self.scores.items() if score.interval},
            "base": {name: score.base for name, score in self.scores.items() if score.base is not None},
            "forgetting": None
            if self.forgetting is None
            else {"before": self.forgetting.before, "after": self.forgetting.after, "rise": self.forgetting.rise},
        }


@attrs.frozen(kw_only=True)
class RunComparison:
    """Runs side by side.

    Attributes:
        runs: In the order that was asked for.
        differences: Options and circumstances that are not the same in all: by name, a value for each run.
        best: By score, and for ``forgetting``, the names of the runs with the best value; a score that was not measured on the
            same rows for all has none.
    """

    runs: tuple[ComparedRun, ...]
    differences: Mapping[str, tuple[Any, ...]]
    best: Mapping[str, tuple[str, ...]]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "runs": [run.to_json() for run in self.runs],
            "differences": {name: list(values) for name, values in self.differences.items()},
            "best": {name: list(names) for name, names in self.best.items()},
        }

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """One page that fetches nothing; written to ``path`` too, where one is given.

        Raises:
            RunError: It cannot be written, or a file is there that no report was written to.
        """
        from .comparison_page import comparison_page

        text = comparison_page(self)
        if path is not None:
            write_page(Path(path), text)
        return text


def summarise(folder: RunFolder, price_per_hour: float | None = None, *, name: str = "", color: int = 0) -> ComparedRun:
    """What a comparison, or ``adapterkit report --json``, says of one run."""
    return ComparedRun(
        name=name or folder.name,
        color=color,
        folder=folder,
        scores={score.name: score for score in all_scores(folder.evaluation)},
        forgetting=measured_forgetting(folder),
        cost=price(folder, price_per_hour),
    )


def compare_runs(
    folders: Iterable[str | os.PathLike[str]], *, sort: str = "started", price_per_hour: float | None = None
) -> RunComparison:
    """Put runs side by side.

    Args:
        folders: Two runs' folders or more.
        sort: ``"started"``, ``"name"``, ``"seconds"``, ``"forgetting"`` or a score, the best first; runs that lack it come last.
        price_per_hour: What an hour of the machine costs, in any currency.

    Raises:
        ConfigError: Fewer than two runs, or one of them twice.
        RunError: A folder is no run's, or a file in it cannot be read.
        UnknownNameError: Nothing to sort by has this name.
    """
    paths = [Path(folder) for folder in folders]
    _check_several(paths)
    found = sorted((read_run(path) for path in paths), key=lambda one: (one.run.started or "", str(one.path)))
    named = zip(_names(found), found, strict=True)
    runs = [summarise(folder, price_per_hour, name=name, color=color) for color, (name, folder) in enumerate(named)]
    names = list(dict.fromkeys(name for run in runs for name in run.scores))
    if sort not in (*SORTS, *names):
        raise UnknownNameError("order", sort, (*SORTS, *names))
    runs.sort(key=_order(sort))
    best = {name: _best(runs, name) for name in names} | {"forgetting": _least_forgotten(runs)}
    return RunComparison(
        runs=tuple(runs),
        differences=differences([run.folder for run in runs]),
        best={name: found for name, found in best.items() if found},
    )


def _check_several(paths: Sequence[Path]) -> None:
    real = [path.resolve() for path in paths]
    twice = [str(path) for place, path in enumerate(paths) if real[place] in real[:place]]
    problems = [f"{path!r} is given twice" for path in dict.fromkeys(twice)]
    if len(paths) < 2:
        problems.append(f"a comparison takes two or more, not {len(paths)}; write_report is for one")
    if problems:
        raise ConfigError("runs do not fit", problems)


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """As short as they can be told apart."""
    parts = [folder.path.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder.path.resolve()) for folder in folders]


def _order(sort: str) -> Callable[[ComparedRun], tuple[bool, Any]]:
    def key(run: ComparedRun) -> tuple[bool, Any]:
        value: Any
        if sort in ("started", "name"):
            value = run.folder.run.started if sort == "started" else run.name
        elif sort == "seconds":
            value = run.folder.run.seconds
        elif sort == "forgetting":
            value = run.forgetting.rise if run.forgetting else None
        else:
            score = run.scores.get(sort)
            value = None if score is None else score.value if lower_is_better(sort) else -score.value
        return value is None, 0 if value is None else value

    return key


def _best(runs: Sequence[ComparedRun], name: str) -> tuple[str, ...]:
    """The runs with the best score; none where it was not measured on the same rows for all that have it."""
    measured = [run for run in runs if name in run.scores]
    rows = {run.held_out for run in measured}
    if len(rows) != 1 or None in rows:
        return ()
    sign = 1 if lower_is_better(name) else -1
    return _least({run.name: sign * run.scores[name].value for run in measured})


def _least_forgotten(runs: Sequence[ComparedRun]) -> tuple[str, ...]:
    """The run whose general perplexity has risen least; none where the bases' own was not the same."""
    measured = {
        run.name: run.forgetting for run in runs if run.forgetting is not None and run.folder.run.status in DONE
    }
    before = [one.before for one in measured.values()]
    if not before or max(before) - min(before) > SAME * min(before):
        return ()
    return _least({name: one.rise for name, one in measured.items()})


def _least(values: Mapping[str, float]) -> tuple[str, ...]:
    """The names with the least value; none where it is that of all."""
    least = min(values.values())
    return () if max(values.values()) == least else tuple(name for name, value in values.items() if value == least)
