"""The training loop: read it from top to bottom, it is all there is."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adapterkit.data.batching import in_passes
from adapterkit.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from accelerate import Accelerator

    from adapterkit.contracts import Example, Loss, TrainOptions

    from .schedule import Schedule

    Collate = Callable[[Sequence[Example]], Mapping[str, torch.Tensor]]

logger = logging.getLogger("adapterkit")

__all__ = ["fit", "mean_loss", "optimizer_for"]


def optimizer_for(
    module: nn.Module, options: TrainOptions, factor: Callable[[str], float] = lambda _: 1.0
) -> torch.optim.Optimizer:
    """AdamW over what is trained; matrices decay, vectors do not: a scale or a bias has no reason to be small.

    ``factor`` says what the learning rate of a parameter is multiplied by.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = options.weight_decay if parameter.dim() > 1 else 0.0
            groups[decay, factor(name.removeprefix("layers."))].append(parameter)
    # fused: one kernel for all tensors, where a loop over a few hundred small ones would cost more than the step itself
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "lr": options.learning_rate * times}
            for (decay, times), parameters in groups.items()
        ],
        lr=options.learning_rate,
        betas=(options.adam_beta1, options.adam_beta2),
        fused=True,
    )


def fit(
    module: nn.Module,
    examples: Sequence[Example],
    schedule: Schedule,
    options: TrainOptions,
    accelerator: Accelerator,
    *,
    collate: Collate,
    log: Callable[[dict[str, Any]], None],
    held_out: Sequence[Example] = (),
    factor: Callable[[str], float] = lambda _: 1.0,
) -> None:
    """Train ``module``, whose forward gives the summed loss of a batch and the number of tokens it is of.

    Raises:
        TrainingError: The loss or the gradient is no longer a number.
    """
    from transformers import get_scheduler

    optimizer = optimizer_for(module, options, factor)
    warmup = math.ceil(options.warmup_ratio * schedule.steps)
    decay = get_scheduler(
        options.lr_scheduler_type, optimizer, num_warmup_steps=warmup, num_training_steps=schedule.steps
    )
    module, optimizer = accelerator.prepare(module, optimizer)
    module.train()
    started, tokens, window = time.perf_counter(), 0, []
    unreached = {name for name, parameter in module.named_parameters() if parameter.requires_grad}

    for step, batches in enumerate(schedule, start=1):
        # The loss is a mean over every trained token of the step, however they fall into micro-batches and processes;
        # a mean of the micro-batches' means would weigh a token by how few others its batch has.
        trained = sum(examples[row].trained for batch in batches for row in batch)
        mine = [
            part
            for batch in batches[accelerator.process_index :: accelerator.num_processes]
            for part in in_passes(batch, schedule.lengths, options.tokens_per_pass)
        ]
        total = 0.0
        for number, rows in enumerate(mine, start=1):
            syncing = nullcontext() if number == len(mine) else accelerator.no_sync(module)
            with syncing:
                loss = module(collate([examples[row] for row in rows])).total / trained
                accelerator.backward(loss * accelerator.num_processes)  # DDP takes the mean over processes
            total += float(loss.detach())
        norm = float(accelerator.clip_grad_norm_(module.parameters(), options.max_grad_norm))
        _check_finite(step, total, norm)
        if unreached:
            unreached -= {name for name, parameter in module.named_parameters() if parameter.grad is not None}
        rate = decay.get_last_lr()[0]
        optimizer.step()
        decay.step()
        optimizer.zero_grad()

        window.append(total)
        tokens += sum(len(examples[row].input_ids) for batch in batches for row in batch)
        last = step == schedule.steps
        if last or step % options.logging_steps == 0:
            speed = tokens / (time.perf_counter() - started)
            loss_now = sum(window) / len(window)
            log({"step": step, "loss": loss_now, "learning_rate": rate, "grad_norm": norm, "tokens_per_second": speed})
            window = []
        if held_out and (last or (options.eval_steps and step % options.eval_steps == 0)):
            module.eval()
            log({"step": step, "eval_loss": mean_loss(module, held_out, options.batch_size, collate)})
            module.train()
    if unreached:
        logger.warning(
            "%d trained tensors, such as %s, never had a gradient and are as they were: the base reads what they belong to without "
            "calling it, or these rows never came there",
            len(unreached),
            min(unreached).removeprefix("module.").removeprefix("layers."),
        )


@torch.no_grad()
def mean_loss(loss_of: Callable[[Any], Loss], examples: Sequence[Example], batch_size: int, collate: Collate) -> float:
    """The mean loss of the trained tokens of ``examples``."""
    order = sorted(range(len(examples)), key=lambda row: len(examples[row].input_ids))
    total, count = 0.0, 0
    for start in range(0, len(order), batch_size):
        loss = loss_of(collate([examples[row] for row in order[start : start + batch_size]]))
        total, count = total + float(loss.total), count + int(loss.tokens)
    return total / count


def _check_finite(step: int, loss: float, norm: float) -> None:
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise TrainingError(
            f"step {step}: the loss is {loss} and the gradient's norm {norm}; training stopped and nothing was kept. "
            "Try a lower learning_rate"
        )
