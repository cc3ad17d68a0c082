"""From what a user asks for to an adapter that is ready to be trained."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

from adapterkit.artifact.replacing import check_replaceable
from adapterkit.config import to_dict
from adapterkit.contracts import Run
from adapterkit.data.dataset import encode_rows
from adapterkit.data.general import general_rows
from adapterkit.data.padding import check_known
from adapterkit.data.rendering import Renderer
from adapterkit.data.reports import say_what_was_lost
from adapterkit.data.training import load_training_data
from adapterkit.errors import ConfigError, TrainingError
from adapterkit.evaluation.losses import mean_loss
from adapterkit.evaluation.unseen import say_unseen
from adapterkit.resident import build_layers, check_method, rehearse

from . import sharding
from .batches import choose_collate
from .checkpoints import Checkpoints
from .forward import AdapterInTraining
from .identity import fixed, identity, made_before
from .jobs import TRAIN_TAKES, Job, RunOptions, sort_options
from .journal import Journal, find_loggers
from .options import split_options
from .randomness import RandomState
from .record import RunRecord, claimed
from .schedule import Schedule
from .training import Training, optimizer_for, scheduler_for

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import nn

    from adapterkit.adapter import Adapter
    from adapterkit.base import Base
    from adapterkit.contracts import Example, Method, TrainOptions
    from adapterkit.data.examples import Examples
    from adapterkit.data.training import TrainingData

    from .checkpoints import Checkpoint
    from .journal import Bars
    from .processes import Processes

__all__ = ["Around", "Prepared", "begin", "prepare"]


@attrs.frozen(kw_only=True)
class Prepared:
    """An adapter that is ready to be trained, and what is needed to conclude it.

    Attributes:
        job: What was asked for.
        asked: What of it is neither its method's nor its steps'.
        base: What it is trained on: the user's base, or a quantized twin.
        method: How.
        config: The method's configuration, resolved for this base.
        layers: What is trained.
        rows: What it learns from, and what it is measured on.
        training: What changes from step to step.
        record: What is written of it.
        done: The adapter, where a run that is to be resumed had reached its end.
        last: Where a run that is to be resumed had come to.
    """

    job: Job
    asked: RunOptions
    base: Base
    method: Method
    config: Any
    layers: nn.ModuleDict
    rows: TrainingData
    training: Training
    record: RunRecord
    done: Adapter | None = None
    last: Checkpoint | None = None


@attrs.frozen(eq=False)
class Around:
    """What jobs that are trained together share.

    Attributes:
        shown: Where progress is shown.
        processes: Those that share the run.
        undo: What has to be undone after the last step.
        read: Rows that were read for one of the jobs, for others that want the same.
    """

    shown: Bars
    processes: Processes
    undo: contextlib.ExitStack
    read: dict[Any, TrainingData] = attrs.field(factory=dict)


def prepare(base: Base, job: Job, output: Path | None, around: Around) -> Prepared:
    """Everything up to the first step.

    Raises:
        ConfigError: Options that nothing knows, or whose values do not fit.
        DataError: Rows that cannot be used.
    """
    processes = around.processes
    about_data, asked, options = sort_options(job)
    method, objective = base.registry.method(job.method), base.registry.objective(asked.objective)
    wanted, run_options = split_options(method, options, TRAIN_TAKES)
    find_loggers(base.registry, run_options.report_to)
    check_output(output)
    if asked.resume and output is None:
        raise ConfigError("options of train do not fit", ["resume: needs output, the folder of the run to go on with"])

    needs = method.base_options(wanted)
    base = base.quantized_as(**needs) if needs else base
    in_pieces = sharding.is_wanted(run_options, processes)
    device = sharding.on_host(base, around.undo) if in_pieces else base.device
    processes.check_apart(device)
    check_method(method, base.sites)
    if run_options.gradient_checkpointing and not method.traits.recomputable:
        reason = "gradient_checkpointing: the method does not act when activations are computed again"
        raise ConfigError(f"options of method {job.method!r} do not fit", [reason])
    run_options = attrs.evolve(run_options, bf16=_bf16(device, run_options), fsdp=in_pieces)
    config = base.registry.call("configure", method, config=wanted, sites=base.sites)

    renderer = Renderer(base.tokenizer, run_options.max_length)
    rows = _read(base, job.data, renderer, run_options, about_data, around.read)
    general = _general(
        asked.general_data, renderer, base, wanted=output is not None or bool(run_options.max_forgetting)
    )

    random = RandomState(run_options.seed, base.device)
    with random.drawn():
        layers = _layers(base, method, config, rows.examples)
    if processes.count > 1:
        random = RandomState(run_options.seed + 1 + processes.rank, device)  # or all would drop the same
    if in_pieces:
        sharding.shard(base, layers, device, processes)
    module = AdapterInTraining(base.model, job.method, layers, base.runtime, objective, run_options)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise TrainingError(f"method {job.method!r} with these options has nothing to train")

    run = Run(method=job.method, config=to_dict(config), options=run_options, output=output, name=job.name)
    factor = functools.partial(method.learning_rate_factor, config)
    training = _training(base, module, run, rows, general, random, factor, around)
    sharding.settle(training)
    known = {
        **fixed(base, method, asked.objective, training, rows),
        "learned": {
            "examples": rows.examples.digest,
            "of_each_source": list(rows.mixture.rows),
            "in_an_epoch": list(rows.mixture.drawn),
            "general_data": general.digest if general is not None else None,
        },
    }
    same, done = identity(known), None
    if output is not None:
        done = made_before(output, same, base) if asked.resume else None
        training.checkpoints = Checkpoints(
            output / "checkpoints", same, run_options.save_total_limit, writes=training.processes.main
        )
    processes.check_same({**same, "done": done is not None, "layers": layers})  # before anything is written
    last = training.checkpoints.last_of(resume=asked.resume) if training.checkpoints and done is None else None
    return Prepared(
        job=job,
        asked=asked,
        base=base,
        method=method,
        config=config,
        layers=layers,
        rows=rows,
        training=training,
        record=RunRecord(output if training.processes.main else None, known),
        done=done,
        last=last,
    )


def _layers(base: Base, method: Method, config: Any, examples: Examples) -> nn.ModuleDict:
    """What is to be trained, where the base is; the way to an adapter was gone once."""
    layers = build_layers(base.registry, method, config, base.sites).to(base.device)
    base.registry.call("initialize", method, config=config, layers=dict(layers.items()), base=base, examples=examples)
    rehearse(base.registry, method, config, layers, base.sites)
    return layers


def _read(
    base: Base,
    data: Any,
    renderer: Renderer,
    options: TrainOptions,
    about_data: Mapping[str, Any],
    read: dict[Any, TrainingData],
) -> TrainingData:
    """The rows of a run, found fit for this base; those of an earlier job are not read again."""
    key = (_same(data), options.max_length, options.seed, *((name, _same(one)) for name, one in about_data.items()))
    if key not in read:
        read[key] = load_training_data(data, renderer=renderer, registry=base.registry, seed=options.seed, **about_data)
        for name, report in read[key].reports.items():
            say_what_was_lost(report, name)
        held_out = read[key].held_out
        if held_out is not None:
            say_unseen(read[key].rows.records, held_out.records)
    rows = read[key]
    if rows.held_out is None and (options.early_stopping_patience or options.load_best_model_at_end):
        reason = "early_stopping_patience and load_best_model_at_end: need held-out rows; give eval_data or eval_split"
        raise ConfigError("options of train do not fit", [reason])
    parts = [rows.examples, *([rows.held_out.examples] if rows.held_out else [])]
    check_known(base.model, [part.highest for part in parts])
    return rows


def _same(value: Any) -> Any:
    """What is equal for two values that name the same rows: plain values by what they say, others by what they are."""
    return value if isinstance(value, (str, int, float, type(None))) else id(value)


def check_output(folder: Path | None) -> None:
    """Find a run's folder fit for the adapter before any work is done; nothing in it is touched yet.

    Raises:
        TrainingError: It is a file.
        ArtifactError: What is at its ``adapter`` is no adapter.
    """
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"output {str(folder)!r} is a file; give a folder")
    check_replaceable(folder / "adapter")


def _bf16(device: torch.device, options: TrainOptions) -> bool:
    """What is said, or the rule: accelerators that have bfloat16 are fast in it, and most CPUs are slow."""
    if options.bf16 is not None:
        return options.bf16
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _general(data: Any, renderer: Renderer, base: Base, *, wanted: bool) -> Examples | None:
    """Text to measure forgetting on; none where nobody would be told."""
    if data is None and not wanted:
        return None
    rows = encode_rows(data if data is not None else general_rows(), renderer, base.registry, format="text")
    check_known(base.model, (rows.examples.highest,))
    return rows.examples


def _training(
    base: Base,
    module: AdapterInTraining,
    run: Run,
    rows: TrainingData,
    general: Examples | None,
    random: RandomState,
    factor: Callable[[str], float],
    around: Around,
) -> Training:
    processes = around.processes
    virtual, options = module.virtual_tokens(), run.options
    examples = rows.examples.after(virtual)
    schedule = Schedule(examples.lengths, options, processes.count, rows.mixture)
    collate = choose_collate(
        base,
        _longest(rows),
        # rows that share a sequence would have to share a prefix
        attrs.evolve(options, packing=options.packing and not module.prefix_length),
        virtual=len(virtual),
    )
    measured: dict[str, tuple[AdapterInTraining, Examples]] = {}
    if rows.held_out is not None:
        measured["eval_loss"] = (module, rows.held_out.examples)
    if general is not None:
        measured["general_loss"] = (module.with_objective(base.registry.objective("sft")), general)

    def measure(*, base_alone: bool) -> dict[str, float]:
        found = {}
        for name, (whole, those) in measured.items():
            loss_of, seen = (whole.base_alone(), those) if base_alone else (whole, those.after(virtual))
            found[name] = mean_loss(loss_of, seen, options.batch_size, collate, options.tokens_per_pass, processes)
        return found

    optimizer = optimizer_for(module, options, factor)
    run = attrs.evolve(run, steps=schedule.steps)
    return Training(
        run=run,
        module=module,
        examples=examples,
        places=lambda row: _place(base, rows.examples[row], row),
        schedule=schedule,
        collate=collate,
        random=random,
        log=Journal(
            run, base.registry, around.shown, find_loggers(base.registry, options.report_to), writes=processes.main
        ),
        measure=measure,
        processes=processes,
        optimizer=optimizer,
        decay=scheduler_for(optimizer, options, schedule.steps),
    )


MOST_SHOWN = 60
"""How many characters of a row an error quotes."""


def _place(base: Base, example: Example, row: int) -> str:
    """Which row it is, and how it begins."""
    text = " ".join(base.tokenizer.decode(example.input_ids).split())
    return f"row {row + 1} of those that are used ({text[:MOST_SHOWN]!r}{'…' if len(text) > MOST_SHOWN else ''})"


def _longest(rows: TrainingData, most: int = 64) -> list[Example]:
    """The first rows, and the longest one: what it is tried on whether the base can have several in one sequence."""
    found = [rows.examples[row] for row in range(min(most, len(rows.examples)))]
    parts = (rows.examples, rows.held_out.examples if rows.held_out else rows.examples)
    return [*found, *(part[int(np.argmax(part.lengths))] for part in parts)]


def begin(one: Prepared, undo: contextlib.ExitStack) -> None:
    """Go on from the last checkpoint, or begin the run's files anew; nothing was written before this.

    Raises:
        TrainingError: Another process is training into the folder.
    """
    training = one.training
    if training.run.output is not None and training.processes.main:
        undo.enter_context(claimed(training.run.output))
    if one.last is not None:
        one.last.restore(training)
    elif training.checkpoints:
        training.checkpoints.clear()
        if training.processes.main:
            training.log.begin()
    training.processes.check_same({"step": training.step})
