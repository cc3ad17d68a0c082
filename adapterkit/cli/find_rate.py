"""``adapterkit find-rate``: a learning rate for a method on a base and data."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from adapterkit.base import Base
from adapterkit.config import option_names
from adapterkit.train.rates import SET_BY_THE_TEST

from .methods import command_for_method
from .opening import AsJson, BaseName, Columns, Device, Dtype, Format, Quantize, Revision  # noqa: TC001 - read later
from .plugins import PluginFiles  # noqa: TC001 - likewise
from .sources import sources

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adapterkit.registry import Registry

__all__ = ["find_rate_command"]

_ABOUT = """Find a learning rate, with the options of {method}: a short run in which it grows until the loss rises.

The suggestion is printed, or with --json also the loss at each rate. Nothing is written."""


def find_rate_command(arguments: Sequence[str]) -> Callable[..., None]:
    """The command for the method that ``arguments`` name; LoRA's where they name none."""
    return command_for_method(arguments, _find_rate, _ABOUT, without=SET_BY_THE_TEST)


def _find_rate(
    base: BaseName,
    data: Annotated[
        str, Parameter(help="A CSV, TSV, JSON, JSONL or Parquet file; FILE=2 sees its rows twice an epoch.")
    ],
    *,
    method: Annotated[str, Parameter(help="The method plugin.")] = "lora",
    low: Annotated[float, Parameter(help="The rate of the first step.")] = 1e-6,
    high: Annotated[float, Parameter(help="The rate of the last step.")] = 1.0,
    steps: Annotated[
        int, Parameter(help="How many steps; the test ends earlier where the loss leaves for good.")
    ] = 100,
    columns: Columns = None,
    format: Format = None,  # noqa: A002 - the option's name
    objective: Annotated[str, Parameter(help="What the run minimises.")] = "sft",
    revision: Revision = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantize: Quantize = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),  # noqa: ARG001 - taken before the method's options can be known
    registry: Registry,
    **options: Any,
) -> None:
    rows = sources(data)
    if quantize is not None and "quantize" in option_names(registry.method(method).config):
        options, quantize = {**options, "quantize": quantize}, None
    shared = Base(base, revision=revision, dtype=dtype, device=device, quantize=quantize, registry=registry)
    named: dict[str, Any] = {"method": method, "low": low, "high": high, "steps": steps}
    about: dict[str, Any] = {"columns": columns, "format": format, "objective": objective}
    found = shared.find_learning_rate(rows, **named, **about, **options)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        last, loss = found.rates[-1], min(found.losses)
        print(f"{len(found.rates)} steps, up to {last:.1e}; the lowest smoothed loss was {loss:.3f}", file=sys.stderr)
        print(f"{found.suggestion:g}")
