"""Sites under torch.compile and CUDA graphs: what a swap costs, and with fixed slots what it no longer costs."""

# ruff: noqa: BLE001, SLF001  failures are findings, the numbers tolerances, dynamo resets through a private name

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
import transformers
from site_candidates import (
    Plan,
    Runtime,
    Slots,
    all_sites,
    attach,
    distance,
    logits,
    prompt,
    random_plan,
    site_shape,
    tiny_llama,
    verdict,
)
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def compiled(model: Any, backend: str = "eager") -> tuple[Callable[[Tensor], Tensor], Any]:
    """The model's logits compiled with fullgraph, so that a graph break raises, and the counter of compilations."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    return torch.compile(lambda ids: logits(model, ids), backend=counter, fullgraph=True), counter


def recompiles(model: Any, ids: Tensor, steps: Sequence[tuple[str, Callable[[], Any]]]) -> str:
    """Compilations that each step causes, and NO at the first step whose answer is not eager's."""
    run, counter = compiled(model)
    cells, before = [], 0
    for label, step in steps:
        step()
        try:
            right = distance(run(ids), logits(model, ids)) < 1e-5
        except Exception as error:
            return f"NO {label}: {type(error).__name__}"
        if not right:
            return f"NO {label}: stale answer"
        cells.append(f"{label} {counter.frame_count - before}")
        before = counter.frame_count
    return "yes " + ", ".join(cells)


def check_compile_plans(kind: str, device: str) -> str:
    """New compilations per swap when each plan brings its own tensors."""
    model, runtime = tiny_llama(device), Runtime()
    keys = all_sites(model)

    def make(rank: int, seed: int, sites: list[str] = keys) -> Plan:
        return random_plan(model, sites, rank, seed, device=device)

    plans = {
        "none": None, "adapter": make(8, 1), "same rank": make(8, 2), "rank 16": make(16, 3), "rank 4": make(4, 4),
        "rank 1": make(1, 5), "other sites": make(8, 6, keys[1:6]), "none again": None,
    }  # fmt: skip
    other_scale = make(8, 7)
    for action in other_scale.actions.values():
        action.scale = 0.25
    plans["other scale"] = other_scale
    attach(kind, model, keys, runtime)
    return recompiles(model, prompt(device), [(name, _setter(runtime, plan)) for name, plan in plans.items()])


def _setter(runtime: Runtime, plan: Plan | None) -> Callable[[], Any]:
    return lambda: setattr(runtime, "plan", plan)


def check_compile_subsets(kind: str, device: str) -> str:
    """Twelve plans on twelve sets of sites: every set is a compilation of its own, until dynamo's limit."""
    model, runtime = tiny_llama(device), Runtime()
    keys = all_sites(model)
    plans = [random_plan(model, keys[: n + 1], 8, n, device=device) for n in range(12)]
    attach(kind, model, keys, runtime)
    steps = [(f"set {n}", _setter(runtime, plan)) for n, plan in enumerate(plans, start=1)]
    return recompiles(model, prompt(device), steps)


def slot_bank(model: nn.Module, adapters: Sequence[Plan], device: str, slots: int = 64) -> tuple[Plan, list[Tensor]]:
    """One fixed plan that holds all adapters, and for each the weights that select it."""
    weights, selections, start = torch.zeros(slots, device=device), [], 0
    bank = Plan()
    for key in all_sites(model):
        width, height = site_shape(model.get_submodule(key))
        bank.actions[key] = Slots(
            torch.zeros(slots, width, device=device), torch.zeros(height, slots, device=device), weights
        )
    for adapter in adapters:
        ranks = max(action.down.shape[0] for action in adapter.actions.values())
        for key, action in adapter.actions.items():
            bank.actions[key].down[start : start + ranks] = action.down
            bank.actions[key].up[:, start : start + ranks] = action.up * action.scale
        selections.append(
            torch.zeros(slots, device=device).index_fill_(0, torch.arange(start, start + ranks, device=device), 1.0)
        )
        start += ranks
    return bank, selections


