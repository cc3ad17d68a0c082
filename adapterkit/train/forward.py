"""The base with the adapter in training, as one module that owns the adapter's layers alone."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapterkit.forward import BaseForward
from adapterkit.resident import plan_of_layers
from adapterkit.runtime import prefix_count, room

from .offload import offloading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from adapterkit.contracts import Loss, Objective, TrainOptions
    from adapterkit.runtime import Plan, Runtime

__all__ = ["AdapterInTraining", "recomputing"]


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
        self.plan = plan_of_layers(method, layers)
        self.objective = objective
        head = model.get_output_embeddings()
        at_head = any(module is head and name in self.plan for name, module in model.named_modules())
        self.forward_of = BaseForward(model, runtime.checkpoint_contexts, head_acted_on=at_head)
        self._known = model.get_input_embeddings().num_embeddings
        self._runtime = runtime
        self._bf16 = bool(options.bf16)
        self._device = next(model.parameters()).device.type
        self._weights = (
            [*model.parameters(), *model.buffers(), *layers.parameters()] if options.activation_offload else None
        )

    def virtual_tokens(self) -> list[int]:
        """The ids of the virtual tokens that go before each row."""
        (prefix,), (virtual,) = room(self.plan, self._known, 1)
        return prefix + virtual

    def with_objective(self, objective: Objective) -> AdapterInTraining:
        """The same layers, measured by another objective."""
        other = copy.copy(self)
        other.objective = objective
        return other

    def base_alone(self) -> AdapterInTraining:
        """The base without the layers, measured in the same way."""
        other = copy.copy(self)
        other.plan = {}
        return other

    @property
    def prefix_length(self) -> int:
        """How many of them stand for keys and values."""
        return prefix_count(self.plan)

    @contextlib.contextmanager
    def conditions(self, plan: Plan) -> Iterator[None]:
        """Within this block the base follows ``plan``, and computes and keeps what the run's options say."""
        with (
            self._runtime.override(plan),
            torch.autocast(self._device, torch.bfloat16, enabled=self._bf16),
            contextlib.nullcontext() if self._weights is None else offloading(self._weights),
        ):
            yield

    def forward(self, batch: Mapping[str, Tensor]) -> Loss:
        """The summed loss of the batch and the number of tokens it is of."""
        with self.conditions(self.plan):
            return self.objective.loss(self.forward_of, batch)


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
