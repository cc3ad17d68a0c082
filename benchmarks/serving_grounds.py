"""What the engine should stand on: its own loop with pages of keys and values, or transformers' continuous batching.

Both answer the same 16 questions on the base of the examples: without adapters, with one adapter for all, and with an adapter for
each, of rank 16 on all linear layers. Then one question is asked of one adapter, and of another: are keys and values of the first
used for the second? Transformers' manager knows nothing of adapters. What it lacks is added here from outside: `packed` gives each
token its own adapter, and `salted` begins the names of its pages with the adapter. Prints a line of JSON for each figure; what was
decided by it stands in docs/explanation/how-serving-works.md.
"""

import contextlib
import inspect
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn import functional
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cache_allocators import cache_allocator
from transformers.utils import logging

from adapterkit import Adapter, Base
from adapterkit.data.rendering import Renderer
from adapterkit.runtime.actions import AddLowRank
from adapterkit.serving import Engine

BASE = Path(__file__).parent.parent / "examples" / "base"
REQUESTS, PROMPT, NEW, ROUNDS, PAGE = 16, 70, 32, 3, 16
Answers = list[list[int]]


def adapters_of(base: Base) -> list[Adapter]:
    """One for each request."""
    first = base.train([{"prompt": "hello", "completion": "world"}], method="lora", rank=16, max_steps=1)
    base.unload(first)
    made = []
    for number in range(REQUESTS):
        chance = torch.Generator().manual_seed(number)
        tensors = {name: torch.randn(one.shape, generator=chance) * 0.08 for name, one in first.tensors.items()}
        made.append(base.load(Adapter(first.method, first.config, tensors, first.manifest)))
    return made


def alone(base: Base, adapter: Adapter | None, prompt: list[int]) -> list[int]:
    """What `generate` answers."""
    with base.runtime.override(None if adapter is None else plan_of(base, adapter)):
        given = torch.tensor([prompt])
        out = base.model.generate(
            given, max_new_tokens=NEW, do_sample=False, eos_token_id=stops(base), attention_mask=torch.ones_like(given)
        )
    return trimmed(base, out[0, len(prompt) :].tolist())


def stops(base: Base) -> list[int]:
    """Tokens that end a text."""
    return list(Renderer(base.tokenizer, max_length=1024).stop_ids())


def trimmed(base: Base, tokens: list[int]) -> list[int]:
    """Without the token that ends the text."""
    return tokens[:-1] if tokens[-1] in stops(base) else tokens


def plan_of(base: Base, adapter: Adapter) -> Any:
    """What its sites do."""
    base.use(adapter)
    plan = base.runtime.active
    base.use(None)
    return plan


# -- what transformers' manager lacks


@attrs.frozen(eq=False)
class Packed:
    """Low-rank actions of a batch whose tokens all lie in one row, each with an adapter of its own."""

    stacked: AddLowRank
    foreign: Tensor

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """`x` is `(1, tokens, in)`."""
        low = functional.linear(x, self.stacked.down).masked_fill(self.foreign, 0.0)
        return y + functional.linear(low, self.stacked.up)


@contextlib.contextmanager
def packed(base: Base, manager: Any, plans: Mapping[str, Mapping[str, AddLowRank]]) -> Iterator[None]:
    """Each token of a step follows the plan of its request."""
    sites = list(next(iter(plans.values())))
    each = [plan[sites[0]].rank for plan in plans.values()]
    owner = torch.arange(len(plans)).repeat_interleave(torch.tensor(each))
    stacked = {
        site: AddLowRank(
            torch.cat([plan[site].down for plan in plans.values()]),
            torch.cat([plan[site].up for plan in plans.values()], dim=1),
        )
        for site in sites
    }
    numbers = {name: number for number, name in enumerate(plans)}
    processor = manager.batch_processor
    step = processor._generation_step  # noqa: SLF001 - there is no other way in

    def stepped(model: Any) -> None:
        rows = [
            numbers[future.state.request_id]
            for future in processor.inputs_and_outputs.requests_in_batch
            for _ in range(future.query_length)
        ]
        foreign = torch.tensor(rows)[:, None] != owner
        with base.runtime.override({site: Packed(one, foreign) for site, one in stacked.items()}):
            step(model)

    processor._generation_step = stepped  # noqa: SLF001
    yield
    processor._generation_step = step  # noqa: SLF001


@contextlib.contextmanager
def salted(manager: Any, salts: Mapping[str, bytes]) -> Iterator[None]:
    """The names of a request's pages begin with its adapter."""
    cache, plain = manager.batch_processor.cache, cache_allocator.compute_block_hash
    find, mark, now = cache.search_prefix_match, cache.mark_complete_blocks, [b""]

    def name(parent: int | None, tokens: list[int]) -> int:
        return plain(int.from_bytes(now[0][:8], "little") if parent is None else parent, tokens)

    def found(request_id: str, prompt: list[int]) -> int:
        now[0] = salts[request_id]
        return find(request_id, prompt)

    def marked(state: Any, complete: Any) -> None:
        now[0] = salts[state.request_id]
        mark(state, complete)

    cache_allocator.compute_block_hash = name
    cache.search_prefix_match, cache.mark_complete_blocks = found, marked
    yield
    cache_allocator.compute_block_hash = plain
    cache.search_prefix_match, cache.mark_complete_blocks = find, mark


