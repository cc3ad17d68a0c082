"""``adapterkit plan``: what a run will take, before it begins."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from adapterkit.planning import plan as plan_run
from adapterkit.planning.rules import GOALS
from adapterkit.planning.showing import WIDTH, shown

from .methods import command_for_method
from .options import check_file
from .plugins import PluginFiles  # noqa: TC001 - read when the command is made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from adapterkit.registry import Registry

__all__ = ["plan_command"]

_ABOUT = """Say what training takes, before it begins; the options below are those of {method}.

No weight is loaded: only config.json is read, and the data, where it is given.
A training step is rehearsed on tensors that have shapes and no numbers. What is printed are estimates."""


def plan_command(arguments: Sequence[str]) -> Callable[..., None]:
    """The command for the method that ``arguments`` name; LoRA's where they name none."""
    return command_for_method(arguments, _plan, _ABOUT)


def _plan(
    base: Annotated[str, Parameter(help="A folder with a model, or a Hub id.")],
    *,
    data: Annotated[str | None, Parameter(help="The rows: a CSV, TSV, JSON, JSONL or Parquet file.")] = None,
    rows: Annotated[int | None, Parameter(help="How many rows there will be, where there are none yet.")] = None,
    device: Annotated[
        str | None, Parameter(help="Such as 4090, H100, cpu, or a size as 24GB; what is here, by default.")
    ] = None,
    method: Annotated[
        str | None, Parameter(help="One method; without it, those that are usually weighed against each other.")
    ] = None,
    methods: Annotated[
        tuple[str, ...] | None,
        Parameter(help="Several methods, which share the options that they know.", negative="", consume_multiple=True),
    ] = None,
    goal: Annotated[str | None, Parameter(help=f"What it is for: {', '.join(GOALS)}; prints advice.")] = None,
    sensitive: Annotated[
        bool, Parameter(help="The data must not be seen by all who may ask; for advice.", negative="")
    ] = False,
    latency: Annotated[float | None, Parameter(help="Milliseconds that may be added to an answer; for advice.")] = None,
    price_per_hour: Annotated[float | None, Parameter(help="US dollars; a list price by default.")] = None,
    limits: Annotated[bool, Parameter(help="Look for the largest batch and the longest row that fit.")] = True,
    columns: Annotated[dict[str, str] | None, Parameter(help="Which column is what: --columns.prompt text.")] = None,
    format: Annotated[str | None, Parameter(help="The data's format, when the first row would not tell.")] = None,  # noqa: A002
    dtype: Annotated[str, Parameter(help="What the base would be in: auto, float32, bfloat16, float16.")] = "auto",
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON.", negative="")] = False,
    plugin: PluginFiles = (),  # noqa: ARG001 - taken before the method's options can be known
    registry: Registry,
    **options: Any,
) -> None:
    if data is not None:
        check_file("--data", data)
    with _progress() as say:
        made = plan_run(
            base,
            method=method,
            methods=methods or None,
            data=data,
            rows=rows,
            columns=columns,
            format=format,
            device=device,
            price_per_hour=price_per_hour,
            goal=goal,
            sensitive=sensitive,
            latency=latency,
            dtype=dtype,
            limits=limits,
            registry=registry,
            progress=say,
            **options,
        )
    if as_json:
        print(json.dumps(made.to_json(), indent=2))
    else:
        console = Console(width=None if sys.stdout.isatty() else WIDTH)
        console.print(shown(made))


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Says which method is being looked at, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("planning") as status:
        yield lambda method: status.update(f"rehearsing a step of {method}")
