"""Layers of one class act together on the rows of several jobs: in one step, and each on its own."""

import itertools

import pytest
import torch

import adapterkit_lora.together as lora
from adapterkit import Job, JobsFailedError
from adapterkit.testing import tiny_gpt2, tiny_llama
from adapterkit.train import passes
from adapterkit.train.layout import Layout, choose_layout
from adapterkit_lora.layer import LoraLayer
from tests.train.test_many import SHORT, gradients, solo
from tests.train.test_training import OPTIONS, ROWS, fresh, tokenizer  # noqa: F401

JOBS = {
    "small": Job(ROWS, name="small", **{**OPTIONS, "rank": 2}),
    "large": Job(SHORT, name="large", **{**OPTIONS, "rank": 8, "learning_rate": 5e-3, "batch_size": 3, "seed": 1}),
    "some": Job(ROWS, name="some", target_modules=["q_proj"], **{**OPTIONS, "alpha": 4.0, "epochs": 1}),
}
DROPPING = {name: Job(job.data, name=name, dropout=0.3, **job.options) for name, job in JOBS.items()}


@pytest.fixture
def asked(monkeypatch):
    """How often layers acted together."""
    seen = []
    monkeypatch.setattr(
        LoraLayer, "together", staticmethod(lambda *given: seen.append(given) or lora.update_together(*given))
    )
    return seen


def stacked(monkeypatch):
    """As on an accelerator; jobs of one scale, which is what that takes."""
    real = lora._spans

    def spans(shares, rank, x):
        found = real(shares, rank, x)
        if len(set(found.scales)) > 1:
            return found
        foreign = lora._foreign(shares[0].memo, found.tokens, found.ranks, x)
        return lora._Spans(found.tokens, found.ranks, found.scales, foreign)

    monkeypatch.setattr(lora, "_spans", spans)


@pytest.mark.parametrize("how", ["one by one", "stacked"])
@pytest.mark.parametrize("in_one", [True, False])
@pytest.mark.parametrize("jobs", [JOBS, DROPPING], ids=["plain", "dropping"])
def test_each_job_becomes_what_it_would_have_become_alone(tokenizer, monkeypatch, asked, how, in_one, jobs):  # noqa: F811
    family = tiny_llama if jobs is JOBS else tiny_gpt2
    if family is tiny_gpt2:
        jobs = {name: job for name, job in jobs.items() if name != "some"}
    if how == "stacked":
        stacked(monkeypatch)
    seen = gradients(monkeypatch)
    monkeypatch.setattr(
        passes,
        "choose_layout",
        lambda *given, **_: Layout(choose_layout(*given, may_be_in_one=False).sizes, in_one=in_one),
    )
    many = fresh(tokenizer, family).train_many(list(jobs.values()))
    assert asked
    together = dict(seen)
    for job, adapter in zip(jobs.values(), many, strict=True):
        seen.clear()
        alone = solo(tokenizer, family, job)
        for name, expected in seen[""].items():
            size = float(expected.abs().max()) or 1.0
            assert float((together[job.name][name] - expected).abs().max()) <= 1e-5 * size, (job.name, name)
        assert all(torch.allclose(adapter.tensors[name], alone.tensors[name], atol=2e-4) for name in alone.tensors)


@pytest.mark.parametrize("how", ["one by one", "stacked"])
def test_one_that_fails_harms_no_other(tokenizer, monkeypatch, asked, how):  # noqa: F811
    if how == "stacked":
        stacked(monkeypatch)
    wild = Job(ROWS, name="wild", **{**OPTIONS, "learning_rate": 1e38})
    with pytest.raises(JobsFailedError, match="wild: step") as caught:
        fresh(tokenizer).train_many([wild, JOBS["small"]])
    alone = solo(tokenizer, tiny_llama, JOBS["small"])
    calm = caught.value.adapters[1]
    assert asked
    assert all(torch.allclose(calm.tensors[name], alone.tensors[name], atol=2e-4) for name in alone.tensors)


