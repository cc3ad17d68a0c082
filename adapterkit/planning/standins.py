"""What stands in, on tensors without numbers, for kernels of CUDA that choose by themselves what memory they take."""

from __future__ import annotations

import copy
import functools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn import functional

if TYPE_CHECKING:
    from .meter import Meter

__all__ = ["METER", "NAME", "Packed", "attend_by_stand_in", "fuse", "pack_linears"]

METER: ContextVar[Meter] = ContextVar("adapterkit_meter")
"""What counts the work of kernels that are stood in for."""
NAME = "adapterkit-rehearsal"
"""What transformers knows :func:`attention` by."""

ALIGNMENT = 8
"""A mask whose rows are no multiple of this many numbers is copied to where they are, for each layer."""
LAUNCHES = 6
"""What writing a weight out takes of the host: kernels for scales, their scales and the weight, and bitsandbytes' own Python."""
GROUP, GROUPS = 64, 256
"""Weights that share a scale, and scales that share one of their own."""


class _Norm(torch.autograd.Function):
    """Keeps its input and a number for each row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return x * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _ = ctx.saved_tensors
        return grads[0] * x, torch.empty_like(weight) if ctx.needs_input_grad[1] else None


class _Gate(torch.autograd.Function):
    """``silu(gate) * up`` as one kernel in either direction."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return gate * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return grads[0] * gate, grads[0] * up


def fuse(model: nn.Module) -> None:
    """Have norms and gated layers of ``model`` take what they take within :func:`adapterkit.kernels.fused` on a GPU.

    A run compares each kernel's first answer with the model's own; there is none here, so a norm is tried on a few numbers.
    """
    tried: dict[type, bool] = {}
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and set(module._parameters) == {"weight"}:  # noqa: SLF001
            if tried.setdefault(type(module), _is_plain_norm(module)):
                module.forward = functools.partial(_norm, module)
        elif _is_gated(module):
            module.forward = functools.partial(_gated, module)


def _norm(module: Any, x: Tensor) -> Tensor:
    out: Tensor = _Norm.apply(x, module.weight)  # type: ignore[no-untyped-call]
    return out


def _gated(module: Any, x: Tensor) -> Any:
    return module.down_proj(_Gate.apply(module.gate_proj(x), module.up_proj(x)))  # type: ignore[no-untyped-call]


def _is_plain_norm(module: Any) -> bool:
    """Whether it multiplies by its weight, and not, as Gemma's does, by one more."""
    with unset_fake_temporarily(), torch.no_grad():
        size = module.weight.shape
        twin = copy.copy(module)
        twin._parameters = {"weight": nn.Parameter(torch.rand(size))}  # noqa: SLF001 - the module itself has no numbers
        x, epsilon = torch.rand(2, *size), getattr(module, "variance_epsilon", getattr(module, "eps", None))
        return torch.allclose(
            type(module).forward(twin, x), functional.rms_norm(x, size, twin.weight, epsilon), rtol=1e-3
        )


def _is_gated(module: Any) -> bool:
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    act = getattr(module, "act_fn", None)
    is_silu = isinstance(act, nn.SiLU) or type(act).__name__ == "SiLUActivation"
    return is_silu and all(isinstance(part, nn.Module) for part in parts)


def attention(
    module: Any,  # noqa: ARG001 - what transformers gives
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,  # noqa: ARG001 - such as a scale
) -> tuple[Tensor, None]:
    """What transformers calls for attention in a rehearsal: scores are never all there at once, as in PyTorch's fused kernels.

    Without a mask, they share keys and values among the heads of a group; with one, transformers copies these for each head.
    """
    if attention_mask is not None:
        times = query.shape[1] // key.shape[1]
        key, value = (one if times == 1 else one.repeat_interleave(times, 1) for one in (key, value))
        if attention_mask.shape[-1] % ALIGNMENT:
            attention_mask = functional.pad(attention_mask, (0, ALIGNMENT - attention_mask.shape[-1] % ALIGNMENT))
    attended: Tensor = _Attended.apply(query, key, value, attention_mask)  # type: ignore[no-untyped-call]
    return attended.transpose(1, 2), None


def no_mask(*_: Any, **__: Any) -> None:
    """What transformers calls for a mask where none was given; kernels that leave out what comes after a token need none."""


