"""The engine beside PEFT: a decode step with 16 adapters in one batch, traffic over 100, and 2,000 that are registered.

A step: 16 rows of 256 tokens on a base of Llama 3.2 1B's layers, 8 of its 16, with a vocabulary of 8,192, random weights and
bfloat16, on both sides; once each row has an adapter of its own, of rank 16 on all linear layers, and once none has one. The
engine's steps are timed from one to the next, with everything that it does between them; PEFT's are the model's forward pass alone,
with `adapter_names`, on the cache that `generate` uses.

Traffic: 32 clients, each of which asks when its last question is answered, until a list of questions is answered; who asks which
adapter follows Zipf's law. PEFT has all adapters in memory, takes the adapter that was asked for first, and answers all that wait
for it in one batch. On the base of the examples, in float32, and on that of the step; answers of up to 16 tokens, greedy on both
sides, and compared.
"""

import argparse
import copy
import random
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from figures import human, report, seconds
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from adapterkit import Adapter, Base, Store
from adapterkit.data.rendering import Renderer
from adapterkit.serving import Engine
from adapterkit.serving.answering import Answer
from adapterkit.serving.watching import Watcher

EXAMPLES = Path(__file__).parent.parent / "examples"
BASE = EXAMPLES / "base"
SHAPE = {
    "vocab_size": 8192,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 8,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
}
ROWS, KEPT, STEPS, STEP_ROUNDS, RANK = 16, 256, 12, 3, 16
ADAPTERS, REQUESTS, CLIENTS, NEW, ROUNDS = 100, 192, 32, 16, 3
FEW, MANY = 5, 2000
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Request = tuple[str, list[int]]


class Watching(Watcher):
    """Lets a client ask again when its answer is there, and notes when each full step was done."""

    def __init__(self, rows: int = CLIENTS) -> None:
        self.places, self.rows = threading.Semaphore(rows), rows
        self.marks: list[float] = []

    def finished(self, answer: Answer) -> None:  # noqa: ARG002 - the protocol's
        """One client is free."""
        self.places.release()

    def stepped(self, rows: int, tokens: int, seconds: float, names: Mapping[str, int]) -> None:  # noqa: ARG002
        """A token for each row, and nothing else, makes a mark."""
        if rows == tokens == self.rows:
            self.marks.append(time.perf_counter())


def adapters_like(first: Adapter, count: int) -> list[Adapter]:
    """So many, each with other numbers."""
    made = []
    for number in range(count):
        chance = torch.Generator().manual_seed(number)
        tensors = {
            name: (torch.randn(one.shape, generator=chance) * 0.02).to(one.dtype) for name, one in first.tensors.items()
        }
        made.append(Adapter(first.method, first.config, tensors, first.manifest))
    return made


def a_lora(base: Base, **options: Any) -> Adapter:
    """Of rank 16 on all linear layers, unless it is said otherwise."""
    rows = [{"prompt": "hello", "completion": "world"}]
    first = base.train(rows, **{"method": "lora", "rank": RANK, "max_steps": 1, **options})
    base.unload(first)
    tensors = {name: one.to(base.dtype) for name, one in first.tensors.items()}
    return Adapter(first.method, first.config, tensors, first.manifest)


def in_peft(model: Any, adapters: Sequence[Adapter]) -> Any:
    """All of them, in one PeftModel, in the dtype that they are in."""
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    wrapped = get_peft_model(model, config, adapter_name="0", autocast_adapter_dtype=False)
    for number, adapter in enumerate(adapters):
        if number:
            wrapped.add_adapter(str(number), config, autocast_adapter_dtype=False)
        tensors = {f"base_model.model.{name}": tensor for name, tensor in adapter.tensors.items()}
        if set_peft_model_state_dict(wrapped, tensors, adapter_name=str(number)).unexpected_keys:
            raise RuntimeError("PEFT does not know these weights")
    return wrapped.eval()


# -- a step


