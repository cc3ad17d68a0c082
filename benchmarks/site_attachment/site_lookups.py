"""Ways to find the active plan: under torch.compile, in two threads, in two asyncio tasks, in a recomputed forward."""

# ruff: noqa: BLE001, SLF001  failures are findings, the numbers tolerances, dynamo resets through a private name

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import warnings
from typing import TYPE_CHECKING, Any

import torch
from site_candidates import Plan, Runtime, all_sites, attach, distance, logits, prompt, random_plan, tiny_llama, verdict
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 20


def prepared(kind: type[Runtime], device: str, count: int = 2) -> tuple[Any, Runtime, list[Plan], list[Tensor]]:
    """A model with hooks, its runtime, some plans of the same shape, and what each plan must answer."""
    model, runtime = tiny_llama(device), kind()
    attach("hook", model, all_sites(model), runtime)
    plans = [random_plan(model, all_sites(model), 8, seed, device=device) for seed in range(1, count + 1)]
    answers = []
    for runtime.plan in plans:
        answers.append(logits(model, prompt(device)))
    runtime.plan = None
    return model, runtime, plans, answers


def check_trace(kind: type[Runtime], device: str) -> str:
    """`with using(plan)` around a compiled call: is it traced in one graph, is every swap seen, what is recompiled?"""
    model, runtime, plans, answers = prepared(kind, device, 3)
    bare = logits(model, prompt(device))
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    run = torch.compile(functools.partial(logits, model), backend=counter, fullgraph=True)
    counts = []
    for plan, answer in ((None, bare), *zip(plans, answers, strict=True), (None, bare)):
        with runtime.using(plan) if plan else contextlib.nullcontext():
            if distance(run(prompt(device)), answer) > 1e-5:
                return "NO stale answer, silently"
        counts.append(counter.frame_count)
    return f"yes compilations after none, 3 plans, none: {counts}"


def check_argument(kind: type[Runtime], device: str) -> str:
    """The plan as an argument of the compiled function, which makes it current inside: nothing is looked up outside."""
    model, runtime, plans, answers = prepared(kind, device, 3)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")

    def step(plan: Plan, ids: Tensor) -> Tensor:
        with runtime.using(plan):
            return logits(model, ids)

    run = torch.compile(step, backend=counter, fullgraph=True)
    right = all(distance(run(plan, prompt(device)), answer) < 1e-5 for plan, answer in zip(plans, answers, strict=True))
    return verdict(right, f"{counter.frame_count} compilation(s) for 3 plans")


def mixed_up(
    runtime: Runtime, run: Callable[[Tensor], Tensor], plans: list[Plan], answers: list[Tensor], ids: Tensor
) -> int:
    """Wrong answers out of 2 x RUNS, with two threads in lockstep, each inside its own `using`."""
    barrier, wrong, errors = threading.Barrier(2), [0, 0], []

    def work(index: int) -> None:
        try:
            with torch.no_grad(), runtime.using(plans[index]):
                for _ in range(RUNS):
                    barrier.wait()
                    wrong[index] += distance(run(ids), answers[index]) > 1e-5
        except Exception as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(wrong)


def check_threads(kind: type[Runtime], device: str) -> str:
    """Two threads, two adapters, eager."""
    model, runtime, plans, answers = prepared(kind, device)
    wrong = mixed_up(runtime, functools.partial(logits, model), plans, answers, prompt(device))
    return verdict(wrong == 0, "", f"{wrong} of {2 * RUNS} answers wrong")


def check_compiled_threads(kind: type[Runtime], device: str) -> str:
    """Two threads, two adapters, one compiled function."""
    model, runtime, plans, answers = prepared(kind, device)
    torch._dynamo.reset()
    run = torch.compile(functools.partial(logits, model), backend="eager", fullgraph=True)
    wrong = mixed_up(runtime, run, plans, answers, prompt(device))
    return verdict(wrong == 0, "", f"{wrong} of {2 * RUNS} answers wrong")


def check_tasks(how: str, kind: type[Runtime], device: str) -> str:
    """Two asyncio tasks that await inside their `using`; re-entered: made current again right at the call."""
    model, runtime, plans, answers = prepared(kind, device)
    torch._dynamo.reset()
    run: Callable[[Tensor], Tensor] = functools.partial(logits, model)
    if how != "eager":
        run = torch.compile(run, backend="eager", fullgraph=True)

    async def task(index: int) -> int:
        with runtime.using(plans[index]):
            await asyncio.sleep(0.01)
            if how != "compiled, re-entered":
                return int(distance(run(prompt(device)), answers[index]) > 1e-5)
            with runtime.using(runtime.current()):
                return int(distance(run(prompt(device)), answers[index]) > 1e-5)

    async def both() -> int:
        return sum(await asyncio.gather(task(0), task(1)))

    wrong = asyncio.run(both())
    return verdict(wrong == 0, "", f"{wrong} of 2 answers wrong")


