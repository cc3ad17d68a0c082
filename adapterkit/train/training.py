"""One adapter in training: what changes from step to step."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.data.batching import in_passes
from adapterkit.resident import flatten

from .watching import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from adapterkit.contracts import Example, Run, TrainOptions

    from .checkpoints import Checkpoints
    from .forward import AdapterInTraining
    from .journal import Journal
    from .processes import Processes
    from .randomness import RandomState
    from .schedule import Schedule

    Collate = Callable[[Sequence[Example]], dict[str, Tensor]]

__all__ = ["Pass", "Training", "optimizer_for", "scheduler_for"]


@attrs.define(eq=False, kw_only=True)
class Training:
    """One adapter in training.

    Attributes:
        run: What listeners see of it.
        module: The adapter's layers.
        examples: Its rows, each after the adapter's virtual tokens.
        places: Where each row is from.
        schedule: Which rows each step sees.
        collate: Makes a batch of rows.
        random: Its own random numbers.
        log: Takes its records.
        measure: Losses by name on rows that nothing is learned from, with the layers or of the ``base_alone``; empty where there
            are none.
        processes: Those that share it.
        optimizer: AdamW over what is trained, and ``decay`` the schedule of its learning rate.
        checkpoints: Where its state is kept; None when nothing is written.
        watch: What has been seen of it.
        step: The last step that was taken.
        tokens: How many tokens it has seen.
        window: The losses since the last record.
        unreached: Names of what is trained and has had no gradient yet.
        aside: How long evaluations took: they say nothing of the speed.
        began: When, on the clock of :func:`time.perf_counter`, less what was spent before a resumption.
    """

    run: Run
    module: AdapterInTraining
    examples: Sequence[Example]
    places: Callable[[int], str]
    schedule: Schedule
    collate: Collate
    random: RandomState
    log: Journal
    measure: Callable[..., dict[str, float]]
    processes: Processes
    optimizer: torch.optim.Optimizer
    decay: Any
    checkpoints: Checkpoints | None = None
    watch: Watch = attrs.field(init=False)
    step: int = 0
    tokens: int = 0
    window: list[float] = attrs.field(factory=list)
    unreached: set[str] = attrs.field(init=False)
    aside: float = 0.0
    began: float = attrs.field(factory=time.perf_counter)

    def __attrs_post_init__(self) -> None:
        self.watch = Watch(self.options)
        self.unreached = {name for name, one in self.module.named_parameters() if one.requires_grad}

    @property
    def options(self) -> TrainOptions:
        """The run's."""
        return self.run.options

    @property
    def seconds(self) -> float:
        """How long it has taken, interruptions aside."""
        return time.perf_counter() - self.began

    @property
    def speed(self) -> float:
        """Tokens per second, evaluations aside."""
        return self.tokens / (self.seconds - self.aside)

    def trained(self, batches: Sequence[Sequence[int]]) -> float:
        """What the trained tokens of a step weigh together."""
        return sum(self.examples[row].trained for batch in batches for row in batch)

    def passes(self, batches: Sequence[Sequence[int]]) -> list[tuple[list[int], bool]]:
        """The rows of each forward pass that this process makes in a step, and whether they count.

        In lockstep all make as many: who has fewer makes more with a row that counts nothing.
        """
        mine = self._passes(batches, self.processes.rank)
        most = len(mine)
        if self.processes.lockstep:
            most = max(len(self._passes(batches, rank)) for rank in range(self.processes.count))
        return [(rows, True) for rows in mine] + [([batches[0][0]], False)] * (most - len(mine))

    def _passes(self, batches: Sequence[Sequence[int]], rank: int) -> list[list[int]]:
        batches = batches[rank :: self.processes.count]
        return [
            part for batch in batches for part in in_passes(batch, self.schedule.lengths, self.options.tokens_per_pass)
        ]

    def gather(self, loss: float, interrupted: Sequence[bool]) -> tuple[float, float, Sequence[bool]]:
        """Bring together what the processes have: gradients are summed.

        Returns:
            The step's loss, the norm to which gradients are clipped, and what is true once the run is to stop: ``interrupted``
            itself, or for several processes, which are not told at the same moment, what they have agreed on.
        """
        if self.processes.count > 1:
            loss, asked = self.processes.meet(loss, float(bool(interrupted)))
            interrupted = [True] if asked else []
        if self.unreached:
            names = [name for name, one in self.module.named_parameters() if one.requires_grad]
            here = [one.grad is not None for one in self.module.parameters() if one.requires_grad]
            reached = self.processes.anywhere(here)
            self.unreached -= {name for name, found in zip(names, reached, strict=True) if found}
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]]
        self.processes.sum_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.options.max_grad_norm)
        return loss, float(norm), interrupted

    def update(self) -> None:
        """Take the optimizer's step."""
        self.optimizer.step()
        self.decay.step()
        self.optimizer.zero_grad()

    def evaluate(self) -> None:
        """Measure, log and watch."""
        before = self.seconds
        losses = self.measured()
        for name, loss in losses.items():
            self.log({"step": self.step, name: loss})
        self.watch.see_evaluation(self.step, losses, lambda: flatten(self.module.layers))
        self.aside += self.seconds - before

    def measured(self) -> dict[str, float]:
        """Losses by name on rows that nothing is learned from; the run goes on as if nothing had been measured.

        Before the first step they are the base's: a fresh soft prompt changes them already.
        """
        self.module.eval()
        with self.random.drawn():
            losses = self.measure(base_alone=self.step == 0)
        self.module.train()
        return losses

    def culprits(self, batches: Sequence[Sequence[int]]) -> str:
        """Which rows of a step alone give no finite loss, in a sentence."""
        with self.random.drawn():
            strange = [row for batch in batches for row in batch if not math.isfinite(self._loss_of(row))]
        if not strange:
            rows = ", ".join(self.places(row) for row in batches[0][:3])
            return f"No row alone does so; its rows began with {rows}. Try a lower learning_rate"
        named = ", ".join(self.places(row) for row in strange[:5])
        return f"These rows alone give no number: {named}" + (
            f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        )

    @torch.no_grad()
    def _loss_of(self, row: int) -> float:
        return float(self.module(self.collate([self.examples[row]])).total)


