"""Swapping and mixing: each row is answered with its own adapter, and the base is never changed."""

import asyncio
import contextlib
import copy
import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter

from adapterkit import Base, SelectionError
from adapterkit.runtime import rows
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.support import make_adapter, state_digest

CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture
def adapters(base):
    last = "c_proj" if base.model.config.model_type == "gpt2" else "o_proj"
    return [
        make_adapter(base, seed=1, rank=4),
        make_adapter(base, seed=2, rank=7, use_rslora=True, target_modules=[last]),
        make_adapter(base, seed=3, rank=2, alpha=5.0, target_modules=["lm_head", last]),
    ]


def test_each_row_of_a_mixed_batch_equals_its_solo_answer(base, adapters, ids):
    chosen = [adapters[0], None, adapters[1], adapters[2]]
    mixed = base.logits(ids, adapter=chosen)
    for row, adapter in enumerate(chosen):
        solo = base.logits(ids[row : row + 1], adapter=adapter)
        torch.testing.assert_close(mixed[row : row + 1], solo, **CLOSE)
    assert not torch.allclose(mixed[0], base.logits(ids[:1])[0], atol=1e-2), (
        "the adapter does nothing: the test is blind"
    )


def test_both_ways_of_mixing_give_the_same(base, adapters, ids, monkeypatch):
    chosen = [adapters[0], None, adapters[1], adapters[2]]
    masked = base.logits(ids, adapter=chosen)
    monkeypatch.setattr(rows, "MOST_MASKED_RANK", 0)
    by_rows = base.logits(ids, adapter=chosen)
    torch.testing.assert_close(masked, by_rows, **CLOSE)


@pytest.mark.parametrize("most_masked_rank", [0, 512])
def test_a_neighbour_that_overflows_does_not_reach_a_row(llama, ids, monkeypatch, most_masked_rank):
    monkeypatch.setattr(rows, "MOST_MASKED_RANK", most_masked_rank)
    good, wild = make_adapter(llama, seed=1, rank=4), make_adapter(llama, seed=2, rank=4, scale=1e30)
    alone = llama.logits(ids[:1], adapter=good)
    mixed = llama.logits(ids[:2], adapter=[good, wild])
    assert not torch.isfinite(mixed[1]).all(), "the neighbour does not overflow: the test is blind"
    torch.testing.assert_close(mixed[:1], alone, **CLOSE)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    choice=st.lists(st.sampled_from([None, 0, 1, 2]), min_size=1, max_size=6),
    family=st.sampled_from([tiny_llama, tiny_gpt2]),
)
def test_any_mix_equals_solo(choice, family):
    base = Base(family())
    pool = [make_adapter(base, seed=seed, rank=rank) for seed, rank in enumerate((1, 3, 8))]
    ids = torch.randint(1, 97, (len(choice), 5), generator=torch.Generator().manual_seed(len(choice)))
    rows = [None if number is None else pool[number] for number in choice]
    mixed = base.logits(ids, adapter=rows)
    for row, adapter in enumerate(rows):
        torch.testing.assert_close(mixed[row : row + 1], base.logits(ids[row : row + 1], adapter=adapter), **CLOSE)


def test_use_and_using_choose_what_the_model_itself_does(base, adapters, ids):
    first, second, _ = adapters
    bare = base.model(ids).logits
    base.use(first)
    torch.testing.assert_close(base.model(ids).logits, base.logits(ids, adapter=first), **CLOSE)
    with base.using(second):
        assert base.active == second
        torch.testing.assert_close(base.model(ids).logits, base.logits(ids, adapter=second), **CLOSE)
        with base.using(None):
            assert torch.equal(base.model(ids).logits, bare)
    assert base.active == first
    with base.using([None, first, second, first]):
        torch.testing.assert_close(base.model(ids).logits[1:2], base.logits(ids[1:2], adapter=first), **CLOSE)
    base.use(None)
    assert torch.equal(base.model(ids).logits, bare)
    assert torch.equal(base.logits(ids), bare)


def test_two_threads_use_two_adapters_at_once(llama, ids):
    adapters = [make_adapter(llama, seed=seed, rank=4) for seed in range(2)]
    expected = [llama.logits(ids, adapter=adapter) for adapter in adapters]
    wrong, barrier = [], threading.Barrier(2)

    def work(number):
        barrier.wait()
        for _ in range(20):
            with llama.using(adapters[number]), torch.no_grad():
                if not torch.allclose(llama.model(ids).logits, expected[number], atol=1e-5):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_beams_of_a_row_follow_the_row(llama, ids):
    adapters = [make_adapter(llama, seed=1, rank=4), None]
    options = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": 96}
    with llama.using(adapters):
        mixed = llama.model.generate(ids[:2], attention_mask=torch.ones_like(ids[:2]), **options)
    for row, adapter in enumerate(adapters):
        with llama.using(adapter):
            solo = llama.model.generate(ids[row : row + 1], attention_mask=torch.ones_like(ids[:1]), **options)[0]
        assert mixed[row, : len(solo)].tolist() == solo.tolist()


