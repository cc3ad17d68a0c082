"""The candidates that `site_attachment.py` measures: four ways to attach a site, five ways to find the active plan.

A site runs the base layer and then, if the active plan holds an action for it, the action: `y = action(x, base(x))`.
Nothing here is used by the package: it is the smallest honest form of every candidate, so that their differences
are the candidates' own.
"""

# ruff: noqa: D102, SLF001  overrides are documented in their parents; a site lives in a private attribute

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

# --- actions and plans ---------------------------------------------------------------------------------------------


def project(inputs: Tensor, down: Tensor) -> Tensor:
    """`inputs @ down.T`, or its rows where the inputs are token ids: down is (rank, in), the result (..., rank)."""
    return inputs.to(down.dtype) @ down.T if inputs.is_floating_point() else functional.embedding(inputs, down.T)


@dataclass(eq=False)
class LowRank:
    """LoRA's term: `y + ((x @ down.T) @ up.T) * scale`; down is (rank, in), up is (out, rank)."""

    down: Tensor
    up: Tensor
    scale: float | Tensor = 1.0

    def __call__(self, inputs: Tensor, output: Tensor) -> Tensor:
        return output + (project(inputs, self.down) @ self.up.T * self.scale).to(output.dtype)


@dataclass(eq=False)
class Slots:
    """All resident adapters of a site in one pair of buffers; `weights` (slots,) says which ranks act, and how much."""

    down: Tensor
    up: Tensor
    weights: Tensor

    def __call__(self, inputs: Tensor, output: Tensor) -> Tensor:
        return output + ((project(inputs, self.down) * self.weights) @ self.up.T).to(output.dtype)


@dataclass(eq=False)
class Plan:
    """What acts in one forward: an action, `(inputs, output) -> output`, for each site that has one."""

    actions: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        """Every `down` and `up`, in the order of the sites."""
        return [tensor for action in self.actions.values() for tensor in (action.down, action.up)]


def site_shape(module: nn.Module) -> tuple[int, int]:
    """(in, out) of a linear layer, GPT-2's transposed one, a 4-bit one or an embedding."""
    if isinstance(module, nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]


def random_plan(
    model: nn.Module, keys: Iterable[str], rank: int, seed: int, *, grad: bool = False, device: str = "cpu"
) -> Plan:
    """A low-rank action at each site, with random values large enough to change every output."""
    generator = torch.Generator().manual_seed(seed)
    plan = Plan()
    for key in keys:
        width, height = site_shape(model.get_submodule(key))
        down = torch.randn(rank, width, generator=generator).div(width**0.5)
        up = torch.randn(height, rank, generator=generator).div(rank**0.5)
        plan.actions[key] = LowRank(down.to(device).requires_grad_(grad), up.to(device).requires_grad_(grad), 0.5)
    return plan


# --- how the plan is found -----------------------------------------------------------------------------------------


class Runtime:
    """A plain attribute on one shared object."""

    label = "attribute"

    def __init__(self) -> None:
        self.plan: Plan | None = None

    def current(self) -> Plan | None:
        """The plan that the running forward should use."""
        return self.plan

    @contextlib.contextmanager
    def using(self, plan: Plan | None) -> Iterator[None]:
        """Make `plan` current inside the block."""
        before, self.plan = self.plan, plan
        try:
            yield
        finally:
            self.plan = before

    def capture(self) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        """A `context_fn` for torch's checkpoint: recomputation uses the plan of this moment."""
        return contextlib.nullcontext(), self.using(self.current())


class ContextRuntime(Runtime):
    """A ContextVar over the attribute: `...` means no override."""

    label = "ContextVar"

    def __init__(self) -> None:
        super().__init__()
        self.override: contextvars.ContextVar[Any] = contextvars.ContextVar("plan", default=...)

    def current(self) -> Plan | None:
        override = self.override.get()
        return self.plan if override is ... else override

    @contextlib.contextmanager
    def using(self, plan: Plan | None) -> Iterator[None]:
        token = self.override.set(plan)
        try:
            yield
        finally:
            self.override.reset(token)


class _Local(threading.local):
    """Set in `__init__`, which runs once per thread: dynamo does not guard a class attribute, and answers stale."""

    def __init__(self) -> None:
        self.plan: Any = ...


class _ClassLocal(threading.local):
    plan: Any = ...


class ThreadRuntime(Runtime):
    """A thread-local override over the attribute."""

    label = "threading.local"
    local_class: type[Any] = _Local

    def __init__(self) -> None:
        super().__init__()
        self.local = self.local_class()

    def current(self) -> Plan | None:
        override = self.local.plan
        return self.plan if override is ... else override

    @contextlib.contextmanager
    def using(self, plan: Plan | None) -> Iterator[None]:
        before, self.local.plan = self.local.plan, plan
        try:
            yield
        finally:
            self.local.plan = before


class ClassThreadRuntime(ThreadRuntime):
    """The same with the default as a class attribute."""

    label = "threading.local, class default"
    local_class = _ClassLocal


class HybridRuntime(ThreadRuntime):
    """`using` sets both; eager code reads the ContextVar, traced code the thread-local."""

    label = "hybrid"

    def __init__(self) -> None:
        super().__init__()
        self.override: contextvars.ContextVar[Any] = contextvars.ContextVar("plan", default=...)

    def current(self) -> Plan | None:
        override = self.local.plan if torch.compiler.is_compiling() else self.override.get()
        return self.plan if override is ... else override

    @contextlib.contextmanager
    def using(self, plan: Plan | None) -> Iterator[None]:
        if torch.compiler.is_compiling():
            with super().using(plan):
                yield
            return
        token = self.override.set(plan)
        try:
            with super().using(plan):
                yield
        finally:
            self.override.reset(token)


