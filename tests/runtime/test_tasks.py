"""Many at once: threads, tasks and generators that use one base do not choose for one another."""

import asyncio
import contextlib

import torch

from adapterkit.runtime.runtime import UNSET
from tests.support import make_adapter

CLOSE = {"atol": 1e-5, "rtol": 0}


def test_tasks_that_overlap_leave_nothing_behind_for_compiled_code(llama, ids):
    # the second task opens its block inside the first one's, and closes it when that is long over
    first, second = (make_adapter(llama, seed=seed, rank=4) for seed in range(2))

    async def work(adapter, turns):
        with llama.using(adapter):
            for _ in range(turns):
                await asyncio.sleep(0)

    async def both():
        await asyncio.gather(work(first, 1), work(second, 3))

    asyncio.run(both())
    assert llama.runtime._local.plan is UNSET
    assert llama.runtime.plan is None
    compiled = torch.compile(llama.model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(ids, use_cache=False).logits, llama.logits(ids), **CLOSE)


def test_blocks_within_blocks_give_back_what_was_before(llama):
    adapters = [make_adapter(llama, seed=seed, rank=2) for seed in range(2)]
    plans = [llama.load(adapter) and llama._residents[adapter.digest].plan for adapter in adapters]
    with contextlib.ExitStack() as blocks:
        for adapter, plan in zip(adapters, plans, strict=True):
            blocks.enter_context(llama.using(adapter))
            assert llama.runtime._local.plan is llama.runtime.plan is plan
        with llama.using(None):
            assert llama.runtime._local.plan is llama.runtime.plan is None
        assert llama.runtime._local.plan is llama.runtime.plan is plans[1]
    assert llama.runtime._local.plan is UNSET


def test_a_worker_thread_of_a_task_follows_the_tasks_choice(llama, ids):
    adapter = make_adapter(llama, rank=4)

    async def work():
        with llama.using(adapter):
            return await asyncio.to_thread(lambda: llama.model(ids).logits)

    torch.testing.assert_close(asyncio.run(work()), llama.logits(ids, adapter=adapter), **CLOSE)
    assert llama.active is None
