"""Bases: other families, other precisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from adapterkit.base import Base
from adapterkit.errors import ConfigError, SelectionError, TargetError
from adapterkit.testing.comparing import CLOSE, answers, changed, digest_of_state, own_plan, require_close
from adapterkit.testing.models import tiny_llama
from adapterkit.testing.outcomes import CheckFailed, DoesNotApply, require
from adapterkit.testing.subject import need
from adapterkit.testing.words import some_ids, tiny_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from adapterkit.testing.subject import Subject

__all__ = [
    "acts_on_a_bfloat16_base",
    "acts_on_a_mixture_of_experts",
    "acts_on_a_quantized_base_or_refuses_it",
    "acts_on_biases",
    "acts_on_gpt2",
    "acts_on_tied_embeddings",
]

HALF = 0.1
"""How far answers in bfloat16 may be from those in float32, as a part of their size: it has 8 bits, and rounds in each layer."""


def acts_on_gpt2(subject: Subject) -> None:
    """On GPT-2 the method trains, is lowered, mixes and leaves the base alone: its layers are ``Conv1D``, with a transposed weight.

    ``site.weight`` and ``site.in_features`` are right for any layer; ``site.module.weight`` is not.
    """
    _acts_on(subject, "gpt2")


def acts_on_biases(subject: Subject) -> None:
    """On Qwen2, whose query, key and value have biases, the method trains, is lowered, mixes and leaves the base alone.

    ``y`` has the bias in it, and whoever scales the output must say whether the bias is scaled too.
    """
    _acts_on(subject, "qwen")


def acts_on_a_mixture_of_experts(subject: Subject) -> None:
    """On a mixture of experts the method trains, is lowered, mixes and leaves the base alone.

    Its experts are one module with three-dimensional parameters, and its other layers see ``(tokens, features)``, not
    ``(rows, tokens, features)``.
    """
    _acts_on(subject, "moe")


def acts_on_tied_embeddings(subject: Subject) -> None:
    """On a base whose head shares the embedding's weight the method trains, is lowered, mixes and leaves the base alone.

    The head's site then has no weight of its own: ``tied_to`` names the site whose it is.
    """
    _acts_on(subject, "tied")


def _acts_on(subject: Subject, family: str) -> None:
    base, ids = subject.base(family), some_ids()
    before, bare = digest_of_state(base.model), base.logits(ids)
    try:
        subject.layers(base)
    except (TargetError, ConfigError) as error:
        raise DoesNotApply(f"the method refuses such a base by name: {error}") from None
    seen = subject.train(base)
    alone = base.logits(ids, adapter=seen.adapter)
    require(bool(alone.isfinite().all()), "the answers are not numbers")
    require_close(
        alone, answers(base, own_plan(subject.name, seen.trained), ids), "the adapter acts otherwise than in training"
    )
    mixed = base.logits(ids, adapter=[seen.adapter, None, seen.adapter, None])
    require_close(mixed[::2], alone[::2], "a row is answered otherwise in a mixed batch than alone")
    require_close(mixed[1::2], bare[1::2], "a row without an adapter is answered otherwise beside one that has one")
    different = changed(before, digest_of_state(base.model))
    require(not different, f"the base is changed: {', '.join(different[:3])}")


def acts_on_a_bfloat16_base(subject: Subject) -> None:
    """On a base in bfloat16 the adapter is trained in float32, and answers are numbers near those on the base in float32.

    A parameter in bfloat16 does not move: what a step adds to it is smaller than its last bit. So no tensor takes its dtype
    from the base's weight.
    """
    base, ids = subject.base(dtype="bfloat16"), some_ids()
    tensors = subject.train(base).adapter.tensors
    narrow = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.dtype != torch.float32]
    require(
        not narrow,
        f"{', '.join(narrow[:3])} is {tensors[narrow[0]].dtype if narrow else ''} on a base in bfloat16, not float32",
    )
    adapter = subject.adapter()
    got, want = base.logits(ids, adapter=adapter).float(), subject.base().logits(ids, adapter=adapter)
    found = float((got - want).norm() / want.norm())
    require(found <= HALF, f"answers in bfloat16 are {found:.0%} away from those in float32")


def acts_on_a_quantized_base_or_refuses_it(subject: Subject) -> None:
    """With the trait ``quantized_base``, the method acts on 4-bit weights as on the same weights unpacked; without, it is refused.

    A 4-bit weight is stored as bytes of another shape: ``site.weight`` is these bytes, ``site.dense_weight()`` the weight.
    """
    need("bitsandbytes")
    base, ids = subject.base(quantize="nf4"), some_ids()
    if not subject.method.traits.quantized_base:
        _is_refused(subject, base)
        return
    seen = subject.train(base)
    dense = Base(_unpacked(base), tokenizer=tiny_tokenizer(), registry=subject.registry)
    got, want = base.logits(ids, adapter=seen.adapter), dense.logits(ids, adapter=seen.adapter)
    require(bool(got.isfinite().all()), "the answers on a 4-bit base are not numbers")
    require_close(base.logits(ids), dense.logits(ids), "the kit's own base is not the same unpacked", 10 * CLOSE)
    require_close(got, want, "the adapter acts on a 4-bit base otherwise than on the same weights unpacked", 10 * CLOSE)
    require_close(
        got, answers(base, own_plan(subject.name, seen.trained), ids), "the adapter acts otherwise than in training"
    )


def _is_refused(subject: Subject, base: Base) -> None:
    adapter = subject.adapter()
    asked: dict[str, Callable[[], Any]] = {"train": lambda: subject.train(base), "load": lambda: base.load(adapter)}
    for what, ask in asked.items():
        try:
            ask()
        except SelectionError:
            continue
        raise CheckFailed(f"{what} takes a method without the trait quantized_base on a 4-bit base")


def _unpacked(base: Base) -> nn.Module:
    """The same model with its 4-bit weights in float32."""
    model: nn.Module = tiny_llama()
    with torch.no_grad():
        for site in base.sites:
            if site.is_quantized:
                model.get_parameter(f"{site.name}.weight").copy_(site.dense_weight())
    return model
