"""The base with the adapter in training, as one module that owns the adapter's layers alone."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import noop_context_fn

from adapterkit.resident import plan_of_layers
from adapterkit.runtime import prefix_count, room

from .head import HeadInParts, head_at
from .offload import offloading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from adapterkit.contracts import Loss, Objective, TrainOptions
    from adapterkit.runtime import Runtime

__all__ = ["AdapterInTraining", "BaseForward", "recomputing"]


class BaseForward:
    """The base as an objective sees it: from a batch to logits, with whatever adapter is in force."""

    def __init__(self, model: Any, contexts: Callable[[], tuple[Any, Any]] = noop_context_fn) -> None:
        self._model = model
        self._head = HeadInParts(model, contexts)

    def __call__(self, batch: Mapping[str, Tensor], positions: Tensor | None = None) -> Tensor:
        """Logits of the batch; at ``positions`` alone where given, so that the head works for trained tokens only.

        A packed batch brings its mask and positions. A padded one needs neither: it is padded on the right, where causal
        attention never looks, and without a mask attention takes its fast path.
        """
        packed = {}
        if "segment_mask" in batch:
            packed = {"attention_mask": batch["segment_mask"], "position_ids": batch["position_ids"]}
        with head_at(self._model, positions):
            logits: Tensor = self._model(input_ids=batch["input_ids"], use_cache=False, **packed).logits
        return logits

    def token_losses(self, batch: Mapping[str, Tensor], positions: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy of ``targets`` at ``positions``; see :class:`adapterkit.Forward`."""
        if self._head.wants(len(targets)):
            losses = self._head.losses(functools.partial(self, batch), positions, targets)
            if losses is not None:
                return losses
        return functional.cross_entropy(self(batch, positions).float(), targets, reduction="none")


class AdapterInTraining(nn.Module):
    """Calls the base under the layers in training and returns the objective's loss.

    The base is no submodule of it: what an optimizer, a wrapper for several processes or a checkpoint finds here is the
    adapter, and nothing else.
    """

    def __init__(
        self,
        model: Any,
        method: str,
        layers: nn.ModuleDict,
        runtime: Runtime,
        objective: Objective,
        options: TrainOptions,
    ) -> None:
        super().__init__()
        self.layers = layers
        self._plan = plan_of_layers(method, layers)
        self._known = model.get_input_embeddings().num_embeddings
        self._forward = BaseForward(model, runtime.checkpoint_contexts)
        self._runtime = runtime
        self._objective = objective
        self._bf16 = options.bf16
        self._weights = (
            [*model.parameters(), *model.buffers(), *layers.parameters()] if options.activation_offload else None
        )

    def virtual_tokens(self) -> list[int]:
        """The ids of the virtual tokens that go before each row."""
        (prefix,), (virtual,) = room(self._plan, self._known, 1)
        return prefix + virtual

    @property
    def prefix_length(self) -> int:
        """How many of them stand for keys and values."""
        return prefix_count(self._plan)

    def forward(self, batch: Mapping[str, Tensor]) -> Loss:
        """The summed loss of the batch and the number of tokens it is of."""
        device = batch["input_ids"].device.type
        with (
            self._runtime.override(self._plan),
            torch.autocast(device, torch.bfloat16, enabled=self._bf16),
            contextlib.nullcontext() if self._weights is None else offloading(self._weights),
        ):
            return self._objective.loss(self._forward, batch)


LEFT_BEHIND = {
    *(
        "gradient_checkpointing",
        "_gradient_checkpointing_func",
        "_require_grads_hook",
        "_require_grads_hooks",
        "training",
    ),
}
"""What transformers' switches set on a model, and do not all take away again."""


@contextlib.contextmanager
def recomputing(model: Any, runtime: Runtime) -> Iterator[None]:
    """Within this block, the base's blocks keep no activations and compute them again in the backward pass.

    transformers does so for blocks in training mode only; each block is put into it without what it consists of, so that
    no dropout of the base awakes.
    """
    blocks = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]
    before = [
        (module, {name: one for name, one in vars(module).items() if name in LEFT_BEHIND}) for module in model.modules()
    ]
    enable, disable = _switches(model)
    enable({"use_reentrant": False, "context_fn": runtime.checkpoint_contexts})
    model.disable_input_require_grads()  # needed by reentrant checkpoints only, and would stay behind on the embeddings
    try:
        for module in blocks:
            module.training = True
        yield
    finally:
        disable()
        for module, attributes in before:
            for name in LEFT_BEHIND & vars(module).keys():
                delattr(module, name)
            vars(module).update(attributes)


def _switches(model: Any) -> tuple[Any, Any]:
    """Transformers' two switches, which had other names before 5.20."""
    if hasattr(model, "activation_checkpointing_enable"):
        return model.activation_checkpointing_enable, model.activation_checkpointing_disable
    return model.gradient_checkpointing_enable, model.gradient_checkpointing_disable
