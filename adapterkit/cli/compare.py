"""``adapterkit compare``."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import Parameter

from adapterkit.errors import ConfigError
from adapterkit.evaluation import read_marks, sum_up

from .acting import check_acting, open_acting
from .evaluate import BatchSize, MaxLength, MaxNewTokens, Metrics, Resamples, Seed, shown
from .opening import AsJson, Columns, Device, Dtype, Format, Quantize, Revision, open_base
from .options import check_file
from .plugins import PluginFiles  # noqa: TC001 - cyclopts reads the annotation
from .tables import print_table

if TYPE_CHECKING:
    from adapterkit.evaluation import Comparison

__all__ = ["compare"]


def compare(
    base: Annotated[str | None, Parameter(help="A folder with a model, or a Hub id.")] = None,
    data: Annotated[str | None, Parameter(help="A CSV, TSV, JSON, JSONL or Parquet file.")] = None,
    *,
    adapter: Annotated[
        tuple[str, ...],
        Parameter(
            help="An adapter, a blend or several, with a name: --adapter both=out/cards*0.7+out/tone*0.3; may be given again.",
            negative="",
            show_default=False,
        ),
    ] = (),
    columns: Columns = None,
    format: Format = None,  # noqa: A002 - the word that users know
    max_new_tokens: MaxNewTokens = None,
    max_length: MaxLength = 1024,
    batch_size: BatchSize = 64,
    metrics: Metrics = (),
    resamples: Resamples = 1000,
    seed: Seed = 0,
    html: Annotated[
        Path | None, Parameter(help="Write a page on which people read the answers side by side and mark them.")
    ] = None,
    blind: Annotated[
        bool, Parameter(help="Begin that page with names hidden and answers shuffled.", negative="")
    ] = False,
    marks: Annotated[
        tuple[Path, ...],
        Parameter(
            help="Sum up marks that the page wrote, and compare nothing; may be given again.",
            negative="",
            show_default=False,
        ),
    ] = (),
    revision: Revision = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantize: Quantize = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Score adapters on the same rows of DATA, beside the base alone, and test their differences."""
    if marks:
        if base is not None or adapter:
            raise ConfigError("compare does not fit", ["--marks sums up files: no BASE, DATA or --adapter beside it"])
        _sum_up(marks, as_json=as_json)
        return
    if base is None or data is None or not adapter:
        raise ConfigError(
            "compare does not fit", ["give BASE, DATA and --adapter NAME=ADAPTER; or --marks FILE to sum up marks"]
        )
    check_file("DATA", data)
    if html is not None and not html.parent.is_dir():  # said before the work, which would be lost
        raise ConfigError("compare does not fit", [f"--html: there is no folder {str(html.parent)!r}"])
    named = _named(adapter)
    shared = open_base(base, plugin, revision=revision, dtype=dtype, device=device, quantize=quantize)
    found = shared.compare(
        data,
        {name: open_acting(shared, text) for name, text in named.items()},
        columns=columns,
        format=format,
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        batch_size=batch_size,
        metrics=metrics or None,
        resamples=resamples,
        seed=seed,
    )
    if html is not None:
        found.to_html(html, blind=blind)
        print(f"answers side by side: {html}", file=sys.stderr)
    if as_json:
        print(json.dumps(found.to_json(answers=True), indent=2, ensure_ascii=False))
    else:
        _print(found)


def _named(given: tuple[str, ...]) -> dict[str, str]:
    """What each name stands for.

    Raises:
        ConfigError: One has no name, two have the same, or something is not there.
    """
    named: dict[str, str] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not (name and equals and text):
            raise ConfigError("--adapter does not fit", [f"{one!r} is not NAME=ADAPTER, as in short=out/adapter"])
        if name in named:
            raise ConfigError("--adapter does not fit", [f"two adapters are called {name!r}"])
        check_acting(text)
        named[name] = text
    return named


def _print(found: Comparison) -> None:
    scores = list(dict.fromkeys(score for one in found.values() for score in one))
    print_table(
        [["", *found], *([score, *(shown(one, score) for one in found.values())] for score in scores)],
    )
    if found.differences:
        print()
        print_table(
            [
                one.score,
                f"{one.first} - {one.second}",
                f"{one.value:+.4f}" + (f" [{one.interval[0]:+.4f}, {one.interval[1]:+.4f}]" if one.interval else ""),
                f"p = {one.p_value:.4f}" if one.p_value >= 1e-4 else "p < 0.0001",
                one.test,
            ]
            for one in found.differences
        )
    print(f"{len(found.differing())} of {len(found.answers)} rows are answered in more than one way", file=sys.stderr)


def _sum_up(files: tuple[Path, ...], *, as_json: bool) -> None:
    every = [read_marks(file) for file in files]
    found = sum_up(every)
    if as_json:
        readers: list[dict[str, Any]] = [
            {"file": str(file), "marks": len(one.best), "blind": one.blind}
            for file, one in zip(files, every, strict=True)
        ]
        print(json.dumps({"readers": readers, "pairs": [attrs.asdict(one) for one in found]}, indent=2))
        return
    print_table(
        [
            f"{one.first} against {one.second}",
            f"better {one.better}",
            f"worse {one.worse}",
            f"tie {one.ties}",
            f"p = {one.p_value:.4f}",
        ]
        for one in found
    )
    print(
        f"{sum(one.blind for one in every)} of {sum(len(one.best) for one in every)} marks were blind", file=sys.stderr
    )
