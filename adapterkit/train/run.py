"""One training run, from options and rows to an adapter."""

from __future__ import annotations

import contextlib
import functools
import platform
import threading
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.adapter import Adapter
from adapterkit.artifact.manifest import Manifest
from adapterkit.artifact.replacing import check_replaceable
from adapterkit.config import to_dict
from adapterkit.contracts import Run
from adapterkit.data.dataset import Encoded, Report, encode_rows
from adapterkit.data.padding import check_known
from adapterkit.data.rendering import Renderer
from adapterkit.errors import ConfigError, TrainingError
from adapterkit.resident import build_layers, check_method, flatten, rehearse

from .batches import choose_collate
from .forward import AdapterInTraining, recomputing
from .journal import Journal, journal
from .loop import fit
from .options import split_options
from .reporting import say_what_was_lost
from .schedule import Schedule

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from adapterkit.base import Base
    from adapterkit.contracts import Method

__all__ = ["train"]

ONE_AT_A_TIME = threading.Lock()
"""torch draws from one random state for the whole process; runs that shared it would not be repeatable."""


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
    chosen, goal = base.registry.method(method), base.registry.objective(objective)
    wanted, run_options = split_options(chosen, options)
    folder = _check_output(output)
    home, needs = base, chosen.base_options(wanted)
    base = base.quantized_as(**needs) if needs else base
    check_method(chosen, base.sites)
    if run_options.gradient_checkpointing and not chosen.traits.recomputable:
        reason = "gradient_checkpointing: the method does not act when activations are computed again"
        raise ConfigError(f"options of method {method!r} do not fit", [reason])
    config = base.registry.call("configure", chosen, config=wanted, sites=base.sites)
    renderer = Renderer(base.tokenizer, run_options.max_length)
    read = functools.partial(encode_rows, renderer=renderer, registry=base.registry, columns=columns, format=format)
    rows, held_out = read(data), read(eval_data) if eval_data is not None else None
    say_what_was_lost(rows.report)
    check_known(base.model, *(one.input_ids for part in (rows, held_out) if part is not None for one in part.examples))

    with ONE_AT_A_TIME, torch.enable_grad(), _own_random_state(run_options.seed, base.device):
        layers = build_layers(base.registry, chosen, config, base.sites).to(base.device)
        base.registry.call(
            "initialize", chosen, config=config, layers=dict(layers.items()), base=base, examples=rows.examples
        )
        rehearse(base.registry, chosen, config, layers, base.sites)
        module = AdapterInTraining(base.model, method, layers, base.runtime, goal, run_options)
        if not any(parameter.requires_grad for parameter in module.parameters()):
            raise TrainingError(f"method {method!r} with these options has nothing to train")
        run = Run(method=method, config=to_dict(config), options=run_options, output=folder)
        factor = functools.partial(chosen.learning_rate_factor, config)
        run, log = _learn(base, module, run, rows, held_out, factor)
        config, kept = base.registry.call("finish", chosen, config=config, layers=dict(layers.items()))
    adapter = Adapter(method, config, flatten(kept), _manifest(base, chosen, objective, run, rows, log))
    home.load(adapter)
    if folder:
        adapter.save(folder / "adapter", registry=base.registry)
    base.registry.notify("adapterkit_train_finished", run=run, adapter=adapter)
    return adapter


def _learn(
    base: Base,
    module: AdapterInTraining,
    run: Run,
    rows: Encoded,
    held_out: Encoded | None,
    factor: Callable[[str], float],
) -> tuple[Run, Journal]:
    """Take every step of the run."""
    from accelerate import Accelerator

    virtual = module.virtual_tokens()
    examples = [one.after(virtual) for one in rows.examples]

    # The base stays where it is, on its own device: accelerate is asked for processes, not for placement.
    accelerator = Accelerator(device_placement=False)
    schedule = Schedule([len(one.input_ids) for one in examples], run.options, accelerator.num_processes)
    run = attrs.evolve(run, steps=schedule.steps)
    recomputation = (
        recomputing(base.model, base.runtime) if run.options.gradient_checkpointing else contextlib.nullcontext()
    )
    with journal(run, base.registry) as log, recomputation:
        base.registry.notify("adapterkit_train_started", run=run)
        fit(
            module,
            examples,
            schedule,
            run.options,
            accelerator,
            # rows that share a sequence would have to share a prefix
            collate=choose_collate(
                base,
                [*rows.examples, *(held_out.examples if held_out is not None else ())],
                attrs.evolve(run.options, packing=run.options.packing and not module.prefix_length),
                virtual=len(virtual),
            ),
            log=log,
            held_out=[one.after(virtual) for one in held_out.examples] if held_out else (),
            factor=factor,
        )
    return run, log


def _check_output(output: str | os.PathLike[str] | None) -> Path | None:
    """The run's folder, found fit for the adapter before any work is done; nothing in it is touched yet."""
    if output is None:
        return None
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"output {str(folder)!r} is a file; give a folder")
    check_replaceable(folder / "adapter")
    return folder


@contextlib.contextmanager
def _own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Within this block torch draws from ``seed``; afterwards it goes on as if nothing had been drawn."""
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=devices, device_type=device.type if devices else "cuda"):
        torch.manual_seed(seed)
        yield


def _manifest(base: Base, method: Method, objective: str, run: Run, rows: Encoded, log: Journal) -> Manifest:
    """What is worth knowing of the run, as far as it would be the same the next time."""
    training = {
        "objective": objective,
        "options": to_dict(run.options),
        "steps": run.steps,
        **({"quantize": base.quantized} if base.quantized else {}),
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