def attend_by_stand_in(model: Any) -> None:
    """Have a model that attends by PyTorch's function attend by :func:`attention` instead."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if model.config.get_text_config()._attn_implementation == "sdpa":  # noqa: SLF001 - transformers has no public name for it
        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, no_mask)
        model.set_attn_implementation(NAME)


class _Attended(torch.autograd.Function):
    """Query ``(batch, heads, length, size)``, keys and values perhaps of fewer heads; keeps them, its output and a row's sum."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        batch, heads, length, _ = query.shape
        # laid out as (batch, length, heads, size), so that what is made of it next needs no copy
        out = query.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)
        sums = query.new_empty(batch, heads, length, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, out, sums)
        METER.get().charge(*_work(query, key, value, mask), attention=True)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, out, sums = ctx.saved_tensors
        batch, heads, length, _ = query.shape
        delta = torch.empty_like(sums)
        wide = [one.new_empty(one.shape[0], one.shape[2], heads, one.shape[3]).transpose(1, 2) for one in (key, value)]
        grad_query = query.new_empty(batch, length, heads, query.shape[3]).transpose(1, 2)
        # sums of the query's gradient, which many blocks add to, in float32
        running = torch.empty(query.shape, dtype=torch.float32, device=query.device)
        flops, moved = _work(query, key, value, mask)
        METER.get().charge(flops * 5 // 2, 2 * moved, attention=True)
        del delta, running, out, grads
        narrow = [
            one if one.shape[1] == like.shape[1] else one.unflatten(1, (like.shape[1], -1)).sum(2)
            for one, like in zip(wide, (key, value), strict=True)
        ]
        return grad_query, narrow[0], narrow[1], None


def _work(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[int, int]:
    """Operations and bytes; without a mask, the half that lies after a token is left out."""
    pairs = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
    flops = 2 * pairs * (query.shape[3] + value.shape[3])
    moved = query.nbytes * 2 + key.nbytes + value.nbytes + (0 if mask is None else mask.nbytes * query.shape[1])
    return (flops if mask is not None else flops // 2), moved


class Packed(nn.Linear):
    """A linear layer in 4 or 8 bits, as bitsandbytes stores it: every pass writes the whole weight out before it is used.

    For a few hundred tokens or fewer, bitsandbytes has kernels that do not; a training step is mostly larger.
    """

    def __init__(self, linear: Any, quantize: str, dtype: torch.dtype, *, double_quant: bool) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.quantize, self.dtype = quantize, dtype
        numbers = self.in_features * self.out_features
        bias = None if linear.bias is None else nn.Parameter(linear.bias.to(dtype), requires_grad=False)
        self.register_parameter("bias", bias)
        if quantize == "int8":
            stored = torch.empty(self.out_features, self.in_features, dtype=torch.int8)
            scales = [torch.empty(self.out_features)]
        else:
            stored = torch.empty((numbers + 1) // 2, 1, dtype=torch.uint8)
            scales = _scales(-(-numbers // GROUP), double_quant=double_quant)
        self.weight = nn.Parameter(stored, requires_grad=False)
        for number, one in enumerate(scales):
            self.register_buffer(f"scale_{number}", one)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as nn.Linear calls it
        """The layer's output."""
        out: Tensor = _PackedProduct.apply(input, self)  # type: ignore[no-untyped-call]
        return out

    def written_out(self) -> Tensor:
        """The weight ``(out_features, in_features)`` as it is for the time of a product."""
        if self.quantize != "int8":
            # its scales in float32, before and after their mean is added
            scales = [torch.empty(-(-self.weight.numel() * 2 // GROUP)) for _ in range(2)]
            del scales
        weight = torch.empty(self.out_features, self.in_features, dtype=self.dtype)
        METER.get().charge(0, self.weight.nbytes + weight.nbytes, launches=LAUNCHES)
        return weight


class _PackedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Packed) -> Tensor:
        ctx.layer = layer
        if layer.quantize == "int8":
            ctx.kept = x  # LLM.int8 keeps its input, and halves and bytes of it for the time of the product
            x = x.to(torch.float16).to(torch.int8).to(x.dtype)
        return functional.linear(x, layer.written_out(), layer.bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0] @ ctx.layer.written_out(), None


def _scales(count: int, *, double_quant: bool) -> list[Tensor]:
    if not double_quant:
        return [torch.empty(count)]
    return [torch.empty(count, dtype=torch.uint8), torch.empty(-(-count // GROUPS))]


def pack_linears(model: nn.Module, names: list[str], quantize: str, dtype: torch.dtype, *, double_quant: bool) -> None:
    """Put the linear layers of these names into 4 or 8 bits, in place."""
    for name in names:
        parent, _, last = name.rpartition(".")
        linear: Any = model.get_submodule(name)
        if not isinstance(linear, nn.Linear):  # GPT-2's, whose weight is stored the other way round
            linear.in_features, linear.out_features = linear.weight.shape
        setattr(model.get_submodule(parent), last, Packed(linear, quantize, dtype, double_quant=double_quant))
