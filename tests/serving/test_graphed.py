"""Decode steps over pages, in a twin of the model: what the base itself answers, whatever acts on whichever row."""

import threading

import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from adapterkit import Base, Blend, SelectionError
from adapterkit.runtime.actions import AddBias, AddLowRank
from adapterkit.serving.stepping.graphed import GraphedStep
from adapterkit.serving.stepping.graphed.stack import bucket
from adapterkit.serving.stepping.pool import KVPool, KVShape
from adapterkit.testing import tiny_llama, tiny_qwen
from tests.support import make_adapter, state_digest

ON_GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
)
DEVICES = pytest.mark.parametrize("device", ["cpu", ON_GPU])
SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
TOKENS = 20
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


def step_of(model, device="cpu", *, max_rows=8, max_rank=64):
    base = Base(model.to(device))
    config = base.model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = (config.num_key_value_heads, size, size)
    shape = KVShape((heads,) * config.num_hidden_layers, base.model.dtype)
    pool = KVPool(shape, 64, base.device)
    return base, GraphedStep(base, pool, max_rows=max_rows, max_rank=max_rank)


def drawn(rows):
    return torch.randint(1, 90, (rows, TOKENS), generator=torch.Generator().manual_seed(3))


def answered(step, ids, parts, *, tables=None):
    """Logits ``(rows, tokens, vocabulary)``, one token after another."""
    tables = tables or [[1 + 2 * row, 2 + 2 * row] for row in range(len(ids))]
    out = [step(ids[:, at].tolist(), [at] * len(ids), tables, parts).clone() for at in range(ids.shape[1])]
    return torch.stack(out, dim=1)


def off(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@DEVICES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_row_answers_as_the_base_does_with_its_adapters(device, dtype):
    base, step = step_of(tiny_llama().to(dtype), device)
    before = state_digest(base.model)
    adapters = [make_adapter(base, seed=rank, rank=rank) for rank in (4, 8, 16)]
    plans = [base._plan_of(adapter) for adapter in adapters]
    chosen = [None, *adapters, Blend({adapters[0]: 0.5, adapters[1]: -0.7})]
    parts = [[], *([(plan, 1.0)] for plan in plans), [(plans[0], 0.5), (plans[1], -0.7)]]
    ids = drawn(len(parts))
    assert step.fits(parts)
    found = answered(step, ids, parts)
    for row, adapter in enumerate(chosen):
        alone = base.logits(ids[row : row + 1].to(device), adapter=adapter)
        assert off(found[row : row + 1], alone) < BOUNDS[dtype], row
    assert state_digest(base.model) == before


@DEVICES
@pytest.mark.parametrize(
    "make",
    [
        tiny_qwen,
        lambda: tiny_llama(tied=True),
        lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)).eval(),
        lambda: GemmaForCausalLM(GemmaConfig(**SIZES)).eval(),
    ],
)
def test_parts_that_compute_otherwise_keep_their_own_code(device, make):
    torch.manual_seed(0)
    base, step = step_of(make(), device)
    adapter = make_adapter(base, rank=8)
    ids = drawn(2)
    found = answered(step, ids, [[(base._plan_of(adapter), 1.0)], []])
    assert off(found, base.logits(ids.to(device), adapter=[adapter, None])) < BOUNDS[torch.float32]


def test_a_base_that_attends_otherwise_is_refused():
    with pytest.raises(SelectionError, match="sliding_window"):
        step_of(MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4)).eval())


@DEVICES
def test_adapters_come_and_go_between_steps(device):
    base, step = step_of(tiny_llama(), device, max_rank=64)
    adapters = [make_adapter(base, seed=seed, rank=rank) for seed, rank in enumerate((16, 4, 24, 8, 40, 16))]
    ids = drawn(2)
    for first, second in ((0, 1), (1, 2), (4, 3), (2, 4), (5, 5), (0, 1)):
        pair = [adapters[first], adapters[second]]
        found = answered(step, ids, [[(base._plan_of(one), 1.0)] for one in pair])
        assert off(found, base.logits(ids.to(device), adapter=pair)) < BOUNDS[torch.float32]


@DEVICES
def test_an_adapter_of_some_layers_and_then_one_of_others(device):
    base, step = step_of(tiny_llama(), device)
    adapters = [
        make_adapter(base, rank=4, target_modules=list(names)) for names in (("q_proj",), ("up_proj", "o_proj"))
    ]
    ids = drawn(2)
    for rows in ([adapters[0], None], [adapters[1], adapters[0]]):
        parts = [[] if one is None else [(base._plan_of(one), 1.0)] for one in rows]
        assert off(answered(step, ids, parts), base.logits(ids.to(device), adapter=rows)) < BOUNDS[torch.float32]


@DEVICES
def test_anothers_infinity_does_not_reach_a_row(device):
    base, step = step_of(tiny_llama(), device)
    adapter, bad = make_adapter(base, rank=4), make_adapter(base, seed=1, rank=4)
    broken = {
        site: AddLowRank(torch.full_like(one.down, torch.inf), one.up) for site, one in base._plan_of(bad).items()
    }
    mine, ids = base._plan_of(adapter), drawn(3)
    expected = answered(step, ids, [[(mine, 1.0)], [], [(mine, 1.0)]])
    found = answered(step, ids, [[(mine, 1.0)], [(broken, 1.0)], [(mine, 1.0)]])
    torch.testing.assert_close(found[::2], expected[::2], atol=1e-5, rtol=1e-5)
    assert not found[1].isfinite().all()


def test_what_does_not_fit_is_said_beforehand():
    base, step = step_of(tiny_llama(), max_rows=2, max_rank=16)
    plans = [base._plan_of(make_adapter(base, seed=seed, rank=rank)) for seed, rank in enumerate((8, 9, 4))]
    assert step.fits([[(plans[0], 1.0)], [(plans[2], 0.5), (plans[0], 0.5)]])
    assert not step.fits([[(plans[0], 1.0)], [(plans[1], 1.0)]])  # 8 and 16
    assert not step.fits([[], [], []])
    site = next(iter(plans[0]))
    assert not step.fits([[({site: AddBias(torch.zeros(32))}, 1.0)]])
    assert not step.fits([[({"model.embed_tokens": plans[0][site]}, 1.0)]])


@pytest.mark.parametrize(
    ("rank", "computed"), [(0, 0), (1, 16), (16, 16), (17, 64), (65, 128), (512, 512), (513, 1024)]
)
def test_ranks_are_computed_in_few_sizes(rank, computed):
    assert bucket(rank) == computed


@DEVICES
def test_the_base_answers_others_as_ever_meanwhile(device):
    base, step = step_of(tiny_llama(), device)
    adapter, ids = make_adapter(base, rank=8), drawn(2)
    expected, wrong = base.logits(ids.to(device), adapter=adapter), []

    def ask():
        wrong.extend(off(base.logits(ids.to(device), adapter=adapter), expected) for _ in range(20))

    other = threading.Thread(target=ask)
    other.start()
    found = [answered(step, ids[:rows], [[] for _ in range(rows)]) for rows in (1, 2)]
    other.join()
    assert len(wrong) == 20
    assert max(wrong) < 1e-5
    for one in found:
        assert off(one, base.logits(ids[: len(one)].to(device))) < BOUNDS[torch.float32]