# -- both


@contextlib.contextmanager
def managing(base: Base) -> Iterator[Any]:
    """Transformers' manager, ready and at work."""
    config = GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=stops(base), pad_token_id=1)
    sizes = ContinuousBatchingConfig(
        page_size=PAGE, num_blocks=16 * REQUESTS, max_batch_tokens=512, use_cuda_graph=False
    )
    manager = base.model.init_continuous_batching(generation_config=config, continuous_batching_config=sizes)
    manager.warmup()
    manager.start()
    try:
        yield manager
    finally:
        manager.stop(block=True)


def by_manager(base: Base, manager: Any, names: Sequence[str], prompts: Sequence[list[int]]) -> Answers:
    """Its answers."""
    for name, prompt in zip(names, prompts, strict=True):
        manager.add_request(prompt, request_id=name, max_new_tokens=NEW)
    done: dict[str, list[int]] = {}
    while len(done) < len(prompts):
        result = manager.get_result(timeout=1)
        if result is not None and result.is_finished():
            if result.error:
                raise RuntimeError(result.error)
            done[result.request_id] = trimmed(base, list(result.generated_tokens))
    return [done[name] for name in names]


def by_engine(engine: Engine, adapters: Sequence[Adapter | None], prompts: Sequence[list[int]]) -> Answers:
    """The engine's answers."""
    asked = [
        engine.submit(prompt, adapter=adapter, max_new_tokens=NEW)
        for prompt, adapter in zip(prompts, adapters, strict=True)
    ]
    return [[token.id for piece in answer for token in piece.tokens] for answer in asked]


def timed(work: Callable[[], Answers], expected: Answers, what: str, ground: str) -> None:
    """Tokens per second, and how many answers are those that `generate` gives."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        answers = work()
        times.append(time.perf_counter() - start)
    same = sum(one == other for one, other in zip(answers, expected, strict=True))
    rate = sum(map(len, answers)) / median(times[1:])
    line = {"ground": ground, "what": what, "tokens per second": round(rate), "right answers": f"{same} of {REQUESTS}"}
    print(json.dumps(line), flush=True)


def leak(base: Base, adapters: Sequence[Adapter], prompt: list[int]) -> None:
    """One question to one adapter, and to another."""
    expected = alone(base, adapters[1], prompt)
    plans = {str(number): plan_of(base, adapter) for number, adapter in enumerate(adapters[:2])}
    salts = {str(number): bytes.fromhex(adapter.digest) for number, adapter in enumerate(adapters[:2])}
    for with_salt in (False, True):
        with contextlib.ExitStack() as entered:
            manager = entered.enter_context(managing(base))
            entered.enter_context(packed(base, manager, plans))
            if with_salt:
                entered.enter_context(salted(manager, salts))
            by_manager(base, manager, ["0"], [prompt])
            found = by_manager(base, manager, ["1"], [prompt])[0]
        what = "the second adapter's answer" + (", salted names" if with_salt else "")
        line = {"ground": "transformers' manager", "what": what, "right": found == expected}
        print(json.dumps(line), flush=True)
    with Engine(base, max_batch=REQUESTS) as engine:
        by_engine(engine, adapters[:1], [prompt])
        found = by_engine(engine, adapters[1:2], [prompt])[0]
    line = {"ground": "own loop", "what": "the second adapter's answer", "right": found == expected}
    print(json.dumps(line), flush=True)


def main() -> None:
    """All figures."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    base = Base(BASE)
    adapters = adapters_of(base)
    chance = random.Random(0)
    prompts = [[chance.randrange(2, 8000) for _ in range(PROMPT)] for _ in range(REQUESTS)]
    plans = {str(number): plan_of(base, adapter) for number, adapter in enumerate(adapters)}
    salts = {str(number): bytes.fromhex(adapter.digest) for number, adapter in enumerate(adapters)}
    cases: dict[str, list[Adapter | None]] = {
        "no adapter": [None] * REQUESTS,
        "one adapter": [adapters[0]] * REQUESTS,
        "16 adapters": list(adapters),
    }
    for what, chosen in cases.items():
        expected = [alone(base, adapter, prompt) for adapter, prompt in zip(chosen, prompts, strict=True)]
        with Engine(base, max_batch=REQUESTS, prefix_cache=False) as engine:
            timed(lambda e=engine, c=chosen: by_engine(e, c, prompts), expected, what, "own loop")
        with contextlib.ExitStack() as entered:
            if what == "one adapter":
                base.use(adapters[0])
            manager = entered.enter_context(managing(base))
            manager.batch_processor.cache.use_prefix_sharing = False
            if what == "16 adapters":
                entered.enter_context(packed(base, manager, plans))
                entered.enter_context(salted(manager, salts))
            names = [str(number) for number in range(REQUESTS)]
            timed(lambda m=manager, n=names: by_manager(base, m, n, prompts), expected, what, "transformers' manager")
        base.use(None)
    leak(base, adapters, prompts[0])
    line = {
        "what": "lines of hooks into transformers' manager",
        "Packed, packed": sum(len(inspect.getsource(one).splitlines()) for one in (Packed, packed)),
        "salted": len(inspect.getsource(salted).splitlines()),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