def test_a_model_that_flattens_its_tokens_is_mixed_right(ids):
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=97,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
        pad_token_id=0,
    )
    base = Base(OPTForCausalLM(config).eval())
    adapter = make_adapter(base, rank=4)
    mixed = base.logits(ids, adapter=[None, adapter, None, adapter])
    torch.testing.assert_close(mixed[1:2], base.logits(ids[1:2], adapter=adapter), **CLOSE)
    torch.testing.assert_close(mixed[0:1], base.logits(ids[0:1]), **CLOSE)


def test_rows_that_cannot_be_told_apart_are_refused(llama):
    adapter = make_adapter(llama, rank=4)
    site = next(site for site in llama.sites if site.kind == "linear").module
    with llama.using([adapter, None]), pytest.raises(SelectionError, match="whose cannot be told"):
        site(torch.randn(6, 32))


def test_a_selection_that_does_not_fit_the_batch_is_refused(llama, ids):
    adapter = make_adapter(llama)
    with pytest.raises(SelectionError, match="3 adapters for 4 rows"):
        llama.logits(ids, adapter=[adapter, None, adapter])
    with pytest.raises(SelectionError, match="not an adapter: 'cards'"):
        llama.use("cards")
    with pytest.raises(SelectionError, match="a list is for `using` or `adapter=`"):
        llama.use([adapter, None])
    with pytest.raises(SelectionError, match="not resident"):
        llama.unload(make_adapter(llama, seed=9))


def test_the_base_keeps_every_bit_and_key(base, adapters, ids):
    before, bare = state_digest(base._loaded.model), base._loaded.model(ids).logits
    base.use(adapters[0])
    base.model(ids)
    base.logits(ids, adapter=[*adapters, None])
    base.model.generate(ids[:1], max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert state_digest(base.model) == before
    for adapter in adapters:
        base.unload(adapter)
    model = base.model
    base.detach()
    assert state_digest(model) == before
    assert torch.equal(model(ids).logits, bare)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_unloading_the_adapter_in_use_leaves_the_base_in_use(llama, ids):
    adapter = make_adapter(llama)
    llama.use(adapter)
    llama.unload(adapter)
    assert llama.active is None
    assert torch.equal(llama.model(ids).logits, llama.logits(ids))


def test_swapping_recompiles_nothing(llama, ids):
    count, adapters = CompileCounter(), [make_adapter(llama, seed=seed, rank=4) for seed in range(3)]
    _ = llama.runtime
    compiled = torch.compile(llama.model, backend=count, fullgraph=True)

    def answer():
        with torch.no_grad():
            return compiled(ids, use_cache=False).logits

    torch.testing.assert_close(answer(), llama.logits(ids), **CLOSE)
    for choose in (
        llama.use,
        lambda adapter: contexts.enter_context(llama.using(adapter)),
    ):  # one compilation for each kind
        with contextlib.ExitStack() as contexts:
            choose(adapters[0])
            answer()
    frames = count.frame_count
    for adapter in adapters[1:]:
        llama.use(adapter)
        torch.testing.assert_close(answer(), llama.logits(ids, adapter=adapter), **CLOSE)
    with llama.using(adapters[0]):
        torch.testing.assert_close(answer(), llama.logits(ids, adapter=adapters[0]), **CLOSE)
    llama.use(None)
    torch.testing.assert_close(answer(), llama.logits(ids), **CLOSE)
    assert count.frame_count == frames


def test_a_model_that_was_compiled_before_it_became_a_base_is_compiled_anew(ids):
    model = tiny_llama()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        compiled(ids, use_cache=False)
    base = Base(model)
    adapter = make_adapter(base, rank=4)
    base.use(adapter)
    with torch.no_grad():
        torch.testing.assert_close(compiled(ids, use_cache=False).logits, base.logits(ids, adapter=adapter), **CLOSE)


def test_a_copy_of_the_model_follows_the_same_plan(llama, ids):
    adapter = make_adapter(llama, rank=4)
    llama.use(adapter)
    copied = copy.deepcopy(llama.model)
    with torch.no_grad():
        torch.testing.assert_close(copied(ids).logits, llama.logits(ids, adapter=adapter), **CLOSE)


def test_tasks_of_one_thread_use_adapters_of_their_own(llama, ids):
    adapters = [make_adapter(llama, seed=seed, rank=4) for seed in range(2)]

    async def work(adapter):
        with llama.using(adapter):
            await asyncio.sleep(0)
            return llama.model(ids).logits

    async def both():
        return await asyncio.gather(*(work(adapter) for adapter in adapters))

    for adapter, logits in zip(adapters, asyncio.run(both()), strict=True):
        torch.testing.assert_close(logits, llama.logits(ids, adapter=adapter), **CLOSE)
