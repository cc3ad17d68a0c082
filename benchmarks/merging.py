"""Four adapters merged to one of the same rank by SVD: time, memory and error, beside PEFT's ``svd``, on one thread.

Each side is a process of its own, with the same factors: rank 16 on a layer of 4096 × 4096. PEFT's merge needs the model in
memory; ours has none. PEFT runs with ``svd_full_matrices=False``, which is its faster setting.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from figures import human, report

SIZE, RANK, COUNT, WEIGHTS = 4096, 16, 4, (0.4, 0.3, 0.2, 0.1)
NAME = "model.layers.0.self_attn.q_proj"
FASTER, MEMORY = 500, 0.1
ENOUGH = 1.0
"""A side's merge is repeated until it took so many seconds in all; the median counts."""


def factors(number: int, size: int = SIZE) -> tuple[object, object]:
    """``down`` and ``up`` of one adapter, the same in both processes."""
    import torch

    stream = torch.Generator().manual_seed(number)
    down, up = torch.randn(RANK, size, generator=stream), torch.randn(size, RANK, generator=stream)
    return down / size**0.5, up / size**0.5


def ours(size: int) -> tuple[object, object]:
    """The merge as a call, and what gives its delta."""
    from adapterkit import Adapter, LowRank, merge
    from adapterkit.registry import default_registry
    from adapterkit.resident import effects_of

    registry = default_registry()
    method = registry.method("lora")
    adapters = []
    for number in range(COUNT):
        config, tensors = method.express({NAME: (LowRank(*factors(number, size), 1.0),)})
        adapters.append(Adapter("lora", config, tensors))

    def work() -> object:
        return merge(adapters, list(WEIGHTS), strategy="svd", rank=RANK)

    def delta(merged: object) -> object:
        return effects_of(registry, merged)[NAME][0].delta()

    return work, delta


def peers(size: int) -> tuple[object, object]:
    """The same with PEFT."""
    import peft
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = None
            self.q_proj = nn.Linear(size, size, bias=False)

        def forward(self, x: object) -> object:
            return self.q_proj(x)

    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["q_proj"])
    model = peft.get_peft_model(Model(), config, "a0")
    for number in range(1, COUNT):
        model.add_adapter(f"a{number}", config)
    layer = model.base_model.model.q_proj
    with torch.no_grad():
        for number in range(COUNT):
            down, up = factors(number, size)
            layer.lora_A[f"a{number}"].weight.copy_(down)
            layer.lora_B[f"a{number}"].weight.copy_(up)
    names = [f"a{number}" for number in range(COUNT)]

    def work() -> object:
        model.add_weighted_adapter(
            names, list(WEIGHTS), "merged", combination_type="svd", svd_rank=RANK, svd_full_matrices=False
        )
        return layer

    def delta(merged: object) -> object:
        return merged.get_delta_weight("merged")

    return work, delta


def child(which: str) -> None:
    """Print seconds, growth of the peak in bytes, and the relative error of the merged delta."""
    import torch

    torch.set_num_threads(1)
    side = {"ours": ours, "peers": peers}[which]
    side(64)[0]()  # what is loaded on first use is no part of either
    work, delta = side(SIZE)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    merged = work()
    times = [time.perf_counter() - start]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    while sum(times) < ENOUGH:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    exact = sum(weight * (up @ down) for weight, (down, up) in zip(WEIGHTS, map(factors, range(COUNT)), strict=True))
    error = float((delta(merged).detach() - exact).norm() / exact.norm())
    print(json.dumps([statistics.median(times), grown, error]))


def main() -> None:
    """Two figures: time and memory, at the same error."""

    def measured(which: str) -> list[float]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, str(Path(__file__)), which], check=True, stdout=subprocess.PIPE, text=True, env=environment
        )
        found: list[float] = json.loads(done.stdout.splitlines()[-1])
        return found

    mine, theirs = measured("ours"), measured("peers")
    what = f"SVD merge of {COUNT} adapters of rank {RANK}, one layer of {SIZE} × {SIZE}"
    same = abs(mine[2] - theirs[2]) < 1e-4
    report(
        f"{what}: time (error {mine[2]:.4f} and {theirs[2]:.4f})",
        human(mine[0]),
        f"{human(theirs[0])}: PEFT add_weighted_adapter",
        f"{theirs[0] / mine[0]:,.0f} ×",
        f"at least {FASTER} ×",
        met=same and theirs[0] >= FASTER * mine[0],
    )
    report(
        f"{what}: memory",
        f"{mine[1] / 2**20:.1f} MiB",
        f"{theirs[1] / 2**20:.0f} MiB",
        f"{mine[1] / theirs[1]:.3f}",
        f"at most {MEMORY}",
        met=mine[1] <= MEMORY * theirs[1],
    )


if __name__ == "__main__":
    child(sys.argv[1]) if len(sys.argv) > 1 else main()
