"""Lets parts of a transformers model compute in fewer kernels while adapters are trained on it."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .gated import silu_mul
from .rotary import rotate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Kernel = Callable[..., Any]

__all__ = ["Trial", "fused", "is_gated", "is_norm", "norm_epsilon"]

logger = logging.getLogger("adapterkit")

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""How far a kernel's first answer may be from the model's own, as a part of its size: rounding, and no more."""
ROTATION = "apply_rotary_pos_emb"
"""What transformers' models call to turn queries and keys; each of their files has its own."""


@contextlib.contextmanager
def fused(model: nn.Module, bare: Callable[[], Any] = contextlib.nullcontext) -> Iterator[None]:
    """Within this block, norms, gated layers and rotary positions of ``model`` are one kernel each, wherever there is a gradient.

    Whoever needs no gradient is answered by the model's own code, to the bit, in whatever thread. What a part of the model does
    is not known from its name: its first answer is compared with the kernel's, and where they differ the model's own code is
    what computes. Nothing is left on the model afterwards.

    Args:
        model: A transformers model.
        bare: Makes a context in which nothing acts on the model, for that comparison: an adapter would draw random numbers for
            its dropout, of which the backward pass, a resumed run and a run without kernels know nothing.
    """
    with contextlib.ExitStack() as undo:
        trials: dict[Any, Trial] = {}

        def trial(of: Any, name: str) -> Trial:
            return trials.setdefault(of, Trial(name, bare))

        for name in sorted({type(module).__module__ for module in model.modules()}):
            if callable(getattr(sys.modules[name], ROTATION, None)):
                undo.enter_context(_rotation_of(sys.modules[name], trial(name, f"{name}.{ROTATION}")))
        for module in model.modules():
            kernel = _kernel_for(module)
            if kernel is not None and "forward" not in vars(module):
                of = type(module)
                module.forward = _choosing(module.forward, kernel, trial(of, of.__name__))
                undo.callback(vars(module).pop, "forward")
        yield


class Trial:
    """Whether a kernel answers as the model's own code does, which the first call shows."""

    def __init__(self, name: str, bare: Callable[[], Any] = contextlib.nullcontext) -> None:
        self.name, self._bare = name, bare
        self.passed: bool | None = None

    def passes(self, own: Kernel, kernel: Kernel, *given: Any) -> bool:
        """Whether to use the kernel."""
        if self.passed is None:
            with self._bare():
                self.passed = self._agree(own, kernel, *given)
        return self.passed

    @torch.no_grad()
    def _agree(self, own: Kernel, kernel: Kernel, *given: Any) -> bool:
        expected = own(*given)
        try:
            found = kernel(*given)
            error = max(_distance(*pair) for pair in zip(_parts(found), _parts(expected), strict=True))
        except Exception as problem:  # noqa: BLE001 - a compiler, a driver or a model may raise anything
            logger.warning(
                "%s is computed by the model's own code, its kernel fails: %s", self.name, _first_line(problem)
            )
            return False
        tolerance = TOLERANCES.get(_parts(expected)[0].dtype, 0.0)
        if error > tolerance:
            logger.info("%s is computed by the model's own code: a kernel's answer differs by %.1e", self.name, error)
        return error <= tolerance


def _distance(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def _first_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0]}"


def _parts(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def _choosing(own: Kernel, kernel: Kernel, trial: Trial) -> Kernel:
    """What a module's ``forward`` is in the meantime."""

    @functools.wraps(own)
    def forward(x: Any, *rest: Any, **named: Any) -> Any:
        if rest or named or not _wants_gradient(x) or not trial.passes(own, kernel, x):
            return own(x, *rest, **named)
        return kernel(x)

    return forward


def _wants_gradient(x: Any) -> bool:
    wanted: bool = torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling()
    return wanted


def _kernel_for(module: nn.Module) -> Kernel | None:
    """What may compute the same as the module."""
    if is_norm(module):
        return functools.partial(_rms_norm, module)
    return functools.partial(_gated, module) if is_gated(module) else None


def is_norm(module: nn.Module) -> bool:
    """Whether it looks like the norm of a Llama."""
    return type(module).__name__.endswith("RMSNorm") and set(module._parameters) == {"weight"}  # noqa: SLF001


def norm_epsilon(module: Any) -> Any:
    """What such a norm adds before it divides."""
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


def is_gated(module: nn.Module) -> bool:
    """Whether it looks like an MLP whose ``up_proj`` is gated by ``silu``."""
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    return all(isinstance(part, nn.Module) for part in parts) and _is_silu(getattr(module, "act_fn", None))


def _is_silu(function: Any) -> bool:
    return isinstance(function, nn.SiLU) or type(function).__name__ == "SiLUActivation"


def _rms_norm(module: Any, x: Tensor) -> Tensor:
    """``x / sqrt(mean(x²) + eps) * weight`` (Zhang and Sennrich 2019, arXiv 1910.07467): torch has a kernel for it."""
    with torch.autocast(x.device.type, enabled=False):  # which would make float32 of what goes in and comes out
        return functional.rms_norm(x, module.weight.shape, module.weight, norm_epsilon(module))


def _gated(module: Any, x: Tensor) -> Any:
    gate, up = module.gate_proj(x), module.up_proj(x)
    return module.down_proj(silu_mul(gate, up))


@contextlib.contextmanager
def _rotation_of(file: Any, trial: Trial) -> Iterator[None]:
    """Within this block, the models of one of transformers' files turn queries and keys by a kernel where there is a gradient."""
    own = getattr(file, ROTATION)

    def kernel(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        return rotate(q, cos, sin), rotate(k, cos, sin)

    @functools.wraps(own)
    def turn(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *rest: Any, **named: Any) -> Any:
        whole = cos.shape[-1] == q.shape[-1]  # some models turn a part of each head
        if rest or named or not whole or not _wants_gradient(q) or not trial.passes(own, kernel, q, k, cos, sin):
            return own(q, k, cos, sin, *rest, **named)
        return kernel(q, k, cos, sin)

    setattr(file, ROTATION, turn)
    try:
        yield
    finally:
        setattr(file, ROTATION, own)
