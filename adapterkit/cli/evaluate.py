"""``adapterkit evaluate``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from adapterkit.adapter import Adapter
from adapterkit.artifact.layout import CARD, MANIFEST, SIGNATURE
from adapterkit.artifact.writer import replace_manifest
from adapterkit.errors import ConfigError

from .acting import ActingText, open_acting
from .opening import (
    AsJson,
    BaseName,
    Columns,
    Device,
    Dtype,
    Format,
    Quantize,
    Revision,
    open_base,
)
from .options import check_file
from .plugins import PluginFiles  # noqa: TC001 - cyclopts reads the annotation
from .tables import print_table

if TYPE_CHECKING:
    from adapterkit.base import Base
    from adapterkit.compose import Acting
    from adapterkit.evaluation import Evaluation

__all__ = ["BatchSize", "MaxLength", "MaxNewTokens", "Metrics", "Resamples", "Seed", "evaluate", "shown"]

MaxNewTokens = Annotated[
    int | None, Parameter(help="The longest answer, in tokens; by default the longest expected one and a little more.")
]
MaxLength = Annotated[int, Parameter(help="Longer rows are cut as in training.")]
BatchSize = Annotated[int, Parameter(help="Rows in one batch.")]
Metrics = Annotated[
    tuple[str, ...],
    Parameter(
        help="A metric to compute, instead of each that says something of the data; may be given again.",
        negative="",
        show_default=False,
    ),
]
Resamples = Annotated[int, Parameter(help="Samples of the rows that intervals are made from; 0 for no intervals.")]
Seed = Annotated[int, Parameter(help="Governs the samples.")]
MOST_CONFUSED = 5


def evaluate(
    base: BaseName,
    data: Annotated[str | None, Parameter(help="A CSV, TSV, JSON, JSONL or Parquet file.")] = None,
    *,
    adapter: ActingText = None,
    columns: Columns = None,
    format: Format = None,  # noqa: A002 - the word that users know
    max_new_tokens: MaxNewTokens = None,
    max_length: MaxLength = 1024,
    batch_size: BatchSize = 64,
    metrics: Metrics = (),
    compare: Annotated[bool, Parameter(help="Score the base alone as well.")] = True,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    harness: Annotated[
        tuple[str, ...],
        Parameter(
            help="A task of lm-evaluation-harness, instead of DATA; may be given again.",
            negative="",
            show_default=False,
        ),
    ] = (),
    harness_folder: Annotated[str | None, Parameter(help="A folder with tasks of your own for it.")] = None,
    limit: Annotated[int | None, Parameter(help="At most so many rows of each of its tasks.")] = None,
    save: Annotated[
        bool, Parameter(help="Write the scores into the adapter's folder: its manifest and its card.", negative="")
    ] = False,
    name: Annotated[
        str | None, Parameter(help="What DATA is called there, such as 'Banking77 test'; its file's name by default.")
    ] = None,
    revision: Revision = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantize: Quantize = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Score an adapter on DATA, or on tasks of lm-evaluation-harness, beside the base alone.

    Behind each score stands, in brackets, between what values it may well lie on all rows of the kind.
    """
    if (data is None) == (not harness):
        raise ConfigError("evaluate does not fit", ["give DATA, or --harness TASK: one of the two"])
    if data is not None:
        check_file("DATA", data)
    problems = _unsaveable(adapter, save=save, harness=bool(harness), name=name)
    if problems:
        raise ConfigError("evaluate does not fit", problems)
    shared = open_base(base, plugin, revision=revision, dtype=dtype, device=device, quantize=quantize)
    chosen = open_acting(shared, adapter)
    if harness:
        _harness(shared, chosen, harness, harness_folder, limit, batch_size, compare=compare, as_json=as_json)
        return
    result = shared.evaluate(
        data,
        adapter=chosen,
        columns=columns,
        format=format,
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        batch_size=batch_size,
        metrics=metrics or None,
        compare=compare,
        resamples=resamples,
        seed=seed,
    )
    if save and isinstance(chosen, Adapter):
        _save(chosen.with_evaluation(result, name or ""), Path(str(adapter)))
    if as_json:
        print(json.dumps(result.to_json(answers=True), indent=2, ensure_ascii=False))
    else:
        _print(result)


def _unsaveable(adapter: str | None, *, save: bool, harness: bool, name: str | None) -> list[str]:
    """Why scores cannot be saved: said before the work, which would be lost."""
    if not save:
        return ["--name: says what saved scores are of; give --save as well"] if name is not None else []
    problems = ["--save: keeps scores on DATA; those of --harness are printed"] if harness else []
    if adapter is None or not Path(adapter).is_dir():
        problems.append(
            "--save: needs --adapter FOLDER, one adapter whose scores these are; evaluate a folder, then `store add` it"
        )
    elif not (Path(adapter) / MANIFEST).is_file():
        problems.append(f"--save: {adapter!r} has no {MANIFEST} to hold scores; save it with adapterkit first")
    return problems


def _save(adapter: Adapter, folder: Path) -> None:
    signed = (folder / SIGNATURE).exists()
    kept = replace_manifest(folder, adapter.manifest)
    print(f"scores written to {folder}", file=sys.stderr)
    if kept:
        print(f"{CARD} was edited by hand, and is as it was", file=sys.stderr)
    if signed:
        print(f"{SIGNATURE} was of the manifest as it was, and is gone: sign the adapter again", file=sys.stderr)


def _print(result: Evaluation) -> None:
    alone = result.base
    print_table(
        [name, shown(result, name), *([f"base {shown(alone, name)}"] if alone is not None else [])] for name in result
    )
    confused = result.details.get("f1", {}).get("confused", [])
    for one in confused[:MOST_CONFUSED]:
        print(f"{one['rows']} × {one['expected']!r} answered as {one['given']!r:.80}", file=sys.stderr)


def shown(result: Evaluation, name: str) -> str:
    """A score, and its interval in brackets."""
    if name not in result:
        return "–"
    low_high = result.intervals.get(name)
    return f"{result[name]:.4f}" + (f" [{low_high[0]:.4f}, {low_high[1]:.4f}]" if low_high else "")


def _harness(
    shared: Base,
    adapter: Acting | None,
    tasks: tuple[str, ...],
    folder: str | None,
    limit: int | None,
    batch_size: int,
    *,
    compare: bool,
    as_json: bool,
) -> None:
    from adapterkit.evaluation.harness import run_tasks

    contenders: dict[str, Acting | None] = {"adapter": adapter} if adapter is not None else {}
    if compare or not contenders:
        contenders["base"] = None
    found = {
        name: run_tasks(shared, tasks, adapter=one, folder=folder, limit=limit, batch_size=batch_size)
        for name, one in contenders.items()
    }
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    first, *others = found
    print_table(
        [
            task,
            score,
            f"{value:.4f}",
            *(f"{name} {found[name][task][score]:.4f}" for name in others),
        ]
        for task, scores in found[first].items()
        for score, value in scores.items()
    )
