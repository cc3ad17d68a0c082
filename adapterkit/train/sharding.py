"""The base in pieces: each of several processes holds a part of every block, and has the rest while it computes with it.

This is FSDP2, ``torch.distributed.fsdp.fully_shard`` (Zhao et al. 2023, arXiv 2304.11277), for a base that is frozen: nothing of
it is updated, and its gradients are nobody's. Adapters are whole in each process, as they are without it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.errors import ConfigError
from adapterkit.loading import default_device

if TYPE_CHECKING:
    import contextlib

    from torch import nn

    from adapterkit.base import Base
    from adapterkit.contracts import TrainOptions

    from .processes import Processes
    from .training import Training

__all__ = ["is_wanted", "on_host", "settle", "shard"]

NAME = "FSDP_"
"""What accelerate's settings of FSDP begin with, as ``accelerate launch`` hands them on."""
NOT_TAKEN = {
    ("VERSION", "1"): "fsdp_version: 1 is not used here; set fsdp_version: 2",
    ("OFFLOAD_PARAMS", "true"): "fsdp_offload_params: weights stay on the accelerators; leave it out",
    (
        "ACTIVATION_CHECKPOINTING",
        "true",
    ): "fsdp_activation_checkpointing: give train gradient_checkpointing=True instead",
    ("AUTO_WRAP_POLICY", "SIZE_BASED_WRAP"): "fsdp_auto_wrap_policy: only TRANSFORMER_BASED_WRAP is known here",
}

QUANTIZED = "a quantized base cannot be divided, as its packed layers cannot: leave quantize or fsdp out"


def is_wanted(options: TrainOptions, processes: Processes) -> bool:
    """Whether the base is to be divided: what the option says, else whether accelerate was told so.

    Raises:
        ConfigError: It is to be, and cannot.
    """
    told = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not (told and processes.count > 1 if options.fsdp is None else options.fsdp):
        return False
    problems = []
    if processes.count == 1:
        problems.append("fsdp: needs several processes; start with `accelerate launch`, or with --processes")
    if told:
        problems += [text for (name, value), text in NOT_TAKEN.items() if _setting(name).lower() == value.lower()]
    if problems:
        raise ConfigError("options of train do not fit", problems)
    return True


def on_host(base: Base, undo: contextlib.ExitStack) -> torch.device:
    """See to it that a base is loaded into the host's memory, and given up at the end; where it will be computed with.

    Raises:
        ConfigError: It is one that cannot be divided.
    """
    source = base.source
    reason = ""
    if source.is_object:
        reason = "a model object would be left in pieces: give a folder or a Hub id"
    elif base.active is not None:
        reason = "an adapter is in use on the base, which is given up after the run: base.use(None) first"
    elif source.quantize:
        reason = QUANTIZED
    if reason:
        raise ConfigError("options of train do not fit", [f"fsdp: {reason}"])
    undo.callback(base.unload_model, source)
    device = None
    if "_loaded" not in vars(base) and source.device == "auto":
        base.source, device = attrs.evolve(source, on_host=True), default_device()
    if base.quantized:  # as it is stored
        raise ConfigError("options of train do not fit", [f"fsdp: {QUANTIZED}"])
    return device or base.device


def shard(base: Base, layers: nn.ModuleDict, device: torch.device, processes: Processes) -> None:
    """Leave a part of each block's weights in each process, on ``device``; embeddings, last norm, head and ``layers`` whole.

    Weights that lie in the host's memory go over block by block: no device ever holds all of them. What is outside of the
    blocks stays whole since it is read outside of the model's own forward pass as well: tied to each other, by a head that works in
    parts, by virtual tokens.

    Raises:
        ConfigError: The model does not say which its blocks are.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, _ = base.model, base.reference  # which is made of all weights
    blocks = _blocks(model)
    layers.to(device)
    processes.meet()
    processes.lockstep = True
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    whole = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    for parameter in whole:
        parameter.data = parameter.data.to(device)
    mesh = init_device_mesh(device.type, (processes.count,))
    again = _setting("RESHARD_AFTER_FORWARD").lower() != "false"
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=again)
    fully_shard(model, mesh=mesh, ignored_params=set(whole))


def settle(training: Training) -> None:
    """Have decided in one pass of all what a process would decide in a pass of its own, and make another pass for.

    That is whether the head can work in parts, which is tried where there are many tokens for the first time.
    """
    if not training.processes.lockstep:
        return
    module = training.module.eval()
    with torch.no_grad(), module.conditions(module.plan):
        module.forward_of.trunk(training.collate([training.examples[0]]))


def _blocks(model: Any) -> list[nn.Module]:
    """The model's decoder layers, or what accelerate's settings name; none of them within another."""
    named = [name.strip() for name in _setting("TRANSFORMER_CLS_TO_WRAP").split(",")]
    classes = {name for name in named if name} or set(model._no_split_modules or ())  # noqa: SLF001
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in model.modules():
        if type(module).__name__ in classes and module not in inside:
            found.append(module)
            inside.update(module.modules())
    if not found:
        reason = f"fsdp: {type(model).__name__} has no blocks of the classes {', '.join(sorted(classes)) or 'that it names: none'}"
        raise ConfigError("the base does not fit", [reason])
    return found


def _setting(name: str) -> str:
    told = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return os.environ.get(NAME + name, "") if told else ""
