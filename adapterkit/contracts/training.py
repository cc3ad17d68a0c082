"""The options of a training run, and the run as listeners see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs.validators import and_, ge, gt, le, lt, optional

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Run", "TrainOptions"]

Schedule = Literal["linear", "cosine", "constant"]


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
    """How the learning rate falls after the warm-up."""
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
    bf16: bool = False
    """Compute in bfloat16 under autocast; the adapter itself stays in float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    activation_offload: bool = False
    """Keep what `gradient_checkpointing` recomputes from in the host's memory: less still, for long rows on an accelerator."""
    eval_steps: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Evaluate on ``eval_data`` every so many steps, besides at the end."""
    logging_steps: int = attrs.field(default=10, validator=ge(1))
    """Log every so many steps."""
    seed: int = attrs.field(default=42, validator=and_(ge(0), lt(2**63)))
    """Governs the adapter's initialisation, the order of the rows and dropout."""

    def __attrs_post_init__(self) -> None:
        if self.activation_offload and not self.gradient_checkpointing:
            raise ValueError("activation_offload: needs gradient_checkpointing=True; without it, nothing is recomputed")


@attrs.frozen(kw_only=True)
class Run:
    """A training run, as listeners see it.

    Attributes:
        method: The method's name.
        config: The method's configuration, resolved for this base.
        options: The options of the run.
        steps: How many optimizer steps the run will take.
        output: The run's folder, or None when nothing is written.
    """

    method: str
    config: Mapping[str, Any]
    options: TrainOptions
    steps: int = 0
    output: Path | None = None
