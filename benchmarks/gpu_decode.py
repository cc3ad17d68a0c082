"""Milliseconds of one decode step on a GPU: an 8B base, 512 tokens kept of each row, adapters of rank 16 on all linear layers.

The base has the shape of Llama 3.1 8B and random weights in bfloat16. Steps run as in a server: ids go in, logits come out, the
likeliest token of each row is brought to the host and is the next one. Beside them, in the same run, what a stack of the linear
layers alone takes, with queries, keys and values as one product, the two halves of the MLP as one, adapters as two products
with a mask between, and neither attention nor norms nor a head. `--tiny` runs the same on a CPU, where there is nothing to
measure, to see that it runs.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from figures import report
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from adapterkit import Base
from adapterkit.runtime.actions import AddLowRank
from adapterkit.serving.stepping.graphed import GraphedStep
from adapterkit.serving.stepping.pool import KVPool, KVShape

LLAMA_8B = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
TINY = {**LLAMA_8B, "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
RANK, KEPT, STEPS, REPEATS = 16, 512, 128, 3
CASES = ((32, 0), (32, 1), (32, 8), (32, 32), (64, 0), (64, 64), (1, 0), (1, 1), (8, 8))
"""Rows, and how many adapters they share."""
BARS = {(32, 0): (7.0, 5.94), (32, 32): (9.0, 19.2)}
"""Milliseconds that a step may take, and what vLLM 0.22 takes."""


def llama(shape: dict[str, int], device: torch.device) -> Any:
    """The base."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            rope = {"rope_type": "default", "rope_theta": 5e5}
            return LlamaForCausalLM(LlamaConfig(**shape, max_position_embeddings=8192, rope_parameters=rope)).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def plans(base: Any, count: int) -> list[dict[str, AddLowRank]]:
    """What adapters of all linear layers but the head do."""

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=base.device, dtype=torch.bfloat16) * 0.01

    sites = [site for site in base.sites if site.kind == "linear" and not site.is_head]
    return [
        {site.name: AddLowRank(drawn(RANK, site.in_features), drawn(site.out_features, RANK)) for site in sites}
        for _ in range(count)
    ]


def milliseconds(work: Callable[[], object], device: torch.device, count: int = 30) -> float:
    """The median of what the device needs."""
    if device.type != "cuda":
        work()
        return 0.0
    work()
    times = []
    for _ in range(count):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return median(times)


def steps(step: GraphedStep, tables: list[list[int]], parts: list[Any], count: int) -> float:
    """Seconds of ``count`` steps after the tokens that are kept, each row's likeliest token being its next."""
    ids = [1] * len(parts)
    start = time.perf_counter()
    for place in range(KEPT, KEPT + count):
        ids = step(ids, [place] * len(parts), tables, parts).argmax(-1).tolist()
    return time.perf_counter() - start


def linear_alone(shape: dict[str, int], rows: int, adapters: int, device: torch.device) -> float:
    """Milliseconds of the linear layers alone, as a graph."""
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    narrow = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    sizes = [(hidden + 2 * narrow, hidden), (hidden, hidden), (2 * inner, hidden), (hidden, inner)]

    def drawn(*of: int) -> torch.Tensor:
        return torch.randn(of, device=device, dtype=torch.bfloat16) * 0.02

    layers = [[drawn(*size) for size in sizes] for _ in range(shape["num_hidden_layers"])]
    rank = adapters * RANK
    factors = [[(drawn(rank, size[1]), drawn(size[0], rank)) for size in sizes] for _ in layers] if rank else []
    own = torch.arange(rows, device=device)[:, None] % max(adapters, 1)
    mask = (own == torch.arange(rank, device=device) // RANK).to(torch.bfloat16)
    given = drawn(rows, hidden)

    def forward() -> torch.Tensor:
        x = given
        for number, weights in enumerate(layers):

            def linear(place: int, one: torch.Tensor, number: int = number) -> torch.Tensor:
                y = one @ layers[number][place].T
                if rank:
                    down, up = factors[number][place]
                    y = torch.addmm(y, (one @ down.T) * mask, up.T)
                return y

            x = x + linear(1, linear(0, x)[:, :hidden].contiguous())
            halves = linear(2, x)
            x = (x + linear(3, functional.silu(halves[:, :inner]) * halves[:, inner:])) * 0.5
            del weights
        return x

    if device.type != "cuda":
        return milliseconds(forward, device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        forward()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        forward()
    return milliseconds(graph.replay, device)


@torch.no_grad()
def main() -> None:
    """A line for each case, the figures last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a small base on the CPU")
    parser.add_argument("--steps", type=int, default=STEPS)
    chosen = parser.parse_args()
    device, shape = (torch.device("cpu"), TINY) if chosen.tiny else (torch.device("cuda"), LLAMA_8B)
    cases = [case for case in CASES if case[0] <= (8 if chosen.tiny else 64)]
    most_rows = max(rows for rows, _ in cases)
    alone = {case: linear_alone(shape, *case, device) for case in cases}
    base = Base(llama(shape, device))
    size = shape["hidden_size"] // shape["num_attention_heads"]
    heads = (shape["num_key_value_heads"], size, size)
    need = -(-(KEPT + chosen.steps) // KVPool.page_size)
    pool = KVPool(KVShape((heads,) * shape["num_hidden_layers"], torch.bfloat16), 1 + most_rows * need, device)
    for whole in (*pool.keys, *pool.values):
        whole.normal_()
    tables = [list(range(1 + row * need, 1 + (row + 1) * need)) for row in range(most_rows)]
    begun = time.perf_counter()
    step = GraphedStep(base, pool, max_rows=most_rows, max_rank=most_rows * RANK)
    print(f"made and tried in {time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
    adapters = plans(base, max(count for _, count in cases))
    found: dict[tuple[int, int], tuple[float, float]] = {}
    for rows, count in cases:
        parts = [[(adapters[row % count], 1.0)] if count else [] for row in range(rows)]
        steps(step, tables[:rows], parts, 2)
        wall = median(steps(step, tables[:rows], parts, chosen.steps) for _ in range(REPEATS)) / chosen.steps * 1e3
        replay = [one.graph.replay for one in list(step._graphs.values())[-1:]]  # noqa: SLF001 - the last one captured
        on_gpu = milliseconds(replay[0], device) if replay else 0.0
        found[rows, count] = wall, on_gpu
        line = {"rows": rows, "adapters": count, "step": wall, "graph": on_gpu, "linear_alone": alone[rows, count]}
        print(json.dumps(line), file=sys.stderr, flush=True)
    for case, (bar, peer) in BARS.items():
        if case in found:
            wall, on_gpu = found[case]
            report(
                f"Decode step of an 8B base, {case[0]} rows of {KEPT} tokens, {case[1]} adapters of rank {RANK}",
                f"{wall:.2f} ms ({on_gpu:.2f} on the GPU)",
                f"{peer:.2f} ms (vLLM 0.22); {alone[case]:.2f} ms (the linear layers alone)",
                f"{wall / peer:.2f}×",
                f"at most {bar:.0f} ms",
                met=wall <= bar,
            )


if __name__ == "__main__":
    main()
