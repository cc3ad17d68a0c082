"""What attaching must do, and must leave alone: one function per row of the table, called with a candidate's name.

Each returns a cell that begins with `yes`, `NO` or `not run`; an exception is a NO too.
"""

# ruff: noqa: BLE001, SLF001  failures are findings, some packages optional, the numbers tolerances

from __future__ import annotations

import copy
import io
import pathlib
import tempfile
from typing import TYPE_CHECKING, Any

import torch
from site_candidates import (
    Runtime,
    all_sites,
    attach,
    distance,
    logits,
    prompt,
    random_plan,
    tiny_gpt2,
    tiny_llama,
    verdict,
)
from site_lookups import compare_gradients, enable_checkpointing, gradients
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable


def check_merged(kind: str, device: str) -> str:
    """The output equals that of a model whose weights were changed by hand, in float64."""
    errors = []
    for build in (tiny_llama, tiny_gpt2):
        model, by_hand = (build(device, dtype=torch.float64) for _ in range(2))
        runtime, keys = Runtime(), all_sites(model)
        runtime.plan = random_plan(model, keys, 8, seed=2, device=device)
        for key, action in runtime.plan.actions.items():
            delta = (action.up.double() @ action.down.double()) * action.scale
            module = by_hand.get_submodule(key)
            module.weight.add_(delta if isinstance(module, nn.Linear) else delta.T)
        attach(kind, model, keys, runtime)
        for action in runtime.plan.actions.values():
            action.down, action.up = action.down.double(), action.up.double()
        errors.append(distance(logits(model, prompt(device)), logits(by_hand, prompt(device))))
    return verdict(max(errors) < 1e-12, f"error {max(errors):.0e}")


def fingerprint(model: nn.Module) -> dict[str, bytes]:
    return {key: value.cpu().numpy().tobytes() for key, value in model.state_dict().items()}


def traces(model: nn.Module) -> list[tuple[str, type, list[str], int]]:
    """All that attaching could leave behind in a module."""
    return [(n, type(m), sorted(m.__dict__), len(m._forward_hooks)) for n, m in model.named_modules()]


def check_keys(kind: str, device: str) -> str:
    """State-dict keys and bits while attached, and every trace after detaching."""
    model, runtime = tiny_llama(device), Runtime()
    before, clean = fingerprint(model), traces(model)
    plan = random_plan(model, all_sites(model), 8, 2, device=device)
    detach = attach(kind, model, all_sites(model), runtime)
    runtime.plan = plan
    logits(model, prompt(device))
    during = fingerprint(model)
    detach()
    moved = len(before.keys() - during.keys())
    left = fingerprint(model) == before and traces(model) == clean
    return verdict(during == before and left, "", f"{moved} of {len(before)} keys renamed") + (
        "" if left else ", leaves a trace"
    )


def check_saved(kind: str, device: str) -> str:
    """`save_pretrained` writes the same file, byte for byte."""
    model, runtime = tiny_llama(device), Runtime()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(f"{folder}/bare")
        attach(kind, model, all_sites(model), runtime)
        model.save_pretrained(f"{folder}/attached")
        bare, attached = (pathlib.Path(folder, name, "model.safetensors").read_bytes() for name in ("bare", "attached"))
    return verdict(bare == attached, "", "another file: its keys are the wrapper's")


def check_copied(kind: str, device: str) -> str:
    """A deep copy acts, and with its own weights; `torch.save` of the whole model works."""
    model, runtime = tiny_llama(device), Runtime()
    plan = random_plan(model, all_sites(model), 8, 2, device=device)
    attach(kind, model, all_sites(model), runtime)
    runtime.plan = plan
    twin, ids = copy.deepcopy(model), prompt(device)
    same = torch.equal(logits(twin, ids), logits(model, ids))
    for tensor in twin.parameters():
        tensor.mul_(1.1)
    own = not torch.equal(logits(twin, ids), logits(model, ids))
    runtime.plan = None
    try:
        torch.save(model, io.BytesIO())
        pickled = "pickles"
    except Exception as error:
        pickled = f"but torch.save: {type(error).__name__}"
    return verdict(same and own, pickled, f"same={same} own weights={own}")


def check_types(kind: str, device: str) -> str:
    """`type(module) is nn.Linear` and `module.weight` still hold, for code that looks."""
    model = tiny_llama(device)
    keys = all_sites(model)
    attach(kind, model, keys, Runtime())
    exact = sum(type(model.get_submodule(key)) in (nn.Linear, nn.Embedding) for key in keys)
    weight = sum(hasattr(model.get_submodule(key), "weight") for key in keys)
    return verdict(exact == weight == len(keys), "", f"type kept {exact}/{len(keys)}, .weight {weight}/{len(keys)}")


