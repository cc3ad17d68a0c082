"""The kernels, in Triton, and how each is started. All compute in float32 and round once where torch's formula does."""

# ruff: noqa: ANN001, ANN202, N803 - what is under @triton.jit is Triton's language, which has no such types
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["cross_entropy_", "rotated", "silu_mul_backward", "silu_mul_forward"]

BLOCK = 2048
"""Numbers that a program has at once: 16 bytes a thread in bfloat16, with the four warps that are Triton's default."""


@triton.jit
def _silu_mul_forward(gate, up, out, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    x = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(up + at, mask=inside, other=0.0)
    silu = (x * tl.sigmoid(x)).to(y.dtype).to(tl.float32)  # rounded in between, as in the model
    tl.store(out + at, silu * y.to(tl.float32), mask=inside)


@triton.jit
def _silu_mul_backward(grad, gate, up, grad_gate, grad_up, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    x = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(x)
    silu = x * share
    tl.store(grad_gate + at, g * y * (share + silu * (1.0 - share)), mask=inside)
    tl.store(grad_up + at, g * silu, mask=inside)


def silu_mul_forward(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) * up``."""
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    with torch.cuda.device_of(gate):
        _silu_mul_forward[(triton.cdiv(gate.numel(), BLOCK),)](gate, up, out, gate.numel(), BLOCK=BLOCK)
    return out


def silu_mul_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of ``gate`` and ``up``."""
    grad, gate, up = grad.contiguous(), gate.contiguous(), up.contiguous()
    grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
    with torch.cuda.device_of(gate):
        _silu_mul_backward[(triton.cdiv(gate.numel(), BLOCK),)](
            grad, gate, up, grad_gate, grad_up, gate.numel(), BLOCK=BLOCK
        )
    return grad_gate, grad_up


@triton.jit
def _rotate(
    x,
    out,
    cos,
    sin,
    x_batch,
    x_head,
    x_token,
    out_batch,
    out_head,
    out_token,
    cos_batch,
    cos_token,
    tokens,
    heads,
    half,
    BACK: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    """One token: all its heads, both halves."""
    row = tl.program_id(0).to(tl.int64)
    batch, token = row // tokens, row % tokens
    head, place = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (place < half)
    angle = batch * cos_batch + token * cos_token + place
    cos_1 = tl.load(cos + angle, mask=place < half, other=0.0).to(tl.float32)
    sin_1 = tl.load(sin + angle, mask=place < half, other=0.0).to(tl.float32)
    cos_2 = tl.load(cos + angle + half, mask=place < half, other=0.0).to(tl.float32)
    sin_2 = tl.load(sin + angle + half, mask=place < half, other=0.0).to(tl.float32)
    source = x + batch * x_batch + token * x_token + head * x_head + place
    x_1 = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    x_2 = tl.load(source + half, mask=inside, other=0.0).to(tl.float32)
    if BACK:
        y_1, y_2 = x_1 * cos_1 + x_2 * sin_2, x_2 * cos_2 - x_1 * sin_1
    else:
        y_1, y_2 = x_1 * cos_1 - x_2 * sin_1, x_2 * cos_2 + x_1 * sin_2
    goal = out + batch * out_batch + token * out_token + head * out_head + place
    tl.store(goal, y_1, mask=inside)
    tl.store(goal + half, y_2, mask=inside)


def rotated(x: Tensor, cos: Tensor, sin: Tensor, *, back: bool) -> Tensor:
    """``x`` turned, or turned back; laid out by batch, sequence, heads and size, as attention reads it best."""
    batch, heads, tokens, size = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    cos, sin = (one.expand(batch, tokens, size).contiguous() if one.stride(-1) != 1 else one for one in (cos, sin))
    sin = sin if sin.stride() == cos.stride() else sin.contiguous()
    cos = cos if sin.stride() == cos.stride() else cos.contiguous()
    out = torch.empty(batch, tokens, heads, size, dtype=x.dtype, device=x.device).transpose(1, 2)
    with torch.cuda.device_of(x):
        _rotate[(batch * tokens,)](
            x,
            out,
            cos,
            sin,
            *(x.stride(0), x.stride(1), x.stride(2)),
            *(out.stride(0), out.stride(1), out.stride(2)),
            *(cos.stride(0) if len(cos) > 1 else 0, cos.stride(1)),
            *(tokens, heads, size // 2),
            BACK=back,
            HEADS=triton.next_power_of_2(heads),
            HALF=triton.next_power_of_2(size // 2),
        )
    return out


@triton.jit
def _cross_entropy(logits, targets, losses, stride, size: tl.constexpr, BLOCK: tl.constexpr):
    """One token: its loss, then its logits' gradient in their place."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    target = tl.load(targets + row)
    hit = tl.load(logits + target).to(tl.float32)  # now: some warps are done with the second loop while others begin it
    highest, total = float("-inf"), 0.0
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(logits + at, mask=at < size, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(x, axis=0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(x - higher), axis=0)
        highest = higher
    sum_log = highest + tl.log(total)
    tl.store(losses + row, sum_log - hit)
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(logits + at, mask=at < size, other=float("-inf")).to(tl.float32)
        tl.store(logits + at, tl.exp(x - sum_log) - tl.where(at == target, 1.0, 0.0), mask=at < size)


def cross_entropy_(logits: Tensor, targets: Tensor) -> Tensor:
    """The losses ``(n,)`` in float32; ``logits``, contiguous ``(n, vocabulary)``, are overwritten with their gradient."""
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(logits):
        _cross_entropy[(len(logits),)](
            logits, targets, losses, logits.stride(0), size=logits.shape[1], BLOCK=4096, num_warps=8
        )
    return losses
