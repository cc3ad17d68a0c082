"""The base: shared by all adapters, and changed by none."""

from __future__ import annotations

import copy
import functools
import gc
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adapterkit.sites import INPUT
from adapterkit.testing.comparing import answers, bits, changed, digest_of_state, own_plan
from adapterkit.testing.outcomes import require
from adapterkit.testing.words import ROWS, some_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from adapterkit.adapter import Adapter
    from adapterkit.base import Base
    from adapterkit.testing.subject import Subject

__all__ = [
    "adapter_is_not_changed_by_its_use",
    "base_keeps_every_bit",
    "detach_gives_the_model_back",
    "inputs_and_outputs_are_left_alone",
    "unloading_gives_the_memory_back",
]

PROMPT = ROWS[0]["prompt"]


def base_keeps_every_bit(subject: Subject) -> None:
    """No parameter, buffer, key, module or flag of the base changes: not by building, training, loading, acting or unloading.

    The base is shared: what one adapter changed in it would change the answers of all others.
    """
    base, ids = subject.base(), some_ids()
    before = digest_of_state(base.model)
    adapters: list[Adapter] = []
    life: dict[str, Callable[[], Any]] = {
        "building": lambda: subject.layers(base),
        "training": lambda: adapters.append(subject.train(base).adapter),
        "loading": lambda: adapters.append(base.load(subject.adapter(1))),
        "acting": lambda: _act(base, adapters[0], ids),
        "acting in a mixed batch": lambda: base.logits(ids, adapter=[adapters[0], adapters[1], None, adapters[0]]),
        "generating": lambda: base.generate(PROMPT, adapter=adapters[0], max_new_tokens=3),
        "unloading": lambda: list(map(base.unload, adapters)),
    }
    for stage, act in life.items():
        act()
        different = changed(before, digest_of_state(base.model))
        require(
            not different,
            f"{stage} changes the base: {', '.join(different[:3])}{' and more' if len(different) > 3 else ''}. Keep what is "
            "trained in layers of the method's own, and copy what a layer needs to know of the base",
        )


def _act(base: Base, adapter: Adapter, ids: Tensor) -> None:
    base.use(adapter)
    base.logits(ids, adapter=adapter)
    base.use(None)


def detach_gives_the_model_back(subject: Subject) -> None:
    """After ``detach`` the model answers as it did to the bit, and no hook, attribute or wrapper of the method is left on it.

    The model may be the caller's own, and is often used for other things.
    """
    base, pristine, ids = subject.base(), subject.base(), some_ids()
    model, untouched = base.model, pristine.model
    base.use(subject.train(base).adapter)
    base.logits(ids, adapter=base.resident[0])
    base.detach()
    pristine.detach()
    with torch.no_grad():
        same = torch.equal(model(ids).logits, untouched(ids).logits)
    left = changed(_attributes(untouched), _attributes(model))
    require(not left, f"something is left on the model after detach: {', '.join(left[:3])}")
    require(same, "the model answers otherwise after detach than before")


def _attributes(model: nn.Module) -> dict[str, Any]:
    """What each module has of its own: its kind, its attributes, its hooks."""
    return {
        f"{type(module).__name__} {name or 'of the whole'}": (
            type(module).__qualname__,
            sorted(vars(module)),
            [len(value) for key, value in sorted(vars(module).items()) if key.endswith("_hooks")],
        )
        for name, module in model.named_modules()
    }


def inputs_and_outputs_are_left_alone(subject: Subject) -> None:
    """A layer's ``forward(x, y)`` returns a new tensor, and writes into neither ``x`` nor ``y``.

    ``x`` is what the next layers of the base are given too. The core notices most such writes; this compares every bit.
    """
    base = subject.base()
    layers = subject.train(base).trained
    written: set[str] = set()
    plan = own_plan(subject.name, layers)
    spied = {site: functools.partial(_spy, site, layers[site], written) for site in plan if site != INPUT}
    answers(base, {**plan, **spied}, some_ids())
    require(
        not written,
        f"the layer writes into {', '.join(sorted(written)[:2])}: use `y + update`, not `y += update`, and no method whose name "
        "ends with an underscore on x or y",
    )


def _spy(site: str, layer: Any, written: set[str], x: Any, y: Any) -> Any:
    before = copy.deepcopy((x, y))
    out = layer(x, y)
    for name, now, then in zip("xy", (x, y), before, strict=True):
        flat = [(now, then)] if isinstance(now, Tensor) else list(zip(now, then, strict=True))
        if any(isinstance(one, Tensor) and bits(one) != bits(other) for one, other in flat):
            written.add(f"{name} at {site}")
    return out


def adapter_is_not_changed_by_its_use(subject: Subject) -> None:
    """An adapter answers the same the second time, and its tensors stay as they were trained, however often it acts.

    An adapter is a value, known by the digest of its tensors. A layer that counts, or keeps a running mean, in evaluation mode
    would make it another one under the same name.
    """
    base, ids, adapter = subject.base(), some_ids(), subject.adapter()
    before = {name: bits(tensor) for name, tensor in adapter.tensors.items()}
    first = base.logits(ids, adapter=adapter)
    for mixed in ([adapter, None, adapter, None], adapter):
        base.logits(ids, adapter=mixed)
    base.generate(PROMPT, adapter=adapter, max_new_tokens=2)
    require(
        torch.equal(base.logits(ids, adapter=adapter), first),
        "the adapter answers otherwise the second time: its layers remember something from one forward pass to the next",
    )
    moved = changed(before, {name: bits(tensor) for name, tensor in adapter.tensors.items()})
    require(not moved, f"acting changes tensors of the adapter: {', '.join(moved[:3])}")


def unloading_gives_the_memory_back(subject: Subject) -> None:
    """An adapter that is unloaded is gone: the method keeps no layer and no tensor of it in a cache of its own.

    A server loads and unloads adapters for months.
    """
    base = subject.base()
    adapter = base.load(subject.adapter())
    with base.using(adapter):
        watched = _weak(base.runtime.plan or {})
    base.unload(adapter)
    layers = dict(subject.layers(base).items())
    watched |= _weak(layers)
    subject.registry.call("lower", subject.method, layers=layers)
    del layers, adapter
    if any(one() is not None for one in watched.values()):
        gc.collect()
    alive = sorted(name for name, one in watched.items() if one() is not None)
    require(
        not alive,
        f"something holds on to what acted at {', '.join(alive[:2])} after it was given up: keep no layers in a cache",
    )


def _weak(things: Mapping[str, Any]) -> dict[str, weakref.ref[Any]]:
    return {f"{site} ({type(one).__name__})": weakref.ref(one) for site, one in things.items()}
