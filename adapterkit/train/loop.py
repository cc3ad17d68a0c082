"""The training loop: read it from top to bottom, it is all there is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .training import Pass
from .watching import check_finite

if TYPE_CHECKING:
    from collections.abc import Generator

    from .training import Training

__all__ = ["learn"]

logger = logging.getLogger("adapterkit")


def learn(training: Training, *, interrupted: list[bool] | None = None) -> Generator[Pass, float, None]:
    """Every step of a run, as a generator that asks for its forward and backward passes, and is sent the loss of each.

    Who makes the passes decides what they are shared with: nothing, or those of other adapters in training on the same base.

    Raises:
        TrainingError: The loss or the gradient is no longer a number, or the run has diverged.
        KeyboardInterrupt: ``interrupted`` holds something; the state is kept first, where there is a place for it.
    """
    options, schedule, log = training.options, training.schedule, training.log
    interrupted = [] if interrupted is None else interrupted
    training.module.train()
    if training.step == 0:
        training.evaluate()

    # a run that was killed between its last step and its adapter has no more to take
    for step, batches in schedule.after(schedule.steps if training.watch.stop else training.step):
        # The loss is a mean over every trained token of the step, however they fall into micro-batches and processes;
        # a mean of the micro-batches' means would weigh a token by how few others its batch has.
        weight, loss = training.trained(batches), 0.0
        for rows, counts in training.passes(batches):
            loss += yield Pass(training, rows, counts / weight)
        loss, norm, stopping = training.gather(loss, interrupted)
        check_finite(step, loss, norm, lambda: training.culprits(batches))  # noqa: B023 - called at once
        rate = training.decay.get_last_lr()[0]
        training.update()

        training.step = step
        training.tokens += sum(schedule.lengths[row] for batch in batches for row in batch)
        training.window.append(loss)
        last = step == schedule.steps
        if last or step % options.logging_steps == 0:
            mean, training.window = sum(training.window) / len(training.window), []
            record = {"step": step, "loss": mean, "learning_rate": rate, "grad_norm": norm}
            log({**record, "tokens_per_second": training.speed})
        training.watch.see_step(step, loss)
        if last or (options.eval_steps and step % options.eval_steps == 0):
            training.evaluate()
        if training.checkpoints and (stopping or (not last and step % options.save_steps == 0)):
            training.checkpoints.save(training)
        if stopping:
            raise KeyboardInterrupt(f"stopped after step {step} of {schedule.steps}")
        if training.watch.stop:
            logger.warning("stopped after step %d of %d: %s", step, schedule.steps, training.watch.stop)
            break

    if training.unreached:
        logger.warning(
            "%d trained tensors, such as %s, never had a gradient and are as they were: the base reads what they belong to without "
            "calling it, or these rows never came there",
            len(training.unreached),
            min(training.unreached).removeprefix("layers."),
        )
