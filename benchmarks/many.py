"""Four small jobs in one pass beside the same four in sequence: the time of their steps, in interleaved rounds.

Each job is a LoRA of rank 8 on all linear layers with rows of Banking77 of its own. What is gained is what a pass costs whatever
its size; so it is most where that is most of a small pass. On the CPU the base is that of the examples, where a row of 36 tokens
is half arithmetic already, for one core: ``floor`` is the same for the bare base, with nothing that trains. Where there is a GPU,
it is one of Llama 3.2 1B's shape with random weights in bfloat16.
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
JOBS, ROUNDS, STEPS, BAR = 4, 5, 30, 2.0


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


def jobs_of(batch: int) -> list[Job]:
    """Four jobs with rows of their own."""
    with (EXAMPLES / "data" / "banking77" / "train.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    random.Random(0).shuffle(rows)
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
        )
        for number in range(JOBS)
    ]


def measured(base: Base, clock: Clock, batch: int) -> tuple[float, float]:
    """Seconds that the steps of four jobs take, together and in sequence."""
    jobs = jobs_of(batch)

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


def bare(base: Base) -> float:
    """How many times as long as one pass with the tokens of four jobs four passes with those of one take, for the bare base."""
    embed = base.model.get_input_embeddings()

    def passes(count: int, sequences: int) -> float:
        states = torch.randn(sequences, 36, embed.embedding_dim, device=base.device, dtype=base.model.dtype)

        def one() -> None:
            given = states.clone().requires_grad_()
            base.model.model(inputs_embeds=given, use_cache=False).last_hidden_state.sum().backward()
            if base.device.type == "cuda":
                torch.cuda.synchronize()

        return count * seconds(one)

    passes(1, 1)
    return median(passes(JOBS, 1) / passes(1, JOBS) for _ in range(4 * ROUNDS))


def main() -> None:
    """Interleaved, so that a slow moment of the machine falls on both."""
    clock, registry = Clock(), Registry()
    registry.add(clock)
    base, where = base_here(registry)
    for batch in (1, 4):
        rounds = [measured(base, clock, batch) for _ in range(ROUNDS + 1)][1:]
        ratio = median(sequence / together for together, sequence in rounds)
        report(
            f"{JOBS} LoRA jobs of {batch} row{'s' * (batch > 1)} of 36 tokens a step on {where}",
            f"{1e3 * median(together for together, _ in rounds) / (STEPS - 1):.1f} ms a step of all",
            f"{1e3 * median(sequence for _, sequence in rounds) / (STEPS - 1):.1f} ms in sequence",
            f"{ratio:.2f}×",
            f"{BAR}×" if batch == 1 else "1×",
            met=ratio >= (BAR if batch == 1 else 1.0),
        )
    floor = bare(base)
    report("  the bare base, one row of 36 tokens each", "", "", f"{floor:.2f}×", "", met=True)


if __name__ == "__main__":
    main()
