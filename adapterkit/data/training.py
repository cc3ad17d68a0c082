"""The rows of a training run: from one source or several, with rows held out and others mixed in."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from adapterkit.contracts import Preference
from adapterkit.errors import ConfigError

from .dataset import Collector
from .formats import applies
from .mixture import Mixture, times
from .reading import iter_rows
from .splitting import check_split, held_out

if TYPE_CHECKING:
    from adapterkit.registry import Registry

    from .dataset import Encoded, Part
    from .examples import Examples
    from .rendering import Renderer
    from .reports import Report

__all__ = ["REPLAY_RATIO", "Source", "TrainingData", "load_training_data", "sources_of"]

logger = logging.getLogger("adapterkit")
REPLAY_RATIO = 0.1
"""How much of an epoch is replay, where that is not said."""
MOST_DRAWN = 10**8
"""How many rows an epoch may have where rows are drawn more than once: their numbers have to be in memory."""


@attrs.frozen
class Source:
    """Where rows are from.

    Attributes:
        data: What :func:`~adapterkit.data.reading.read_rows` takes.
        weight: How often an epoch sees each of them.
    """

    data: Any
    weight: float = 1.0


@attrs.frozen
class TrainingData:
    """The rows of a run.

    Attributes:
        rows: Those of ``data`` that are trained on.
        held_out: Those of ``eval_data`` or of ``eval_split``; None without either.
        replay: Those of ``replay``; None without.
        examples: What row numbers mean: the rows of ``data``, source after source, and those of ``replay``.
        mixture: Which of these rows each epoch has.
    """

    rows: Encoded
    held_out: Encoded | None
    replay: Encoded | None
    examples: Examples
    mixture: Mixture

    @property
    def reports(self) -> dict[str, Report]:
        """What became of the rows, by the option that they came by."""
        parts = {"data": self.rows, "eval_data": self.held_out, "replay": self.replay}
        return {name: part.report for name, part in parts.items() if part is not None}


def load_training_data(
    data: Any,
    *,
    eval_data: Any = None,
    eval_split: float | None = None,
    replay: Any = None,
    replay_ratio: float | None = None,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
    renderer: Renderer,
    registry: Registry,
    seed: int = 0,
) -> TrainingData:
    """Read and encode all rows of a run.

    Args:
        data: A source of rows; a list of paths; or a mapping from path to weight: how often an epoch sees each row of it.
        eval_data: Rows to hold out, from elsewhere: whatever ``data`` may be, weights but for 1 excepted.
        eval_split: The part of ``data`` to hold out, or the number of rows; see :func:`~adapterkit.data.splitting.held_out`.
        replay: Other rows to mix in, so that what they show is not forgotten: whatever ``data`` may be.
        replay_ratio: Their share of the rows of an epoch; 0.1 by default.
        columns: The data's column for each field of the format. Where there are several sources, for those that have one of
            these columns; the others, and ``replay``, are read by the names that they have.
        format: The name of the format, likewise.
        renderer: Of the base's tokenizer.
        registry: Where data formats come from.
        seed: Decides what is held out, and which part of a source an epoch sees.

    Raises:
        ConfigError: Options that do not fit, together.
        DataError: Rows that cannot be used, with file and line.
    """
    sources, evaluated, others = (sources_of(one) for one in (data, eval_data, replay))
    _check(evaluated, eval_split, others, replay_ratio)
    collector = Collector(renderer, registry)

    def read(these: Sequence[Source], *, loose: bool) -> list[Part]:
        return [collector.add(one.data, columns, format, where_they_apply=loose) for one in these]

    parts = read(sources, loose=_differ(sources, registry, columns, format))
    held = read(evaluated, loose=_differ(evaluated, registry, columns, format))
    mixed_in = read(others, loose=True)

    rows = collector.encoded(parts)
    drawn = held_out(rows.records, eval_split, seed) if eval_split is not None else []
    if drawn:
        rows = collector.encoded(parts, without=drawn)
    apart = collector.encoded(held) if held else collector.only(drawn) if drawn else None
    _say_what_is_trained(rows)

    left = [np.setdiff1d(np.arange(part.usable.start, part.usable.stop), drawn, assume_unique=True) for part in parts]
    more = [np.arange(part.usable.start, part.usable.stop) for part in mixed_in]
    seen = [times(source.weight, len(numbers)) for source, numbers in zip(sources, left, strict=True)]
    extra = _share_out(
        _replayed(sum(seen), replay_ratio), [one.weight * len(n) for one, n in zip(others, more, strict=True)]
    )
    _check_drawn((*seen, *extra), sum(map(len, (*left, *more))))
    return TrainingData(
        rows,
        apart,
        collector.encoded(mixed_in) if mixed_in else None,
        collector.examples.pick(np.concatenate([*left, *more])),
        Mixture(tuple(map(len, (*left, *more))), (*seen, *extra), seed),
    )


def sources_of(data: Any) -> tuple[Source, ...]:
    """The sources that ``data`` names: one; or a list of paths, or a mapping from path to weight; none when it is None.

    Raises:
        ConfigError: A weight is not a number above 0.
    """
    if data is None:
        return ()
    if isinstance(data, (list, tuple)) and data and all(map(_is_path, data)):
        return tuple(map(Source, data))
    weighted = isinstance(data, Mapping) and data and all(map(_is_path, data))
    if not weighted or not all(isinstance(weight, (int, float)) for weight in data.values()):
        return (Source(data),)
    bad = [
        f"the weight of {str(path)!r} must be a number above 0, not {weight!r}"
        for path, weight in data.items()
        if isinstance(weight, bool) or not math.isfinite(weight) or weight <= 0
    ]
    if bad:
        raise ConfigError("the data's weights do not fit", bad)
    return tuple(Source(path, float(weight)) for path, weight in data.items())


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def _check(
    evaluated: Sequence[Source], eval_split: float | None, others: Sequence[Source], replay_ratio: float | None
) -> None:
    problems = []
    if eval_split is not None:
        problems.append(check_split(eval_split))
        if evaluated:
            problems.append("eval_split: eval_data is given as well; rows are held out by one of them")
    if any(source.weight != 1 for source in evaluated):
        problems.append("eval_data: rows that are held out are all seen once; give paths without weights")
    if replay_ratio is not None:
        fits = isinstance(replay_ratio, (int, float)) and 0 < replay_ratio < 1
        problems.append("" if fits else f"replay_ratio: must be between 0 and 1, not {replay_ratio!r}")
        problems.append("" if others else "replay_ratio: needs replay, the rows to mix in")
    if any(problems):
        raise ConfigError("options of train do not fit", [problem for problem in problems if problem])


def _differ(
    sources: Sequence[Source],
    registry: Registry,
    columns: Mapping[str, str] | None,
    format: str | None,  # noqa: A002 - the word that users know
) -> bool:
    """Whether ``columns`` and ``format`` are for some of several sources only; where they fit none, each says so."""
    if len(sources) < 2 or (not columns and format is None):
        return False
    return any(applies(next(iter_rows(one.data)).cells, registry, columns, format) for one in sources)


def _replayed(rows: int, ratio: float | None) -> int:
    """How many rows make that part of an epoch, beside so many others."""
    share = REPLAY_RATIO if ratio is None else ratio
    return max(1, round(rows * share / (1 - share)))


def _check_drawn(drawn: Sequence[int], rows: int) -> None:
    if sum(drawn) > max(MOST_DRAWN, rows):
        raise ConfigError(
            "the data's weights do not fit",
            [
                f"an epoch would have {sum(drawn):.3g} rows, of {rows:,} that there are; lower the weights, or replay_ratio"
            ],
        )


def _share_out(count: int, sizes: Sequence[float]) -> list[int]:
    """So many rows from sources of these sizes, in proportion."""
    edges = [round(count * edge / sum(sizes)) for edge in accumulate(sizes, initial=0.0)] if sizes else [0]
    return [end - start for start, end in pairwise(edges)]


def _say_what_is_trained(rows: Encoded) -> None:
    if isinstance(rows.records[0], Preference):
        logger.warning("the rows are preferences: the chosen answers are trained, and the rejected ones are left out")
