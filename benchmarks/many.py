"""Four small jobs in one pass beside the same four in sequence: the time of their steps, in interleaved rounds.

Each job is a LoRA of rank 8 on all linear layers, with rows of its own; QLoRA's base has its weights unpacked once for all. What
is gained is what a pass costs whatever its size, so it is most where a pass is small beside that: a GPU with a small batch, a CPU
with very few tokens. Where arithmetic fills the machine there is nothing to gain, and it is compared with what the bare base
gains, with nothing that trains. On the CPU the base is that of the examples; where there is a GPU, it is one of Llama 3.2 1B's
shape with random weights in bfloat16.
"""

import csv
import random
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from figures import report, seconds
from gpu_distributed import LLAMA_1B
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from adapterkit import Base, Job, Registry, hookimpl

EXAMPLES = Path(__file__).parent.parent / "examples"
BASE = EXAMPLES / "base"
JOBS, ROUNDS, STEPS, BAR = 4, 3, 30, 2.0
SHAPES = (("lora", 1, 14), ("qlora", 1, 14), ("lora", 1, 36), ("lora", 4, 36))
"""A method, the rows of a job in a step, and about how many tokens each has."""


class Clock:
    """Adds up the time from a run's first record to its last; the steps of several jobs at once go by on one clock."""

    def __init__(self) -> None:
        self.times: list[float] = []

    @hookimpl
    def adapterkit_train_logged(self, record: dict[str, Any]) -> None:
        """Once the loss of a step is known: the device has done it."""
        if "loss" in record:
            self.times.append(time.perf_counter())

    def took(self) -> float:
        """Seconds since the first steps, and forget."""
        first, last = self.times[0], self.times[-1]
        self.times = []
        return last - first


def base_here(registry: Registry) -> tuple[Base, str]:
    """The base that is measured, and what it is called."""
    if not torch.cuda.is_available():
        return Base(BASE, registry=registry), "the base of the examples"
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA_1B)).eval()
    torch.set_default_dtype(torch.float32)
    return Base(model, tokenizer=AutoTokenizer.from_pretrained(BASE), registry=registry), torch.cuda.get_device_name()


def rows_of(tokens: int) -> list[dict[str, str]]:
    """Short ones, or those of Banking77."""
    if tokens < 36:
        return [{"text": f"card {number}", "category": "ab"[number % 2]} for number in range(JOBS * STEPS)]
    with (EXAMPLES / "data" / "banking77" / "train.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    random.Random(0).shuffle(rows)
    return rows


def jobs_of(method: str, batch: int, tokens: int) -> list[Job]:
    """Four jobs with rows of their own."""
    rows = rows_of(tokens)
    options = {"gradient_checkpointing": False} if method == "qlora" else {}
    return [
        Job(
            rows[number::JOBS][: batch * STEPS],
            columns={"prompt": "text", "completion": "category"},
            rank=8,
            learning_rate=1e-4,
            batch_size=batch,
            max_steps=STEPS,
            logging_steps=1,
            seed=number,
            method=method,
            **options,
        )
        for number in range(JOBS)
    ]


def measured(base: Base, clock: Clock, jobs: list[Job]) -> tuple[float, float]:
    """Seconds that the steps of four jobs take, together and in sequence."""

    def forget(adapters: Any) -> None:
        for adapter in adapters:
            base.unload(adapter)

    forget(base.train_many(jobs))
    together = clock.took()
    in_sequence = 0.0
    for job in jobs:
        forget([base.train(job.data, method=job.method, **job.options)])
        in_sequence += clock.took()
    return together, in_sequence


def bare(base: Base, rows: int, tokens: int) -> float:
    """How many times as long as one pass of the bare base with the tokens of all jobs four passes with those of one take."""
    size, trunk = base.model.get_input_embeddings().embedding_dim, base.model.model

    def took(sequences: int) -> float:
        states = torch.randn(sequences, tokens, size, device=base.device, dtype=base.model.dtype)

        def one() -> None:
            trunk(inputs_embeds=states.clone().requires_grad_(), use_cache=False).last_hidden_state.sum().backward()
            if base.device.type == "cuda":
                torch.cuda.synchronize()

        return seconds(one)

    took(rows)
    return median(JOBS * took(rows) / took(JOBS * rows) for _ in range(20))


def main() -> None:
    """Interleaved, so that a slow moment of the machine falls on both."""
    clock, registry = Clock(), Registry()
    registry.add(clock)
    base, where = base_here(registry)
    for method, batch, tokens in SHAPES:
        jobs = jobs_of(method, batch, tokens)
        rounds = [measured(base, clock, jobs) for _ in range(ROUNDS + 1)][1:]
        ratio, gained = median(sequence / together for together, sequence in rounds), bare(base, batch, tokens)
        bar = BAR if tokens < 36 or base.device.type == "cuda" else 0.9 * gained
        report(
            f"{JOBS} jobs of {method}, each {batch} row{'s' * (batch > 1)} of {tokens} tokens a step, on {where}",
            f"{1e3 * median(together for together, _ in rounds) / (STEPS - 1):.1f} ms for all",
            f"{1e3 * median(sequence for _, sequence in rounds) / (STEPS - 1):.1f} ms in sequence",
            f"{ratio:.2f}×",
            f"{bar:.2f}× (the bare base: {gained:.2f}×)",
            met=ratio >= bar,
        )


if __name__ == "__main__":
    main()