def llama() -> tuple[Any, Any]:
    """A model, and another one with the same weights, which the peer may wrap."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True, eos_token_id=None)).eval()
    torch.set_default_dtype(torch.float32)
    return model, copy.deepcopy(model, {id(one): one for one in model.parameters()})


def engine_steps(engine: Engine, watching: Watching, prompts: Sequence[list[int]], names: Sequence[str]) -> float:
    """Seconds from one step to the next, while all rows are under way."""
    watching.marks = []
    answers = [
        engine.submit(prompt, model=name, max_new_tokens=STEPS + 4) for prompt, name in zip(prompts, names, strict=True)
    ]
    for answer in answers:
        answer.result()
    marks = watching.marks[1:]  # the first may have met a part of a prompt
    return median(later - one for one, later in pairwise(marks))


@torch.no_grad()
def peer_steps(model: Any, names: Sequence[str] | None, prompts: Sequence[list[int]]) -> Callable[[], float]:
    """Runs steps of a transformers model after the prompts; gives seconds for each."""
    options = {} if names is None else {"adapter_names": list(names)}
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.tensor(prompts), past_key_values=cache, logits_to_keep=1, **options)
    ids = torch.ones(len(prompts), 1, dtype=torch.long)

    def steps() -> float:
        with torch.no_grad():
            took = median(seconds(lambda: model(input_ids=ids, past_key_values=cache, **options)) for _ in range(4))
        cache.crop(-4)
        return took

    return steps


def decoding() -> None:
    """A step of 16 rows, with 16 adapters and with none."""
    model, twin = llama()
    base = Base(model, tokenizer=AutoTokenizer.from_pretrained(BASE))
    adapters = adapters_like(a_lora(base, max_length=16), ROWS)
    named = {str(number): adapter for number, adapter in enumerate(adapters)}
    chance = random.Random(0)
    prompts = [[chance.randrange(2, SHAPE["vocab_size"]) for _ in range(KEPT)] for _ in range(ROWS)]
    watching = Watching(ROWS)
    with Engine(base, named, watcher=watching, max_batch=ROWS, max_length=2 * KEPT) as engine:
        bare, wrapped = peer_steps(twin, None, prompts), None
        times: dict[str, list[float]] = {"ours bare": [], "ours": [], "peer bare": [], "peer": []}
        for number in range(STEP_ROUNDS + 1):  # the first is for what is only done once
            found = {
                "ours bare": engine_steps(engine, watching, prompts, [""] * ROWS),
                "ours": engine_steps(engine, watching, prompts, list(named)),
            }
            if number:
                for name, value in found.items():
                    times[name].append(value)
                times["peer bare"].append(bare())
        wrapped = peer_steps(in_peft(twin, adapters), list(named), prompts)
        for _ in range(STEP_ROUNDS):
            times["peer"].append(wrapped())
            times["ours"].append(engine_steps(engine, watching, prompts, list(named)))
    took = {name: median(values) for name, values in times.items()}
    ratio = took["ours"] / took["ours bare"]
    report(
        f"decode {ROWS} rows with {ROWS} adapters of rank {RANK}, over the bare base",
        f"{ratio:.2f} ({human(took['ours'])}, bare {human(took['ours bare'])})",
        f"{took['peer'] / took['peer bare']:.2f} ({human(took['peer'])}, bare {human(took['peer bare'])})",
        f"{took['peer'] / took['ours']:.1f}×",
        "at most 1.5",
        met=ratio <= 1.5,
    )


# -- traffic


def zipf(count: int, adapters: int, tokenizer: Any) -> list[Request]:
    """Questions of Banking77, each to an adapter, the second asked for half as often as the first, the third a third as often."""
    chance = random.Random(0)
    names = chance.choices(range(adapters), [1.0 / (1 + rank) for rank in range(adapters)], k=count)
    lines = (EXAMPLES / "data" / "banking77" / "test.csv").read_text(encoding="utf-8").splitlines()[1:]
    texts = [line.rpartition(",")[0].strip('"') for line in chance.sample(lines, count)]
    return [(str(name), tokenizer(text).input_ids[:32]) for name, text in zip(names, texts, strict=True)]


def served(engine: Engine, watching: Watching, requests: Sequence[Request]) -> tuple[float, list[str]]:
    """Seconds for all, and the answers."""
    answers, start = [], time.perf_counter()
    for name, prompt in requests:
        watching.places.acquire()
        answers.append(engine.submit(prompt, model=name, max_new_tokens=NEW))
    texts = [answer.result() for answer in answers]
    return time.perf_counter() - start, texts


@torch.no_grad()
def switched(model: Any, tokenizer: Any, requests: Sequence[Request]) -> tuple[float, list[str]]:
    """The same with PEFT: the adapter that was asked for first, and all that wait for it at once."""
    texts, start = [""] * len(requests), time.perf_counter()
    waiting, rest = list(range(len(requests)))[:CLIENTS], list(range(len(requests)))[CLIENTS:]
    while waiting:
        name = requests[waiting[0]][0]
        group = [number for number in waiting if requests[number][0] == name]
        model.set_adapter(name, inference_mode=True)
        given = tokenizer.pad({"input_ids": [requests[number][1] for number in group]}, return_tensors="pt")
        out = model.generate(**given, max_new_tokens=NEW, do_sample=False)
        for number, text in zip(
            group,
            tokenizer.batch_decode(out[:, given["input_ids"].shape[1] :], skip_special_tokens=True),
            strict=True,
        ):
            texts[number] = text
        waiting = [number for number in waiting if number not in set(group)] + rest[: len(group)]
        rest = rest[len(group) :]
    return time.perf_counter() - start, texts


def traffic(base: Base, model: Any, what: str, count: int = REQUESTS) -> None:
    """100 adapters over Zipf's law, and the same questions to one of them; ``model`` is the peer's."""
    tokenizer = AutoTokenizer.from_pretrained(BASE, padding_side="left")
    adapters = adapters_like(a_lora(base, max_length=16), ADAPTERS)
    requests = zipf(count, ADAPTERS, tokenizer)
    alone = [("0", prompt) for _, prompt in requests]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = list(Renderer(base.tokenizer, max_length=1024).stop_ids())
    peer = in_peft(model, adapters)
    watching = Watching()
    times: dict[str, list[float]] = {"many": [], "one": [], "peer": []}
    named = {str(number): adapter for number, adapter in enumerate(adapters)}
    # the questions come again in each round: nothing of them is kept
    with Engine(base, named, watcher=watching, max_batch=CLIENTS, prefix_cache=False) as engine:
        served(engine, watching, requests)
        for number in range(ROUNDS):
            took, ours = served(engine, watching, requests)
            times["many"].append(took)
            times["one"].append(served(engine, watching, alone)[0])
            if not number:  # it is by far the slowest
                took, theirs = switched(peer, tokenizer, requests)
                times["peer"].append(took)
    rates = {name: count / median(values) for name, values in times.items()}
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    ratio, lost = rates["many"] / rates["peer"], 1 - rates["many"] / rates["one"]
    report(
        f"serve {ADAPTERS} adapters by Zipf's law, {what} ({same} of {count} answers the same)",
        f"{rates['many']:.1f} requests/s",
        f"{rates['peer']:.1f} requests/s",
        f"{ratio:.1f}×",
        "10×",
        met=ratio >= 10,
    )
    report(
        f"serve {ADAPTERS} adapters, {what}, beside the same traffic on one",
        f"{rates['many']:.1f} requests/s",
        f"{rates['one']:.1f} requests/s with one",
        f"{100 * lost:.0f}% less",
        "at most 15% less",
        met=lost <= 0.15,
    )


# -- registered


def registered(base: Base, folder: Path) -> None:
    """The same traffic on five adapters, with five known and with 2,000: in a store, and by names that the operator gave."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    asked = adapters_like(a_lora(base), FEW)
    idle = adapters_like(a_lora(base, rank=2, target_modules=["q_proj"]), MANY - FEW)
    requests = zipf(REQUESTS, FEW, tokenizer)

    def stored(count: int) -> dict[str, Any]:
        store = Store(folder / str(count))
        for number, adapter in enumerate((asked + idle)[:count]):
            store.add(adapter, str(number))
        return {"store": store}

    def by_name(count: int) -> dict[str, Any]:
        return {"adapters": {str(number): adapter for number, adapter in enumerate((asked + idle)[:count])}}

    for way, make in (("in a store", stored), ("by name", by_name)):
        watching = {count: Watching() for count in (FEW, MANY)}
        engines = {
            count: Engine(base, watcher=watching[count], max_batch=CLIENTS, prefix_cache=False, **make(count))
            for count in (FEW, MANY)
        }
        times: dict[int, list[float]] = {FEW: [], MANY: []}
        for number in range(ROUNDS + 2):
            for count in (FEW, MANY) if number % 2 else (MANY, FEW):
                took, _ = served(engines[count], watching[count], requests)
                if number:
                    times[count].append(took)
        for engine in engines.values():
            engine.close()
        rates = {count: REQUESTS / median(values) for count, values in times.items()}
        lost = 1 - rates[MANY] / rates[FEW]
        report(
            f"serve with {MANY:,} adapters {way}, beside {FEW}",
            f"{rates[MANY]:.1f} requests/s",
            f"{rates[FEW]:.1f} requests/s with {FEW}",
            f"{100 * lost:.1f}% less",
            "at most 5% less",
            met=lost <= 0.05,
        )


def main() -> None:
    """All three, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="step, traffic, wide, registered; all without any")
    parts = parser.parse_args().parts or ["step", "traffic", "wide", "registered"]
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    if "step" in parts:
        decoding()
    if "traffic" in parts:
        traffic(Base(BASE), AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), "256 wide")
    if "wide" in parts:
        model, twin = llama()
        traffic(Base(model, tokenizer=AutoTokenizer.from_pretrained(BASE)), twin, "2,048 wide", REQUESTS // 2)
    if "registered" in parts:
        with tempfile.TemporaryDirectory() as folder:
            registered(Base(BASE), Path(folder))


if __name__ == "__main__":
    main()
