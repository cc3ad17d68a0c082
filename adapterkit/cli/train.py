"""``adapterkit train``: its options are the method's own and the run's."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 - read when the command is made
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from adapterkit.base import Base
from adapterkit.config import option_names
from adapterkit.report import in_short

from .methods import command_for_method
from .options import check_file
from .plugins import PluginFiles  # noqa: TC001 - likewise
from .processes import is_main, share
from .sources import sources

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adapterkit.registry import Registry

__all__ = ["train_command"]


def train_command(arguments: Sequence[str]) -> Callable[..., None]:
    """The command for the method that ``arguments`` name; LoRA's where they name none."""
    return command_for_method(arguments, _train, _ABOUT)


_ABOUT = """Train an adapter on DATA with a method plugin; the options below are those of {method}.

The adapter lies in OUTPUT/adapter; its folder is printed, or with --json what became of the run."""


def _train(
    base: Annotated[str, Parameter(help="A folder with a model, or a Hub id.")],
    data: Annotated[
        str, Parameter(help="A CSV, TSV, JSON, JSONL or Parquet file; FILE=2 sees its rows twice an epoch.")
    ],
    *,
    output: Annotated[
        Path,
        Parameter(help="A folder for the adapter, log, checkpoints and report; an adapter already there is replaced."),
    ],
    method: Annotated[str, Parameter(help="The method plugin.")] = "lora",
    also: Annotated[
        list[str] | None, Parameter(help="More data, as FILE or FILE=WEIGHT; may be given several times.", negative="")
    ] = None,
    columns: Annotated[dict[str, str] | None, Parameter(help="Which column is what: --columns.prompt text.")] = None,
    format: Annotated[str | None, Parameter(help="The data's format, when the first row would not tell.")] = None,  # noqa: A002
    objective: Annotated[str, Parameter(help="What the run minimises.")] = "sft",
    eval_data: Annotated[
        str | None, Parameter(help="Held-out rows: their loss is logged, and scored at the end.")
    ] = None,
    eval_split: Annotated[
        float | None, Parameter(help="Hold out this part of DATA instead, or from 1 on so many rows.")
    ] = None,
    replay: Annotated[str | None, Parameter(help="Other rows to mix in, against forgetting.")] = None,
    replay_ratio: Annotated[float | None, Parameter(help="Their share of an epoch [default: 0.1].")] = None,
    general_data: Annotated[
        str | None, Parameter(help="Raw text on which forgetting is measured; passages of our own without it.")
    ] = None,
    resume: Annotated[bool, Parameter(help="Go on where the run in OUTPUT was cut off.", negative="")] = False,
    report: Annotated[bool, Parameter(help="Write OUTPUT/report.html.")] = True,
    revision: Annotated[str | None, Parameter(help="The base's Hub commit, tag or branch.")] = None,
    dtype: Annotated[str, Parameter(help="The base's dtype: auto, float32, bfloat16, float16.")] = "auto",
    device: Annotated[str, Parameter(help="Where the base is.")] = "auto",
    quantize: Annotated[str | None, Parameter(help="Load the base in nf4, fp4 or int8.")] = None,
    processes: Annotated[
        int, Parameter(help="Share the run among so many processes here: one for each GPU.", validator=Number(gte=1))
    ] = 1,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON.", negative="")] = False,
    plugin: PluginFiles = (),  # noqa: ARG001 - taken before the method's options can be known
    registry: Registry,
    arguments: Sequence[str],
    **options: Any,
) -> None:
    rows = sources(data, also or ())
    for option, file in (("--eval-data", eval_data), ("--replay", replay), ("--general-data", general_data)):
        if file is not None:
            check_file(option, file)
    share(arguments, processes)
    if quantize is not None and "quantize" in option_names(registry.method(method).config):
        options, quantize = {**options, "quantize": quantize}, None
    shared = Base(base, revision=revision, dtype=dtype, device=device, quantize=quantize, registry=registry)
    named: dict[str, Any] = {
        "method": method,
        "output": output,
        "columns": columns,
        "format": format,
        "objective": objective,
        "eval_data": eval_data,
        "eval_split": eval_split,
        "replay": replay,
        "replay_ratio": replay_ratio,
        "general_data": general_data,
        "resume": resume,
        "report": report,
    }
    adapter = shared.train(rows, **named, **options)
    folder = output / "adapter"
    if not is_main():
        return
    if as_json:
        print(json.dumps({"adapter": str(folder), "digest": adapter.digest, **adapter.manifest.training}, indent=2))
    else:
        print(f"{adapter.parameters:,} parameters trained; digest {adapter.digest}", file=sys.stderr)
        if report:
            print(in_short(output), file=sys.stderr)
        print(folder)
