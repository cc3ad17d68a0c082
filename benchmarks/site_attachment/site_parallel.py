"""Sites under DDP and FSDP2: two processes over gloo on the CPU, or one over NCCL on one GPU."""

# ruff: noqa: BLE001, D102  failures are findings, the numbers tolerances

from __future__ import annotations

import functools
import itertools
import os
import tempfile
import warnings
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from site_candidates import (
    CANDIDATES,
    Plan,
    Runtime,
    Undo,
    all_sites,
    attach,
    distance,
    logits,
    random_plan,
    tiny_llama,
    verdict,
)
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

CASES = ("DDP", "FSDP2 before", "FSDP2 after", "FSDP2 of a site, before", "FSDP2 of a site, after")


class Adapted(nn.Module):
    """Owns the trainable tensors only; the base hangs outside the module tree, so its keys and DDP never meet."""

    def __init__(self, model: Any, plan: Plan, runtime: Runtime) -> None:
        super().__init__()
        self.tensors = nn.ParameterList()
        for action in plan.actions.values():
            for name in ("down", "up"):
                parameter = nn.Parameter(getattr(action, name))
                setattr(action, name, parameter)
                self.tensors.append(parameter)
        self._base, self._plan, self._runtime = [model], plan, runtime

    def forward(self, ids: Tensor) -> Tensor:
        with self._runtime.using(self._plan):
            return logits(self._base[0], ids).float().square().mean()


def build(kind: str, case: str, device: str) -> tuple[Adapted, Any, Undo]:
    """The adapted base, sharded before or after its sites were attached."""
    model, runtime = tiny_llama(device), Runtime()
    keys = all_sites(model)
    plan = random_plan(model, keys, 8, 1, device=device)
    shard = [model.lm_head] if "of a site" in case else [] if case == "DDP" else [*model.model.layers]
    mesh = init_device_mesh(device, (dist.get_world_size(),))

    def split() -> None:
        for name, module in list(model.named_modules()):
            if module in shard:
                fully_shard(model.get_submodule(name), mesh=mesh)
        if shard:
            fully_shard(model, mesh=mesh)

    if "before" in case:
        split()
    detach = attach(kind, model, keys, runtime)
    if "after" in case:
        shard = [model.lm_head] if "of a site" in case else shard
        split()
    return Adapted(model, plan, runtime), model, detach


def measure(case: str, kind: str, device: str) -> dict[str, Any]:
    """This process's half of the batch, and the gradients meaned over all processes."""
    rank, world = dist.get_rank(), dist.get_world_size()
    adapted, model, detach = build(kind, case, device)
    module = DistributedDataParallel(adapted) if case == "DDP" else adapted
    ids = batch(device)
    module(ids[rank : rank + 1] if world > 1 else ids).backward()
    grads = [tensor.grad for tensor in adapted.tensors]
    for grad in grads:
        if grad is None:
            raise RuntimeError("an adapter tensor got no gradient")
        if case != "DDP":
            dist.all_reduce(grad)
            grad.div_(world)
    sharded = sum(isinstance(parameter, DTensor) for parameter in model.parameters())
    detach()
    kept = "of a site" not in case or isinstance(model.lm_head, FSDPModule)
    return {"grads": [grad.cpu() for grad in grads], "sharded": sharded, "kept": kept}


def work(rank: int, world: int, device: str, folder: str) -> None:
    """One process: every case for every candidate; rank 0 writes what it found after each."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    backend = "nccl" if device == "cuda" else "gloo"
    if device == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for case, kind in itertools.product(CASES, CANDIDATES):
        try:
            found[case, kind] = measure(case, kind, device)
        except Exception as error:
            found[case, kind] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"}
        torch.save(found, f"{folder}/found{rank}")
    dist.destroy_process_group()


@functools.cache
def results(device: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What rank 0 found, of two processes on the CPU or one on the GPU; a case that hangs ends the run."""
    world = 1 if device == "cuda" else 2
    context = mp.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=work, args=(rank, world, device, folder)) for rank in range(world)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(180)
            process.kill()
        found: dict[tuple[str, str], dict[str, Any]] = torch.load(f"{folder}/found0")
    return found


def batch(device: str) -> Tensor:
    return torch.randint(1, 128, (2, 12), generator=torch.Generator().manual_seed(1)).to(device)


def check(case: str, kind: str, device: str) -> str:
    """Adapter gradients equal those of one process over the whole batch."""
    model, runtime = tiny_llama(device), Runtime()
    plan = random_plan(model, all_sites(model), 8, 1, device=device)
    attach("hook", model, all_sites(model), runtime)
    adapted = Adapted(model, plan, runtime)
    adapted(batch(device)).backward()
    result = results(device).get((case, kind), {"error": "hangs"})
    if "error" in result:
        return f"NO {result['error']}"
    error = max(distance(got, want.grad.cpu()) for got, want in zip(result["grads"], adapted.tensors, strict=True))
    right = error < 1e-4 and (case == "DDP" or result["sharded"] > 0)
    return verdict(
        right and result["kept"], "", f"error {error:.0e}" if not right else "acts, but detaching strips FSDP's class"
    )
