"""Several adapters in one pass: each becomes what it would have become by itself."""

import json

import pytest
import torch

from adapterkit import ConfigError, Job, JobsFailedError
from adapterkit.testing import tiny_gpt2, tiny_llama, tiny_moe
from tests.train.test_training import OPTIONS, ROWS, fresh, tokenizer  # noqa: F401

SHORT = [{"prompt": f"n {n}", "completion": "odd" if n % 2 else "even"} for n in range(10)]
JOBS = {
    "small": Job(ROWS, name="small", **{**OPTIONS, "rank": 2, "dropout": 0.2}),
    "large": Job(SHORT, name="large", **{**OPTIONS, "rank": 8, "learning_rate": 5e-3, "batch_size": 3, "seed": 1}),
    "accumulating": Job(
        ROWS[:9], name="accumulating", **{**OPTIONS, "batch_size": 2, "gradient_accumulation_steps": 3}
    ),
    "padded": Job(ROWS, name="padded", packing=False, **{**OPTIONS, "epochs": 1}),
    "soft": Job(SHORT, method="prompt_tuning", name="soft", tokens=5, learning_rate=1e-2, epochs=3),
    "prefix": Job(SHORT, method="prefix_tuning", name="prefix", tokens=3, learning_rate=1e-2),
    "whole": Job(SHORT, method="full", name="whole", learning_rate=1e-3),
    "head": Job(ROWS[:8], name="head", rank=2, target_modules=["lm_head", "q_proj"], learning_rate=1e-2),
}


def solo(tokenizer, family, job):  # noqa: F811
    return fresh(tokenizer, family).train(job.data, method=job.method, **job.options)


def gradients(monkeypatch):
    """What each run's optimizer is given at its first step, by the run's name."""
    from adapterkit.train.training import Training

    seen, update = {}, Training.update

    def watched(self):
        mine = seen.setdefault(self.run.name, {})
        if not mine:
            mine.update(
                {name: one.grad.clone() for name, one in self.module.named_parameters() if one.grad is not None}
            )
        update(self)

    monkeypatch.setattr(Training, "update", watched)
    return seen


@pytest.mark.parametrize("family", [tiny_llama, tiny_gpt2])
def test_each_job_becomes_what_it_would_have_become_alone(tokenizer, family, monkeypatch):  # noqa: F811
    jobs = [job for name, job in JOBS.items() if (name, family) != ("head", tiny_gpt2)]  # its head is its embedding
    seen = gradients(monkeypatch)
    many = fresh(tokenizer, family).train_many(jobs)
    together = dict(seen)
    for job, adapter in zip(jobs, many, strict=True):
        seen.clear()
        alone = solo(tokenizer, family, job)
        for name, expected in seen[""].items():
            size = float(expected.abs().max()) or 1.0
            assert float((together[job.name][name] - expected).abs().max()) <= 1e-5 * size, (job.name, name)
        assert adapter.tensors.keys() == alone.tensors.keys()
        for name, tensor in alone.tensors.items():
            assert torch.allclose(adapter.tensors[name], tensor, atol=2e-4), (job.name, name)


def test_the_base_is_asked_once_for_all_jobs(tokenizer):  # noqa: F811
    base = fresh(tokenizer)
    sizes = []
    base.model.model.layers[0].register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    options = {**OPTIONS, "epochs": 1, "packing": False}
    base.train_many([Job(ROWS, **options), Job(ROWS, **options, seed=3)])
    assert sizes == [16, 16, 16]


def test_a_job_that_ends_leaves_the_others_to_go_on(tokenizer):  # noqa: F811
    base = fresh(tokenizer)
    short, long = base.train_many([Job(ROWS, max_steps=1, **OPTIONS), Job(ROWS, max_steps=7, **OPTIONS)])
    assert (short.manifest.training["steps"], long.manifest.training["steps"]) == (1, 7)
    assert short == fresh(tokenizer).train(ROWS, max_steps=1, **OPTIONS) or short.parameters == long.parameters