def test_an_infinite_gradient_of_one_reaches_no_other():
    """Which is why the stacked gradient of ``up`` is made of each layer's own tokens."""
    x, weight = torch.randn(6, 4, requires_grad=True), torch.randn(5, 4)
    factors = [torch.randn(2, 4), torch.randn(2, 4), torch.randn(5, 2), torch.randn(5, 2)]
    foreign = torch.tensor([[False, False, True, True]] * 3 + [[True, True, False, False]] * 3)
    for kind in (lora._OneByOne, lora._Stacked):
        leaves = [one.clone().requires_grad_() for one in factors]
        spans = lora._Spans([(0, 3), (3, 6)], [(0, 2), (2, 4)], [2.0, 2.0], foreign)
        out = kind.apply(x, None, (x.detach() @ weight.T,), weight, spans, *leaves)
        grad = torch.ones_like(out)
        grad[4, 1] = torch.inf
        out.backward(grad)
        finite = [bool(one.grad.isfinite().all()) for one in leaves]
        assert finite == [True, False, True, False], kind


def test_jobs_are_laid_out_where_that_costs_least():
    def batch(count, width, packed):
        mask = {"segment_mask": torch.zeros(count, 1, width, width)} if packed else {}
        return {"input_ids": torch.zeros(count, width, dtype=torch.long), **mask}

    uneven = [batch(1, 10, packed=True), batch(1, 90, packed=True)]
    assert choose_layout(uneven, 256, may_be_in_one=True).in_one
    even = [batch(1, 30, packed=True), batch(2, 30, packed=False)]
    assert not choose_layout(even, 256, may_be_in_one=True).in_one, "one of them cannot be packed"
    assert not choose_layout(even[:1] * 2, 256, may_be_in_one=False).in_one, "something looks at places in a sequence"
    long = [batch(1, 2000, packed=True)] * 2
    assert not choose_layout(long, 256, may_be_in_one=True).in_one, "attention over 4,000 tokens"
    strange = [batch(1, 10, packed=False), batch(1, 500, packed=False)]
    assert choose_layout(strange, 256, may_be_in_one=True) is None, "490 tokens of nothing"
    few = [batch(1, 10, packed=False), batch(1, 50, packed=False)]
    assert choose_layout(few, 2048, may_be_in_one=True) is None
    assert choose_layout(few, 2048, may_be_in_one=True, quantized=True), (
        "40 of nothing take less than unpacking once more"
    )


@pytest.mark.parametrize(("in_one", "flat"), list(itertools.product([True, False], [True, False])))
def test_what_is_split_is_put_together_again(in_one, flat):
    layout = Layout(((2, 3), (1, 5)), in_one=in_one)
    whole = torch.randn(layout.count, layout.width, 7)
    value, block = (whole.flatten(0, 1), layout.width) if flat else (whole, 1)
    parts = layout.split(value, block)
    if not flat:
        assert [tuple(part.shape) for part in parts] == [(2, 3, 7), (1, 5, 7)]
    assert torch.equal(layout.whole(parts, value, block), value)
    assert layout.spans() == ([(0, 6), (6, 11)] if in_one else [(0, 10), (10, 15)])


def test_the_head_is_asked_once_for_all_jobs(tokenizer):  # noqa: F811
    def counted(method, **options):
        base, sizes = fresh(tokenizer), []

        def count(_, inputs):
            if inputs[0].dim() == 2 and inputs[0].requires_grad:  # hidden states at trained tokens
                sizes.append(len(inputs[0]))

        base.model.lm_head.register_forward_pre_hook(count)
        common = {"max_steps": 2, "batch_size": 8, "method": method, **options}
        base.train_many([Job(ROWS, seed=seed, **common) for seed in (1, 2, 3)])
        return len(sizes)

    assert counted("lora") == 2
    assert counted("lora", target_modules=["q_proj", "lm_head"]) == 6, "adapters at the head act on their own rows"
