"""``adapterkit sweep``: a search for settings."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - read when the command is made
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from adapterkit.base import Base
from adapterkit.config import option_names
from adapterkit.errors import ConfigError
from adapterkit.train.sweep import SweepOptions

from .methods import command_for_method
from .options import check_file, parameters
from .plugins import PluginFiles  # noqa: TC001 - likewise
from .sources import sources

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adapterkit.registry import Registry
    from adapterkit.train.sweep import Sweep

__all__ = ["sweep_command"]

_ABOUT = """Search for settings: every configuration of a grid begins, in shared passes over one base; the better ones go on.

The loss on held-out rows decides. Options below are those of {method}; one that the grid has is not given besides."""


def sweep_command(arguments: Sequence[str]) -> Callable[..., None]:
    """The command for the method that ``arguments`` name; LoRA's where they name none."""
    return command_for_method(arguments, _sweep, _ABOUT, more=parameters(SweepOptions))


def _sweep(
    base: Annotated[str, Parameter(help="A folder with a model, or a Hub id.")],
    data: Annotated[str, Parameter(help="A CSV, TSV, JSON, JSONL or Parquet file.")],
    *,
    grid: Annotated[
        list[str],
        Parameter(help="An option and its values: --grid learning_rate=1e-4,1e-3 --grid rank=4,16.", negative=""),
    ],
    output: Annotated[Path | None, Parameter(help="A folder for the runs, each in a folder of its own.")] = None,
    method: Annotated[str, Parameter(help="The method plugin.")] = "lora",
    columns: Annotated[dict[str, str] | None, Parameter(help="Which column is what: --columns.prompt text.")] = None,
    format: Annotated[str | None, Parameter(help="The data's format, when the first row would not tell.")] = None,  # noqa: A002
    eval_data: Annotated[str | None, Parameter(help="Held-out rows, whose loss decides.")] = None,
    eval_split: Annotated[
        float | None, Parameter(help="Hold out this part of DATA instead, or from 1 on so many rows.")
    ] = None,
    revision: Annotated[str | None, Parameter(help="The base's Hub commit, tag or branch.")] = None,
    dtype: Annotated[str, Parameter(help="The base's dtype: auto, float32, bfloat16, float16.")] = "auto",
    device: Annotated[str, Parameter(help="Where the base is.")] = "auto",
    quantize: Annotated[str | None, Parameter(help="Load the base in nf4, fp4 or int8.")] = None,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON.", negative="")] = False,
    plugin: PluginFiles = (),  # noqa: ARG001 - taken before the method's options can be known
    registry: Registry,
    **options: Any,
) -> None:
    rows = sources(data)
    if eval_data is not None:
        check_file("--eval-data", eval_data)
    values = dict(_values(word) for word in grid)
    if quantize is not None and "quantize" in option_names(registry.method(method).config):
        options, quantize = {**options, "quantize": quantize}, None
    shared = Base(base, revision=revision, dtype=dtype, device=device, quantize=quantize, registry=registry)
    about = {"columns": columns, "format": format, "eval_data": eval_data, "eval_split": eval_split}
    named: dict[str, Any] = {**about, "output": output}
    found = shared.sweep(rows, values, method=method, **named, **options)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        _show(found)


def _values(word: str) -> tuple[str, list[Any]]:
    """An option and its values: ``rank=4,16``; numbers, true, false and null are read as JSON, other words are texts."""
    name, equals, values = word.partition("=")
    if not equals or not values:
        raise ConfigError("--grid does not fit", [f"{word!r}: write it as option=value,value, such as rank=4,16"])
    return name.strip().replace("-", "_"), [_value(one) for one in values.split(",")]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _show(found: Sweep) -> None:
    """A table, the best configuration first."""
    names = list(found.trials[0].options)
    table = Table(*names, "steps", "loss on held-out rows", "")
    for trial in found.trials:
        values = [str(trial.options[name]) for name in names]
        table.add_row(*values, str(trial.steps), f"{trial.loss:.4f}", trial.ended.splitlines()[0])
    Console().print(table)
