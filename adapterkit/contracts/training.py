"""The options of a training run, and the run as listeners see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs.validators import and_, ge, gt, le, lt, optional

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Run", "TrainOptions"]

Schedule = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "warmup_stable_decay",
]


@attrs.frozen(kw_only=True)
class TrainOptions:
    """How to train. The names are those of transformers' ``TrainingArguments`` but for ``epochs`` and ``batch_size``."""

    epochs: float = attrs.field(default=1.0, validator=and_(gt(0.0), le(1e6)))
    """Passes over the training rows; a fraction is a part of one."""
    max_steps: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Stop after so many optimizer steps, whatever ``epochs`` says."""
    batch_size: int = attrs.field(default=8, validator=ge(1))
    """Rows in one forward pass."""
    tokens_per_pass: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Give a batch of more tokens than this several forward passes: less memory, and the same step."""
    gradient_accumulation_steps: int = attrs.field(default=1, validator=ge(1))
    """Forward passes in one optimizer step; the loss is divided by the trained tokens of all of them."""
    learning_rate: float = attrs.field(default=1e-4, validator=gt(0.0))
    """The peak learning rate."""
    lr_scheduler_type: Schedule = "linear"
    """How the learning rate falls after the warm-up: one of transformers' schedules."""
    lr_scheduler_kwargs: dict[str, float] = attrs.field(factory=dict)
    """What the schedule wants besides, such as ``{"num_cycles": 2}``."""
    warmup_steps: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """The steps in which the learning rate rises from zero; instead of `warmup_ratio`."""
    warmup_ratio: float = attrs.field(default=0.05, validator=and_(ge(0.0), le(1.0)))
    """The part of all steps in which the learning rate rises from zero."""
    adam_beta1: float = attrs.field(default=0.9, validator=and_(ge(0.0), lt(1.0)))
    """How much of the last steps' mean gradient AdamW keeps."""
    adam_beta2: float = attrs.field(default=0.999, validator=and_(ge(0.0), lt(1.0)))
    """The same for the mean squared gradient; 0.99 suits runs of a few hundred steps."""
    weight_decay: float = attrs.field(default=0.0, validator=ge(0.0))
    """AdamW's decoupled weight decay; vectors, such as biases, are not decayed."""
    max_grad_norm: float = attrs.field(default=1.0, validator=gt(0.0))
    """Gradients are scaled down to this norm."""
    max_length: int = attrs.field(default=1024, validator=ge(2))
    """Longer rows are cut at the left of their prompt, and counted in the report."""
    packing: bool = True
    """Put the rows of a batch into as few sequences as hold them, where no row sees another: hardly any padding."""
    group_by_length: bool = False
    """Draw batches of rows of similar length: for models that cannot pack. Batches are less mixed, which costs quality."""
    bf16: bool | None = None
    """Compute in bfloat16 under autocast, the adapter itself in float32; by default on accelerators that have it, not on CPUs."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    activation_offload: bool = False
    """Keep what `gradient_checkpointing` recomputes from in the host's memory: less still, for long rows on an accelerator."""
    fsdp: bool | None = None
    """Divide the base's weights among the processes that share the run; by default where `accelerate launch` was told to."""
    use_fused_kernels: bool | None = None
    """Compute norms, gated layers and rotary positions in one kernel each, in training alone; by default on GPUs with Triton."""
    eval_steps: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Measure the loss on held-out rows and on general text every so many steps, besides before the first step and at the end."""
    early_stopping_patience: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Stop when so many evaluations in a row did not lower the loss on held-out rows; the best adapter is kept."""
    early_stopping_threshold: float = attrs.field(default=0.0, validator=ge(0.0))
    """By how much it must fall to count as lower."""
    load_best_model_at_end: bool = False
    """Keep the adapter of the evaluation with the lowest loss on held-out rows, not that of the last step."""
    max_forgetting: float | None = attrs.field(default=None, validator=optional(gt(0.0)))
    """Stop once the perplexity of general text has risen by more than this part of what it was: 0.1 is ten in a hundred."""
    save_steps: int = attrs.field(default=500, validator=ge(1))
    """Write a checkpoint into ``output`` every so many steps; ``resume=True`` goes on from the last one."""
    save_total_limit: int = attrs.field(default=2, validator=ge(1))
    """Keep so many of the last checkpoints."""
    logging_steps: int = attrs.field(default=10, validator=ge(1))
    """Log every so many steps."""
    report_to: tuple[str, ...] = ()
    """Loggers besides the run's own `log.jsonl`: `tensorboard`, `wandb`, `trackio`, or a plugin's."""
    seed: int = attrs.field(default=42, validator=and_(ge(0), lt(2**63)))
    """Governs the adapter's initialisation, the order of the rows and dropout."""

    def __attrs_post_init__(self) -> None:
        if self.activation_offload and not self.gradient_checkpointing:
            raise ValueError("activation_offload: needs gradient_checkpointing=True; without it, nothing is recomputed")
        needs_evaluations = self.early_stopping_patience or self.max_forgetting or self.load_best_model_at_end
        if needs_evaluations and not self.eval_steps:
            raise ValueError(
                "eval_steps: is required by early_stopping_patience, load_best_model_at_end and max_forgetting"
            )


@attrs.frozen(kw_only=True)
class Run:
    """A training run, as listeners see it.

    Attributes:
        method: The method's name.
        config: The method's configuration, resolved for this base.
        options: The options of the run.
        steps: How many optimizer steps the run will take.
        output: The run's folder, or None when nothing is written.
        name: The job's, where several adapters are trained in one pass; else empty.
    """

    method: str
    config: Mapping[str, Any]
    options: TrainOptions
    steps: int = 0
    output: Path | None = None
    name: str = ""