# --- gradient checkpointing ----------------------------------------------------------------------------------------


def gradients(model: Any, plan: Plan, ids: Tensor) -> list[Tensor | None]:
    """Gradients of a language-model loss for every tensor of the plan."""
    model.train()
    for tensor in plan.tensors():
        tensor.grad = None
    model(ids, labels=ids, use_cache=False).loss.backward()
    return [tensor.grad for tensor in plan.tensors()]


def compare_gradients(got: list[Tensor | None], want: list[Tensor | None]) -> str:
    """`equal`, or how many are missing or differ."""
    missing = sum(g is None for g in got)
    wrong = sum(distance(g, w) > 1e-5 for g, w in zip(got, want, strict=True) if g is not None and w is not None)
    return "equal" if not missing and not wrong else f"{missing} missing and {wrong} wrong of {len(want)}"


def enable_checkpointing(model: Any, **options: Any) -> None:
    """Transformers' switch, under the name that both of its current versions know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def capturing(runtime: Runtime, *, use_reentrant: bool) -> Callable[..., Any]:
    """A checkpoint function that runs, and runs again, under the plan that was current when the forward ran."""

    def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():  # the traced graph already holds the plan's tensors
            return checkpoint(function, *args, use_reentrant=use_reentrant, **kwargs)
        plan = runtime.current()

        def replay(*inputs: Any) -> Any:
            with runtime.using(plan):
                return function(*inputs, **kwargs)

        return checkpoint(replay, *args, use_reentrant=use_reentrant)

    return run


WAYS: dict[str, Callable[[Any, Runtime], None]] = {
    "plain, non-reentrant": lambda model, _: enable_checkpointing(model, use_reentrant=False),
    "plain, reentrant": lambda model, _: enable_checkpointing(model, use_reentrant=True),
    "context_fn, non-reentrant": lambda model, runtime: enable_checkpointing(
        model, use_reentrant=False, context_fn=runtime.capture
    ),
    "context_fn, reentrant": lambda model, runtime: enable_checkpointing(
        model, use_reentrant=True, context_fn=runtime.capture
    ),
    "own function, non-reentrant": lambda model, runtime: model._set_gradient_checkpointing(
        True, capturing(runtime, use_reentrant=False)
    ),
    "own function, reentrant": lambda model, runtime: model._set_gradient_checkpointing(
        True, capturing(runtime, use_reentrant=True)
    ),
}


def check_recompute(way: str, where: str, kind: type[Runtime], device: str) -> str:
    """Adapter gradients with backward inside the block, outside it, or after a swap to another adapter."""
    model, runtime = tiny_llama(device), kind()
    keys, ids = all_sites(model), prompt(device)
    attach("hook", model, keys, runtime)
    plan, other = (random_plan(model, keys, 8, seed, grad=True, device=device) for seed in (1, 2))
    with runtime.using(plan):
        want = gradients(model, plan, ids)
    for tensor in plan.tensors():
        tensor.grad = None
    WAYS[way](model, runtime)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with runtime.using(plan):
            loss = model.train()(ids, labels=ids, use_cache=False).loss
            if where == "inside":
                loss.backward()
        if where == "outside":
            loss.backward()
        if where == "swapped":
            with runtime.using(other):
                loss.backward()
    result = compare_gradients([tensor.grad for tensor in plan.tensors()], want)
    return verdict(result == "equal", "", result)


def check_compiled_recompute(way: str, kind: type[Runtime], device: str) -> str:
    """The same under torch.compile: forward inside the block, backward outside it."""
    model, runtime, (plan, _), _ = prepared(kind, device)
    for tensor in plan.tensors():
        tensor.requires_grad_(True)
    with runtime.using(plan):
        want = gradients(model, plan, prompt(device))
    for tensor in plan.tensors():
        tensor.grad = None
    WAYS[way](model, runtime)
    torch._dynamo.reset()
    run = torch.compile(lambda ids: model(ids, labels=ids, use_cache=False).loss, backend="aot_eager", fullgraph=True)
    with runtime.using(plan):
        loss = run(prompt(device))
    loss.backward()
    result = compare_gradients([tensor.grad for tensor in plan.tensors()], want)
    return verdict(result == "equal", "", result)
