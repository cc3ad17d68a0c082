"""What checks compare: answers, bits, and the state of everything that a method must leave alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from adapterkit.data.batching import collate
from adapterkit.effects import Bias, Dense, LowRank
from adapterkit.resident import plan_of_layers

from .outcomes import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from adapterkit.base import Base
    from adapterkit.contracts import Example
    from adapterkit.effects import Effect, Effects
    from adapterkit.runtime import Plan

__all__ = [
    "CLOSE",
    "answers",
    "bits",
    "changed",
    "changes",
    "digest_of_state",
    "distance",
    "loss",
    "one_thread",
    "own_plan",
    "require_close",
    "stirred",
    "surroundings",
]

CLOSE = 1e-5
"""How far two ways to compute the same in float32 may be from each other, as a part of the largest number where that is over 1."""


@torch.no_grad()
def answers(base: Base, plan: Plan | None, ids: Tensor) -> Tensor:
    """The base's logits for ``ids`` under any plan, without those of virtual tokens."""
    with base.runtime.override(plan):
        own_ids, own_mask = base.make_room(ids)
        logits: Tensor = base.model(input_ids=own_ids, attention_mask=own_mask, use_cache=False).logits
    return logits[:, logits.shape[1] - ids.shape[1] :]


def own_plan(method: str, layers: Mapping[str, nn.Module]) -> Plan:
    """The plan under which layers act themselves, as in training."""
    return plan_of_layers(method, cast("nn.ModuleDict", layers))


@torch.no_grad()
def loss(base: Base, plan: Plan | None, examples: Sequence[Example]) -> float:
    """The mean loss of the trained tokens of ``examples`` under a plan."""
    with base.runtime.override(plan):
        (prefix,), (virtual,) = base.room(1)
        batch = collate([one.after(prefix + virtual) for one in examples], pad_id=0)
        logits = base.model(batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    labels = batch["labels"][:, batch["labels"].shape[1] - logits.shape[1] :]
    return float(functional.cross_entropy(logits[:, :-1].float().transpose(1, 2), labels[:, 1:]))


def distance(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a part of the largest number of ``other`` where that is over 1; infinite for no number."""
    size = max(1.0, float(other.abs().max()))
    found = float((one.double() - other.double()).abs().max()) / size
    return found if found == found else float("inf")  # noqa: PLR0124 - NaN alone is not itself


def require_close(one: Tensor, other: Tensor, what: str, within: float = CLOSE) -> None:
    """Raise unless two answers are the same but for rounding; ``what`` says what it means that they are not."""
    found = distance(one, other)
    require(found <= within, f"{what} (by up to {found:.2g}, where {within:.0e} is rounding)")


def changes(effects: Effects) -> dict[str, Tensor]:
    """What effects say, each thing once however it is said: what is added to a parameter is one sum, in float64."""
    found: dict[str, Tensor] = {}
    for site, here in effects.items():
        for one in here:
            for name, tensor, is_sum in _said(one):
                key = f"{name} at {site}"
                found[key] = found[key] + tensor if is_sum and key in found else tensor
    return found


def _said(effect: Effect) -> list[tuple[str, Tensor, bool]]:
    """What an effect says, by a name that tells what it means, and whether others of that name are added to it."""
    if isinstance(effect, LowRank):
        delta = effect.scale * (effect.up.double() @ effect.down.double())
        return [(f"weight{' of an embedding' if effect.embedding else ''}", delta, True)]
    if isinstance(effect, Dense):
        return [(effect.parameter + (" of an embedding" if effect.embedding else ""), effect.delta.double(), True)]
    if isinstance(effect, Bias):
        return [("bias", effect.vector.double(), True)]
    kind = type(effect).__name__
    told = {name: one for name, one in attrs.asdict(effect, recurse=False).items() if not isinstance(one, Tensor)}
    return [
        (f"{kind} {told or ''} {field.name}", getattr(effect, field.name), False)
        for field in attrs.fields(type(effect))
        if field.name not in told
    ]


def bits(tensor: Tensor) -> bytes:
    """Every bit of a tensor."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def digest_of_state(model: Any) -> dict[str, str]:
    """A digest of each parameter and buffer, aliases and non-persistent buffers included, and of the model's structure."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    found = {name: _digest_of(tensor) for name, tensor in tensors}
    found["the keys of its state_dict"] = " ".join(model.state_dict())
    found["its modules"] = " ".join(f"{name}:{type(one).__qualname__}" for name, one in model.named_modules())
    found["which modules are in training mode"] = " ".join(n for n, one in model.named_modules() if one.training)
    return found


def _digest_of(tensor: Tensor) -> str:
    state = getattr(tensor, "quant_state", None)
    parts = [tensor, *(state.as_dict(packed=True).values() if state is not None else ())]
    total = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad}".encode())
    for part in parts:
        total.update(bits(part) if isinstance(part, Tensor) else repr(part).encode())
    return total.hexdigest()


def surroundings() -> dict[str, Any]:
    """What belongs to the whole process, and is no method's to change."""
    numpy = sys.modules.get("numpy")
    return {
        "torch's random state": bits(torch.get_rng_state()),
        "Python's random state": random.getstate(),
        "numpy's random state": None if numpy is None else repr(numpy.random.get_state()),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": str(torch.get_default_device()),
        "torch's number of threads": torch.get_num_threads(),
        "whether gradients are computed": torch.is_grad_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "whether torch is held to deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "the precision of float32 products": torch.get_float32_matmul_precision(),
        "the current folder": str(Path.cwd()),
        **{f"the environment variable {name}": value for name, value in os.environ.items()},
    }


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within this block torch computes in one thread: with tiny tensors, more would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def stirred() -> Iterator[None]:
    """Within this block, random states are where nobody has set them; afterwards they are as they were."""
    before = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.rand(3)
            random.random()  # noqa: S311 - not a secret
            yield
    finally:
        random.setstate(before)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What is not as it was."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