def check_direct(kind: str, device: str) -> str:
    """`module.forward(x)` instead of `module(x)`."""
    model, runtime = tiny_llama(device), Runtime()
    plan = random_plan(model, ["lm_head"], 8, 2, device=device)
    attach(kind, model, ["lm_head"], runtime)
    runtime.plan = plan
    x = torch.randn(2, 64, device=device)
    return verdict(torch.equal(model.lm_head.forward(x), model.lm_head(x)), "", "the adapter is skipped, silently")


def check_generate(kind: str, device: str) -> str:
    """Greedy tokens with a KV cache equal those of recomputing every step without one."""
    model, runtime = tiny_llama(device), Runtime()
    plan = random_plan(model, all_sites(model), 8, 2, device=device)
    ids, tokens = prompt(device), {}
    bare = model.generate(ids, max_new_tokens=16, do_sample=False, attention_mask=torch.ones_like(ids))
    attach(kind, model, all_sites(model), runtime)
    runtime.plan = plan
    for cache in (True, False):
        tokens[cache] = model.generate(
            ids, max_new_tokens=16, do_sample=False, use_cache=cache, attention_mask=torch.ones_like(ids)
        )
    return verdict(torch.equal(tokens[True], tokens[False]) and not torch.equal(tokens[True], bare))


def check_checkpoint(kind: str, device: str) -> str:
    """Adapter gradients with transformers' gradient checkpointing equal those without."""
    model, runtime = tiny_llama(device), Runtime()
    keys = all_sites(model)
    runtime.plan = random_plan(model, keys, 8, 1, grad=True, device=device)
    attach(kind, model, keys, runtime)
    cells = []
    want = gradients(model, runtime.plan, prompt(device))
    for reentrant in (False, True):
        enable_checkpointing(model, use_reentrant=reentrant)
        got = gradients(model, runtime.plan, prompt(device))
        cells.append(compare_gradients(got, want))
    return verdict(all(cell == "equal" for cell in cells), "", f"non-reentrant {cells[0]}, reentrant {cells[1]}")


def check_4bit(kind: str, device: str) -> str:
    """A bitsandbytes NF4 layer: forward, gradient of the adapter, quantised bits kept."""
    import bitsandbytes

    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear4bit(64, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    model = nn.Sequential(layer, nn.Linear(64, 4)).to(device).requires_grad_(False)
    x, runtime = torch.randn(2, 64, device=device), Runtime()
    plan = random_plan(model, ["0"], 8, 1, grad=True, device=device)
    base, bits = model[0](x), fingerprint(model)
    attach(kind, model, ["0"], runtime)
    runtime.plan = plan
    output = model[0](x)
    output.square().sum().backward()
    want = base + (x @ plan.actions["0"].down.T) @ plan.actions["0"].up.T * 0.5
    grads = all(tensor.grad is not None and bool(tensor.grad.any()) for tensor in plan.tensors())
    kept = fingerprint(model) == bits
    return verdict(
        distance(output.detach(), want.detach()) < 1e-6 and grads and kept,
        "",
        f"gradients={grads} keys and bits={kept}",
    )


def check_dispatch(kind: str, device: str) -> str:
    """Accelerate's CPU offload before and after the sites, and taking both off in the other order."""
    from accelerate import cpu_offload
    from accelerate.hooks import remove_hook_from_submodules

    want_model, want_runtime = tiny_llama(device), Runtime()
    keys, ids = all_sites(want_model), prompt(device)
    plan = random_plan(want_model, keys, 8, 1, device=device)
    bare = logits(want_model, ids)
    attach("wrapper", want_model, keys, want_runtime)
    want_runtime.plan = plan
    want, cells = logits(want_model, ids), []
    for order in ("sites first", "offload first"):
        model, runtime = tiny_llama(), Runtime()
        steps: list[Callable[[], Any]] = [
            lambda m=model, r=runtime: attach(kind, m, keys, r),  # type: ignore[misc]
            lambda m=model: cpu_offload(m, execution_device=torch.device(device)),  # type: ignore[misc]
        ]
        undo = [step() for step in (steps if order == "sites first" else steps[::-1])]
        runtime.plan = plan
        got = logits(model, ids).to(device)
        acts = (
            "acts"
            if distance(got, want) < 1e-5
            else "adapter lost, silently"
            if distance(got, bare) < 1e-5
            else "wrong"
        )
        try:
            if order == "sites first":
                undo[0]()
                remove_hook_from_submodules(model)
            else:
                remove_hook_from_submodules(model)
                undo[1]()
            model.to(device)
            clean = "" if distance(logits(model, ids), bare) < 1e-5 else ", removal leaves the adapter on"
        except Exception as error:
            clean = f", removal raises {type(error).__name__}"
        cells.append(f"{order}: {acts}{clean}")
    return verdict(all(cell.endswith(": acts") for cell in cells), "", "; ".join(cells))
