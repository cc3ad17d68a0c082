"""A whole engine on a GPU: an 8B base of random weights in bfloat16, adapters of rank 16 on all linear layers, greedy answers.

Steps: a batch of prompts of 512 tokens, each answered with 128; from one step to the next, with all that the engine does between.
Traffic: clients that ask again when they are answered, 512 tokens in and 64 out, for one adapter, and for 100 by Zipf's law.
Peer: the same questions to PEFT, which takes the adapter that was asked for first, and answers all that wait for it in one
batch; for so many seconds, with none but the adapters loaded that may be asked for meanwhile.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
from figures import report
from gpu_decode import BARS, LLAMA_8B, llama
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from transformers import AutoTokenizer

from adapterkit import Adapter, Base
from adapterkit.serving import Engine, Watcher
from adapterkit.serving.answering import Answer

RANK, PROMPT, NEW, ROUNDS = 16, 512, 128, 2
CASES = ((32, 0), (32, 1), (32, 8), (32, 32), (64, 0), (64, 64))
ADAPTERS, CLIENTS, REQUESTS, SHORT, PATIENCE = 100, 32, 256, 64, 45.0
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Watching(Watcher):
    """Times of steps in which every row got one token; and a place for each client."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, float]] = []
        self.places = threading.Semaphore(CLIENTS)

    def stepped(self, rows: int, tokens: int, seconds: float, names: Any) -> None:  # noqa: ARG002 - the protocol's
        """One step is done."""
        if rows == tokens:
            self.steps.append((rows, seconds))

    def finished(self, answer: Answer) -> None:  # noqa: ARG002 - the protocol's
        """One client is free."""
        self.places.release()


def adapters_of(base: Base, count: int) -> dict[str, Adapter]:
    """So many, each with other numbers."""
    first = base.train([{"prompt": "a", "completion": "b"}], method="lora", rank=RANK, max_steps=1)
    base.unload(first)
    made = {}
    for number in range(count):
        chance = torch.Generator(base.device).manual_seed(number)
        tensors = {
            name: (torch.randn(one.shape, generator=chance, device=base.device) * 0.01).to(one.dtype).cpu()
            for name, one in first.tensors.items()
        }
        made[str(number)] = Adapter(first.method, first.config, tensors, first.manifest)
    return made


def step(engine: Engine, watching: Watching, rows: int, distinct: int) -> tuple[float, float]:
    """Milliseconds of a step, and tokens of answers per second."""
    watching.steps.clear()
    begun = time.perf_counter()
    answers = [
        engine.submit(
            [row + 5, *range(10, PROMPT + 9)], model=str(row % distinct) if distinct else "", max_new_tokens=NEW
        )
        for row in range(rows)
    ]
    for answer in answers:
        answer.result()
    took = time.perf_counter() - begun
    return median(one for many, one in watching.steps if many == rows) * 1e3, rows * NEW / took


def traffic(engine: Engine, watching: Watching, names: Sequence[str]) -> float:
    """Requests per second."""
    begun, answers = time.perf_counter(), []
    for number, name in enumerate(names):
        watching.places.acquire()
        answers.append(engine.submit([number + 5, *range(10, PROMPT + 9)], model=name, max_new_tokens=SHORT))
    for answer in answers:
        answer.result()
    return len(names) / (time.perf_counter() - begun)