def slot_steps(model: nn.Module, device: str) -> tuple[Plan, list[tuple[str, Plan | None, Callable[[], Any]]]]:
    """The fixed plan, and a swap of each sort with the plain plan that it must equal."""
    keys = all_sites(model)
    ranks = {"adapter": (keys, 8), "same rank": (keys, 8), "rank 16": (keys, 16), "other sites": (keys[1:6], 8)}
    plain = {
        name: random_plan(model, k, r, seed, device=device) for seed, (name, (k, r)) in enumerate(ranks.items(), 1)
    }
    bank, selections = slot_bank(model, list(plain.values()), device)
    weights: Tensor = next(iter(bank.actions.values())).weights
    steps: list[tuple[str, Plan | None, Callable[[], Any]]] = [("none", None, weights.zero_)]
    steps += [
        (name, plan, functools.partial(weights.copy_, s))
        for (name, plan), s in zip(plain.items(), selections, strict=True)
    ]
    return bank, [*steps, ("none again", None, weights.zero_)]


def check_compile_slots(kind: str, device: str) -> str:
    """The same swaps with fixed slots: only the weights' values change."""
    model, runtime = tiny_llama(device), Runtime()
    bank, steps = slot_steps(model, device)
    attach(kind, model, all_sites(model), runtime)
    for name, plan, select in steps:
        runtime.plan = plan
        plain = logits(model, prompt(device))
        runtime.plan = bank
        select()
        if distance(logits(model, prompt(device)), plain) > 1e-5:
            return f"NO {name}: slots and plain plan disagree"
    return recompiles(model, prompt(device), [(name, select) for name, _, select in steps])


def check_inductor(kind: str, device: str) -> str:
    """aot_eager and inductor give eager's answer, before and after a swap."""
    model, runtime = tiny_llama(device, layers=1), Runtime()
    plans = [random_plan(model, all_sites(model), 8, seed, device=device) for seed in (1, 2)]
    attach(kind, model, all_sites(model), runtime)
    errors = []
    for backend in ("aot_eager", "inductor"):
        run, _ = compiled(model, backend)
        for runtime.plan in plans:
            with torch.no_grad():
                errors.append(distance(run(prompt(device)), logits(model, prompt(device))))
    return verdict(max(errors) < 1e-4, f"error {max(errors):.0e}")


def check_late(kind: str, device: str) -> str:
    """Attached after the model was compiled and run: is the change noticed?"""
    model, runtime = tiny_llama(device), Runtime()
    plan = random_plan(model, all_sites(model), 8, 1, device=device)
    run, _ = compiled(model)
    run(prompt(device))
    attach(kind, model, all_sites(model), runtime)
    runtime.plan = plan
    noticed = distance(run(prompt(device)), logits(model, prompt(device))) < 1e-5
    torch._dynamo.reset()
    after_reset = distance(run(prompt(device)), logits(model, prompt(device))) < 1e-5
    return verdict(noticed, "", f"stale graph, silently; right after torch._dynamo.reset(): {after_reset}")


def check_graph(kind: str, device: str) -> str:
    """A decode step captured once as a CUDA graph and replayed after every swap of the slots' weights."""
    if device != "cuda":
        return "not run: no CUDA device"
    model, runtime = tiny_llama(device), Runtime()
    bank, steps = slot_steps(model, device)
    attach(kind, model, all_sites(model), runtime)
    runtime.plan = bank
    cache = transformers.StaticCache(config=model.config, max_cache_len=32)
    token, length = prompt(device, 1), 12
    call = {"past_key_values": cache, "position_ids": torch.tensor([[length]], device=device)}
    model(prompt(device, length), past_key_values=cache)
    state = [t for layer in cache.layers for t in layer.__dict__.values() if isinstance(t, Tensor)]
    saved = [t.clone() for t in state]

    def step() -> Tensor:
        for tensor, value in zip(state, saved, strict=True):
            tensor.copy_(value)
        result: Tensor = model(token, **call).logits
        return result

    with torch.no_grad():
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        errors, outputs = [], []
        for _, _, select in steps:
            select()
            graph.replay()
            outputs.append(captured.clone())
            errors.append(distance(outputs[-1], step()))
    distinct = all(distance(outputs[0], other) > 1e-3 for other in outputs[1:-1])
    return verdict(max(errors) < 1e-5 and distinct, f"{len(steps)} swaps, error {max(errors):.0e}")