@attrs.frozen(eq=False)
class Pass:
    """A forward and backward pass that an adapter in training asks for.

    Attributes:
        training: Who asks.
        rows: Which rows it is of.
        scale: What their summed loss is multiplied by.
    """

    training: Training
    rows: Sequence[int]
    scale: float

    def batch(self) -> dict[str, Tensor]:
        """Its rows as tensors."""
        return self.training.collate([self.training.examples[row] for row in self.rows])


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


def scheduler_for(optimizer: torch.optim.Optimizer, options: TrainOptions, steps: int) -> Any:
    """The learning rate from step to step.

    Raises:
        ConfigError: The schedule does not take ``lr_scheduler_kwargs``, or cannot do without some.
    """
    from transformers import get_scheduler

    from adapterkit.errors import ConfigError

    # the first step of a warm-up has a rate of zero: were the last one part of it, a run of one step would learn nothing
    rising = min(math.ceil(options.warmup_ratio * steps), steps - 1)
    warmup = options.warmup_steps if options.warmup_steps is not None else rising
    given: Mapping[str, float] = {name: _whole(value) for name, value in options.lr_scheduler_kwargs.items()}
    try:
        return get_scheduler(
            options.lr_scheduler_type,
            optimizer,
            num_warmup_steps=warmup,
            num_training_steps=steps,
            scheduler_specific_kwargs=dict(given),
        )
    except (TypeError, ValueError) as error:
        problem = f"lr_scheduler_kwargs: {options.lr_scheduler_type!r} says: {error}"
        raise ConfigError("options of train do not fit", [problem]) from error


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value