def switched(adapters: Mapping[str, Adapter], model: Any, names: Sequence[str]) -> float:
    """Requests per second of PEFT."""
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    loading = {"low_cpu_mem_usage": True}
    wrapped = get_peft_model(model, config, adapter_name="0", autocast_adapter_dtype=False)
    for name in dict.fromkeys(["0", *names]):
        if name != "0":
            wrapped.add_adapter(name, config, autocast_adapter_dtype=False, **loading)
        tensors = {f"base_model.model.{key}": one.to(model.device) for key, one in adapters[name].tensors.items()}
        if set_peft_model_state_dict(wrapped, tensors, adapter_name=name, **loading).unexpected_keys:
            raise RuntimeError("PEFT does not know these weights")
    model.generation_config.pad_token_id = 0
    wrapped.eval()
    rest = list(enumerate(names))
    waiting, answered, begun = [rest.pop(0) for _ in range(CLIENTS)], 0, 0.0
    while len(rest) >= CLIENTS and (not begun or time.perf_counter() - begun < PATIENCE):
        name = waiting[0][1]
        group = [number for number, asked in waiting if asked == name]
        wrapped.set_adapter(name, inference_mode=True)
        ids = torch.tensor([[number + 5, *range(10, PROMPT + 9)] for number in group], device=model.device)
        limits = {"max_new_tokens": SHORT, "min_new_tokens": SHORT, "do_sample": False}
        wrapped.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **limits)
        waiting = [one for one in waiting if one[0] not in group] + [rest.pop(0) for _ in group]
        answered += len(group) if begun else 0
        begun = begun or time.perf_counter()  # the first compiles
    return answered / (time.perf_counter() - begun)


def main() -> None:
    """The figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="step, traffic, peer; the first two without any")
    parts = parser.parse_args().parts or ["step", "traffic"]
    chance, weights = random.Random(0), [1 / (1 + rank) for rank in range(ADAPTERS)]
    many = chance.choices([str(number) for number in range(ADAPTERS)], weights, k=REQUESTS)
    base = Base(llama(LLAMA_8B, torch.device("cuda")), tokenizer=AutoTokenizer.from_pretrained("examples/base"))
    begun = time.perf_counter()
    if parts == ["peer"]:
        rate = switched(adapters_of(base, ADAPTERS), llama(LLAMA_8B, base.device), many[: 3 * CLIENTS])
        print(json.dumps({"PEFT, requests per second": round(rate, 3)}))
        return
    adapters = adapters_of(base, ADAPTERS if "traffic" in parts else 64)
    print(f"adapters made in {time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
    begun, watching = time.perf_counter(), Watching()
    limits: dict[str, Any] = {"max_batch": 64, "max_length": 1024, "adapter_memory": "12GB", "prefix_cache": False}
    with Engine(base, adapters, watcher=watching, **limits) as engine:
        print(f"engine made in {time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
        if "step" in parts:
            for rows, distinct in CASES:
                found = [step(engine, watching, rows, distinct) for _ in range(ROUNDS)]
                took, rate = found[-1]
                line = {"rows": rows, "adapters": distinct, "step": round(took, 2), "tokens per second": round(rate)}
                print(json.dumps(line), file=sys.stderr, flush=True)
                if (rows, distinct) in BARS:
                    bar, peer = BARS[rows, distinct]
                    report(
                        f"A step of the whole engine, 8B, {rows} rows, {distinct} adapters of rank {RANK}",
                        f"{took:.2f} ms",
                        f"{peer:.2f} ms (vLLM 0.22)",
                        f"{took / peer:.2f}×",
                        f"at most {bar:.0f} ms",
                        met=took <= bar,
                    )
        if "traffic" in parts:
            for names in (many, ["0"] * REQUESTS):  # what is compiled, captured and loaded once
                traffic(engine, watching, names)
            rates = [(traffic(engine, watching, many), traffic(engine, watching, ["0"] * REQUESTS)) for _ in range(2)]
            ours, one = (max(values) for values in zip(*rates, strict=True))
            report(
                f"Serve {ADAPTERS} adapters by Zipf's law, 8B, {CLIENTS} clients, beside the same traffic on one",
                f"{ours:.1f} requests/s",
                f"{one:.1f} requests/s with one",
                f"{100 * (1 - ours / one):.0f}% less",
                "at most 15% less",
                met=ours >= 0.85 * one,
            )


if __name__ == "__main__":
    main()