def test_one_job_that_fails_harms_no_other(tokenizer, tmp_path):  # noqa: F811
    base = fresh(tokenizer)
    with pytest.raises(JobsFailedError, match="wild: step") as caught:
        base.train_many(
            [Job(ROWS, name="wild", **{**OPTIONS, "learning_rate": 1e18}), Job(ROWS, name="calm", **OPTIONS)],
            output=tmp_path,
        )
    failed, calm = caught.value.adapters
    assert failed is None
    alone = fresh(tokenizer).train(ROWS, **OPTIONS)
    assert all(torch.allclose(calm.tensors[name], alone.tensors[name], atol=2e-4) for name in alone.tensors)
    assert base.resident == (calm,)
    assert base.load(tmp_path / "calm" / "adapter") == calm
    records = {name: json.loads((tmp_path / name / "run.json").read_text()) for name in ("wild", "calm")}
    assert (records["wild"]["status"], records["calm"]["status"]) == ("failed", "finished")


def test_experts_train_together_too(tokenizer):  # noqa: F811
    jobs = [Job(ROWS[:6], max_steps=2, seed=seed, **{**OPTIONS, "rank": 2}) for seed in (1, 2)]
    many = fresh(tokenizer, tiny_moe).train_many(jobs)
    for job, adapter in zip(jobs, many, strict=True):
        alone = solo(tokenizer, tiny_moe, job)
        assert all(torch.allclose(adapter.tensors[name], alone.tensors[name], atol=2e-4) for name in alone.tensors)


def test_recomputed_activations_draw_the_same_dropout(tokenizer):  # noqa: F811
    jobs = [Job(ROWS, gradient_checkpointing=True, **{**OPTIONS, "dropout": 0.3, "seed": seed}) for seed in (1, 2)]
    many = fresh(tokenizer).train_many(jobs)
    for job, adapter in zip(jobs, many, strict=True):
        alone = solo(tokenizer, tiny_llama, job)
        assert all(torch.allclose(adapter.tensors[name], alone.tensors[name], atol=2e-4) for name in alone.tensors)


def test_norms_of_each_head_have_all_heads_where_a_job_has_few_tokens(tokenizer, monkeypatch):  # noqa: F811
    """Gemma 3 norms ``(batch, heads, tokens, size)``: what is cut to a job's width there must not be heads."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    def family(vocab_size, max_position_embeddings):
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
        heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "query_pre_attn_scalar": 8}
        named = {"vocab_size": vocab_size, "max_position_embeddings": max_position_embeddings}
        return Gemma3ForCausalLM(Gemma3TextConfig(**sizes, **heads, **named, pad_token_id=0)).eval()

    seen = gradients(monkeypatch)
    options = {"max_steps": 1, "batch_size": 2, "packing": False}
    few = Job([{"text": "hi there"}] * 4, method="full", name="few", **options)
    fresh(tokenizer, family).train_many([few, Job(ROWS, name="many", rank=2, **options)])
    together = dict(seen["few"])
    solo(tokenizer, family, few)
    norms = [name for name in seen[""] if "q_norm" in name]
    assert norms
    for name in norms:
        assert torch.allclose(together[name], seen[""][name], rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ([], "there is no job"),
        ([{"data": ROWS}], "is no Job"),
        ([Job(ROWS, name="a"), Job(ROWS, name="a")], "two jobs have this name"),
        ([Job(ROWS, name="../a")], "may hold no separator"),
        ([Job(ROWS, bf16=True), Job(ROWS)], "bf16: must be the same for all"),
        ([Job(ROWS, ranc=3)], "did you mean 'rank'"),
    ],
)
def test_jobs_that_do_not_fit_are_refused_before_anything_is_trained(tokenizer, jobs, said):  # noqa: F811
    base = fresh(tokenizer)
    with pytest.raises(ConfigError, match=said):
        base.train_many(jobs)
    assert base.resident == ()