RUNTIMES: tuple[type[Runtime], ...] = (Runtime, ContextRuntime, ThreadRuntime, ClassThreadRuntime, HybridRuntime)


# --- how a site is attached ----------------------------------------------------------------------------------------


@dataclass(eq=False)
class Site:
    """A name and the runtime to ask; copies of a model share it."""

    key: str
    runtime: Runtime

    def __deepcopy__(self, memo: dict[int, Any]) -> Site:
        return self

    def act(self, inputs: Tensor, output: Tensor) -> Tensor:
        """`output` with the current plan's action for this site applied, if there is one."""
        plan = self.runtime.current()
        action = None if plan is None else plan.actions.get(self.key)
        return output if action is None else action(inputs, output)

    def hook(self, _: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The site as a forward hook."""
        return self.act(args[0], output)


Undo = Callable[[], None]


def attach_hook(model: nn.Module, site: Site) -> Undo:
    """`register_forward_hook`."""
    return model.get_submodule(site.key).register_forward_hook(site.hook).remove


@functools.cache
def site_class(base: Any) -> type[nn.Module]:
    """A subclass of `base` whose forward acts."""

    def forward(self: Any, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        site: Site = self._site
        return site.act(inputs, base.forward(self, inputs, *args, **kwargs))

    return type(f"Site{base.__name__}", (base,), {"forward": forward})


def attach_class(model: nn.Module, site: Site) -> Undo:
    """`module.__class__ = subclass`."""
    module = model.get_submodule(site.key)
    before = type(module)
    module.__class__ = site_class(before)  # type: ignore[arg-type]  # a class hashes
    module._site = site  # type: ignore[assignment]

    def undo() -> None:
        module.__class__ = before
        del module._site

    return undo


def _site_forward(self: Any, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    before = self.__dict__.get("_site_before")  # somebody else's override of this instance, accelerate's say
    output = type(self).forward(self, inputs, *args, **kwargs) if before is None else before(inputs, *args, **kwargs)
    site: Site = self._site
    return site.act(inputs, output)


def attach_forward(model: nn.Module, site: Site) -> Undo:
    """`module.forward = ...`, as a bound method so that a deep copy binds to the copy."""
    module = model.get_submodule(site.key)
    before = module.__dict__.get("forward")
    if before is not None:
        module._site_before = before
    module._site = site  # type: ignore[assignment]
    module.forward = types.MethodType(_site_forward, module)

    def undo() -> None:
        del module.forward, module._site
        if before is not None:
            module.forward = before
            del module._site_before

    return undo


class Wrapper(nn.Module):
    """PEFT's way: the layer becomes a child of its stand-in."""

    def __init__(self, base: nn.Module, site: Site) -> None:
        super().__init__()
        self.base_layer = base
        self._site = site

    def forward(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self._site.act(inputs, self.base_layer(inputs, *args, **kwargs))


def attach_wrapper(model: nn.Module, site: Site) -> Undo:
    """Replace the child module."""
    parent, _, name = site.key.rpartition(".")
    owner, module = model.get_submodule(parent), model.get_submodule(site.key)
    setattr(owner, name, Wrapper(module, site))
    return lambda: setattr(owner, name, module)


CANDIDATES: dict[str, Callable[[nn.Module, Site], Undo]] = {
    "hook": attach_hook,
    "class": attach_class,
    "forward": attach_forward,
    "wrapper": attach_wrapper,
}


def attach(kind: str, model: nn.Module, keys: Iterable[str], runtime: Runtime) -> Undo:
    """Attach a site at every key; the result detaches them, last first."""
    undo = [CANDIDATES[kind](model, Site(key, runtime)) for key in keys]

    def detach() -> None:
        for step in reversed(undo):
            step()

    return detach


# --- tiny models ---------------------------------------------------------------------------------------------------


def frozen(model: PreTrainedModel, device: str, dtype: torch.dtype) -> Any:
    """The model on its device, in eval mode, with no trainable tensor."""
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False)


def tiny_llama(device: str = "cpu", *, layers: int = 2, dtype: torch.dtype = torch.float32) -> Any:
    """A Llama of hidden size 64 with its own head, the same for the same arguments."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False, bos_token_id=0,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return frozen(LlamaForCausalLM(config), device, dtype)


def tiny_gpt2(device: str = "cpu", *, dtype: torch.dtype = torch.float32) -> Any:
    """A GPT-2 of hidden size 64, whose linear layers are transposed."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=128, n_embd=64, n_layer=2, n_head=4, n_positions=128, tie_word_embeddings=False)
    return frozen(GPT2LMHeadModel(config), device, dtype)


def all_sites(model: nn.Module) -> list[str]:
    """Every linear layer, the token embedding and the head."""
    kinds = (nn.Linear, nn.Embedding, Conv1D)
    return [name for name, module in model.named_modules() if isinstance(module, kinds) and not name.endswith("wpe")]


# --- small things that every check needs ----------------------------------------------------------------------------


def prompt(device: str, length: int = 12) -> Tensor:
    """A batch of two rows of token ids."""
    return torch.randint(1, 128, (2, length), generator=torch.Generator().manual_seed(1)).to(device)


def logits(model: Any, ids: Tensor) -> Tensor:
    result: Tensor = model(ids, use_cache=False).logits
    return result


def distance(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b| in float64."""
    return float((a.double() - b.double()).norm() / b.double().norm())


def verdict(ok: object, text: str = "", otherwise: str = "") -> str:
    """`yes` or `NO`, and how."""
    return (f"yes {text}" if ok else f"NO {otherwise or text}").strip()
