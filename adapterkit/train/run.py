"""One training run, from options and rows to an adapter."""

from __future__ import annotations

import contextlib
import logging
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.adapter import Adapter
from adapterkit.artifact.manifest import Manifest
from adapterkit.config import to_dict
from adapterkit.contracts import Run
from adapterkit.data.dataset import Encoded, Report, encode_rows
from adapterkit.data.rendering import Renderer
from adapterkit.errors import TrainingError
from adapterkit.resident import build_layers, flatten

from .batches import choose_collate
from .forward import AdapterInTraining, recomputing
from .journal import Journal, journal
from .loop import fit
from .options import split_options
from .schedule import Schedule

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from adapterkit.base import Base
    from adapterkit.contracts import Method

__all__ = ["train"]

logger = logging.getLogger("adapterkit")
MOST_SHOWN = 10


def train(
    base: Base,
    data: Any,
    *,
    method: str,
    output: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
    eval_data: Any = None,
    objective: str = "sft",
    **options: Any,
) -> Adapter:
    """See :meth:`adapterkit.Base.train`."""
    from accelerate import Accelerator

    chosen, goal = base.registry.method(method), base.registry.objective(objective)
    wanted, run_options = split_options(chosen, options)
    folder = _open_output(output)
    config = base.registry.call("configure", chosen, config=wanted, sites=base.sites)
    renderer = Renderer(base.tokenizer, run_options.max_length)
    rows = encode_rows(data, renderer, base.registry, columns=columns, format=format)
    _say_what_was_lost(rows.report)
    held_out = (
        encode_rows(eval_data, renderer, base.registry, columns=columns, format=format)
        if eval_data is not None
        else None
    )

    # The base stays where it is, on its own device: accelerate is asked for processes, not for placement.
    accelerator = Accelerator(device_placement=False)
    schedule = Schedule([len(example.input_ids) for example in rows.examples], run_options, accelerator.num_processes)
    run = Run(method=method, config=to_dict(config), options=run_options, steps=schedule.steps, output=folder)
    with _own_random_state(run_options.seed, base.device):
        layers = build_layers(base.registry, chosen, config, base.sites)
        module = AdapterInTraining(base.model, layers, base.runtime, goal, bf16=run_options.bf16).to(base.device)
        if not any(parameter.requires_grad for parameter in module.parameters()):
            raise TrainingError(f"method {method!r} with these options has nothing to train")
        with journal(run, base.registry) as log, _recomputing_if(base, wanted=run_options.gradient_checkpointing):
            base.registry.notify("adapterkit_train_started", run=run)
            fit(
                module,
                rows.examples,
                schedule,
                run_options,
                accelerator,
                collate=choose_collate(base, rows.examples, run_options),
                log=log,
                held_out=held_out.examples if held_out else (),
            )
    adapter = Adapter(method, config, flatten(layers), _manifest(base, chosen, objective, run, rows, log))
    base.load(adapter)
    if folder:
        adapter.save(folder / "adapter", registry=base.registry)
    base.registry.notify("adapterkit_train_finished", run=run, adapter=adapter)
    return adapter


def _open_output(output: str | os.PathLike[str] | None) -> Path | None:
    """The run's folder, made if it is not there; a log of an earlier run in it is begun anew."""
    if output is None:
        return None
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"output {str(folder)!r} is a file; give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").unlink(missing_ok=True)
    return folder


@contextlib.contextmanager
def _own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Within this block torch draws from ``seed``; afterwards it goes on as if nothing had been drawn."""
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=devices, device_type=device.type if devices else "cuda"):
        torch.manual_seed(seed)
        yield


def _recomputing_if(base: Base, *, wanted: bool) -> contextlib.AbstractContextManager[None]:
    return recomputing(base.model, base.runtime) if wanted else contextlib.nullcontext()


def _manifest(base: Base, method: Method, objective: str, run: Run, rows: Encoded, log: Journal) -> Manifest:
    """What is worth knowing of the run, as far as it would be the same the next time."""
    training = {
        "objective": objective,
        "options": to_dict(run.options),
        "steps": run.steps,
        "data": {"digest": rows.digest, **_counts(rows.report)},
    }
    losses = {"loss": log.last("loss"), "eval_loss": log.last("eval_loss")}
    return Manifest(
        base=base.reference,
        plugin=base.registry.provider(method),
        training={**training, **{name: value for name, value in losses.items() if value is not None}},
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("adapterkit", "torch", "transformers")},
        },
    )


def _counts(report: Report) -> dict[str, int]:
    return {**attrs.asdict(report, filter=attrs.filters.exclude("unusable")), "unusable_rows": len(report.unusable)}


def _say_what_was_lost(report: Report) -> None:
    """Rows that were cut or left out are never passed over in silence."""
    if report.truncated_rows:
        logger.warning("%d of %d rows were cut to max_length and lost %d tokens", *_lost(report))
    for row in report.unusable[:MOST_SHOWN]:
        logger.warning("%s is left out: %s", row.where, row.reason)
    if len(report.unusable) > MOST_SHOWN:
        logger.warning("%d more rows are left out", len(report.unusable) - MOST_SHOWN)


def _lost(report: Report) -> tuple[int, int, int]:
    return report.truncated_rows, report.rows, report.truncated_tokens
