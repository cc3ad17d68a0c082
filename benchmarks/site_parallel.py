"""Sites under DDP and FSDP2: two processes over gloo on the CPU, or one over NCCL on one GPU."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from site_candidates import Plan, Runtime, all_sites, attach, distance, logits, random_plan, tiny_llama, verdict
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
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


def build(kind: str, case: str, device: str) -> tuple[Adapted, Any]:
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
    attach(kind, model, keys, runtime)
    if "after" in case:
        shard = [model.lm_head] if "of a site" in case else shard
        split()
    return Adapted(model, plan, runtime), model


def work(rank: int, world: int, device: str, case: str, kind: str, rendezvous: str, results: Any) -> None:
    """One process: its half of the batch; rank 0 reports the mean gradients and whether the base was sharded."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    try:
        adapted, model = build(kind, case, device)
        module = DistributedDataParallel(adapted) if case == "DDP" else adapted
        ids = batch(device)
        module(ids[rank : rank + 1] if world > 1 else ids).backward()
        for tensor in adapted.tensors:
            if tensor.grad is None:
                raise RuntimeError("an adapter tensor got no gradient")  # noqa: TRY301
            if case != "DDP":
                dist.all_reduce(tensor.grad)
                tensor.grad /= world
        sharded = sum(type(p).__name__ == "DTensor" or hasattr(p, "placements") for p in model.parameters())
        if rank == 0:
            results.put(("grads", [tensor.grad.cpu().numpy() for tensor in adapted.tensors], sharded))
    except Exception as error:  # noqa: BLE001  what fails is the finding
        if rank == 0:
            results.put(("error", f"{type(error).__name__}: {str(error).splitlines()[0][:60]}", 0))
    finally:
        dist.destroy_process_group()


def batch(device: str) -> Tensor:
    return torch.randint(1, 128, (2, 12), generator=torch.Generator().manual_seed(1)).to(device)


def check(case: str, kind: str, device: str) -> str:
    """Adapter gradients equal those of one process over the whole batch."""
    model, runtime = tiny_llama(device), Runtime()
    plan = random_plan(model, all_sites(model), 8, 1, device=device)
    attach("hook", model, all_sites(model), runtime)
    adapted = Adapted(model, plan, runtime)
    adapted(batch(device)).backward()
    world = 1 if device == "cuda" else 2
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (world, device, case, kind, f"{folder}/rendezvous", results)
        processes = [context.Process(target=work, args=(rank, *arguments)) for rank in range(world)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            if process.is_alive():
                process.kill()
                return "NO hangs"
    if results.empty():
        return "NO process died"
    outcome, value, sharded = results.get()
    if outcome == "error":
        return f"NO {value}"
    error = max(distance(torch.from_numpy(got), want.grad.cpu()) for got, want in zip(value, adapted.tensors, strict=True))
    return verdict(error < 1e-4 and (case == "DDP" or sharded > 0), "" if case == "DDP" else f"{sharded} sharded", f"error {error:.0e}, {sharded} sharded")  # noqa: PLR2004
