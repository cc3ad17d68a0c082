"""Training: what is learnt, what is left alone, and that the loss is what it says."""

import json
import logging
import threading

import pytest
import torch
from torch.nn import functional
from transformers import AutoTokenizer

from adapterkit import ArtifactError, Base, ConfigError, DataError, Registry, TrainingError, hookimpl
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.support import EXAMPLE_BASE, make_adapter, state_digest

ROWS = [
    {"prompt": f"question number {n} about {'cards and money ' * (n % 4)}", "completion": ("yes it is", "no")[n % 2]}
    for n in range(24)
]
OPTIONS = {"rank": 4, "learning_rate": 2e-2, "batch_size": 8, "logging_steps": 1, "epochs": 2, "warmup_ratio": 0.0}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(EXAMPLE_BASE)


def fresh(tokenizer, family=tiny_llama, **options):
    return Base(
        family(vocab_size=8192, **({"n_positions": 128} if family is tiny_gpt2 else {"max_position_embeddings": 128})),
        tokenizer=tokenizer,
        **options,
    )


def log_of(folder, of="loss"):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record for record in records if of in record]


def close(one, other, tolerance=1e-5):
    assert one.tensors.keys() == other.tensors.keys()
    return all(torch.allclose(one.tensors[name], other.tensors[name], atol=tolerance, rtol=0) for name in one.tensors)


@pytest.mark.parametrize("family", [tiny_llama, tiny_gpt2])
def test_training_lowers_the_loss_and_leaves_every_bit_of_the_base(tokenizer, family, tmp_path):
    base = fresh(tokenizer, family)
    before = state_digest(base._loaded.model)
    requires = [p.requires_grad for p in base.model.parameters()]
    adapter = base.train(ROWS, output=tmp_path, **OPTIONS)
    losses = [record["loss"] for record in log_of(tmp_path)]
    assert len(losses) == 6
    assert losses[-1] < losses[0] - 0.3
    assert state_digest(base.model) == before
    assert [p.requires_grad for p in base.model.parameters()] == requires
    assert base.active is None
    assert base.load(tmp_path / "adapter") == adapter
    assert all(tensor.dtype == torch.float32 for tensor in adapter.tensors.values())


def test_the_loss_is_the_mean_over_the_completions_tokens_and_no_others(tokenizer, tmp_path):
    base = fresh(tokenizer)
    base.train(ROWS[:5], output=tmp_path, **{**OPTIONS, "batch_size": 5, "max_steps": 1})
    total, count = 0.0, 0
    for row in ROWS[:5]:  # every row alone, all logits, transformers' own template
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
        start = len(
            tokenizer.apply_chat_template(turns[:1], tokenize=True, add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
        )
        ids = tokenizer(whole.rstrip("\n"), return_tensors="pt", add_special_tokens=False).input_ids
        logits = base.logits(ids)[0, start - 1 : -1]
        total += float(functional.cross_entropy(logits, ids[0, start:], reduction="sum"))
        count += len(ids[0]) - start
    assert log_of(tmp_path)[0]["loss"] == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize(("size", "passes"), [(2, 4), (1, 8)])
def test_accumulating_small_batches_is_the_same_as_one_large_batch(tokenizer, size, passes):
    options = {**OPTIONS, "group_by_length": False}
    large = fresh(tokenizer).train(ROWS, **options)
    small = fresh(tokenizer).train(ROWS, **{**options, "batch_size": size, "gradient_accumulation_steps": passes})
    assert close(large, small)


def test_recomputing_activations_changes_nothing_but_memory(tokenizer):
    plain = fresh(tokenizer).train(ROWS, **OPTIONS)
    base = fresh(tokenizer)
    recomputed = base.train(ROWS, gradient_checkpointing=True, **OPTIONS)
    assert close(plain, recomputed)
    assert not any(module.training for module in base.model.modules())
    assert not any(getattr(module, "gradient_checkpointing", False) for module in base.model.modules())
    assert len(base.model.get_input_embeddings()._forward_hooks) == 1, "only our own hook is left"


def test_recomputing_does_recompute(tokenizer):
    base = fresh(tokenizer)
    calls = []
    handle = base.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    base.train(ROWS, gradient_checkpointing=True, packing=False, **{**OPTIONS, "max_steps": 1})
    handle.remove()
    assert len(calls) == 2


def test_the_seed_governs_everything_and_nothing_outside(tokenizer):
    options = {**OPTIONS, "dropout": 0.3}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fresh(tokenizer).train(ROWS, **options)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert fresh(tokenizer).train(ROWS, **options).digest == first.digest
    assert fresh(tokenizer).train(ROWS, seed=1, **options).digest != first.digest


def test_the_adapter_in_use_takes_no_part_in_training(tokenizer):
    base = fresh(tokenizer)
    alone = base.train(ROWS, **OPTIONS)
    base.use(make_adapter(base, rank=4))
    assert base.train(ROWS, **OPTIONS).digest == alone.digest
    assert base.active is not None


def test_dropout_of_the_base_sleeps_while_its_adapter_trains(tokenizer):
    with_dropout = fresh(
        tokenizer, lambda **options: tiny_gpt2(resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5, **options)
    )
    without = fresh(tokenizer, lambda **options: tiny_gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **options))
    options = {**OPTIONS, "gradient_checkpointing": True}
    assert close(with_dropout.train(ROWS, **options), without.train(ROWS, **options), 0.0)


def test_a_small_learning_rate_still_moves_an_adapter_of_a_bfloat16_base(tokenizer):
    base = Base(tiny_llama(vocab_size=8192, max_position_embeddings=128).to(torch.bfloat16), tokenizer=tokenizer)
    start = base.train(ROWS, **{**OPTIONS, "max_steps": 1, "learning_rate": 1e-12})
    moved = base.train(ROWS, **{**OPTIONS, "learning_rate": 2e-5})
    for name, tensor in moved.tensors.items():
        assert tensor.dtype == torch.float32
        assert (tensor != start.tensors[name]).float().mean() > 0.9, name


def test_bf16_computes_in_bfloat16_and_keeps_the_adapter_in_float32(tokenizer, tmp_path):
    adapter = fresh(tokenizer).train(ROWS, bf16=True, output=tmp_path, **OPTIONS)
    assert all(tensor.dtype == torch.float32 for tensor in adapter.tensors.values())
    losses = [record["loss"] for record in log_of(tmp_path)]
    assert losses[-1] < losses[0] - 0.3


def test_a_run_that_diverges_stops_with_its_step_and_harms_nothing(tokenizer):
    base = fresh(tokenizer)
    kept = make_adapter(base, rank=2)
    base.use(kept)
    before, resident = state_digest(base.model), base.resident
    with pytest.raises(TrainingError, match=r"step \d+: the loss is"):
        base.train(ROWS, **{**OPTIONS, "learning_rate": 1e30, "epochs": 8})
    assert state_digest(base.model) == before
    assert base.resident == resident
    assert base.active == kept


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("linear", [1, 0.75, 0.5, 0.25]), ("constant", [1, 1, 1, 1]), ("cosine", [1, 0.85, 0.5, 0.15])],
)
def test_the_learning_rate_follows_its_schedule(tokenizer, tmp_path, schedule, rates):
    fresh(tokenizer).train(ROWS, output=tmp_path, **{**OPTIONS, "max_steps": 4, "lr_scheduler_type": schedule})
    got = [record["learning_rate"] / 2e-2 for record in log_of(tmp_path)]
    assert got == pytest.approx(rates, abs=0.01)


def test_warming_up_starts_low(tokenizer, tmp_path):
    fresh(tokenizer).train(ROWS, output=tmp_path, **{**OPTIONS, "max_steps": 4, "warmup_ratio": 0.5})
    assert [record["learning_rate"] / 2e-2 for record in log_of(tmp_path)] == pytest.approx([0, 0.5, 1, 0.5])


def test_held_out_rows_are_evaluated_on_the_way(tokenizer, tmp_path):
    adapter = fresh(tokenizer).train(ROWS, eval_data=ROWS[:4], eval_steps=2, output=tmp_path, **OPTIONS)
    evaluated = [(record["step"], record["eval_loss"]) for record in log_of(tmp_path, "eval_loss")]
    assert [step for step, _ in evaluated] == [0, 2, 4, 6]
    assert evaluated[-1][1] < evaluated[0][1]
    assert adapter.manifest.training["eval_loss"] == evaluated[-1][1]


def test_evaluating_on_the_way_changes_nothing(tokenizer):
    plain = fresh(tokenizer).train(ROWS, dropout=0.2, **OPTIONS)
    watched = fresh(tokenizer).train(ROWS, dropout=0.2, eval_data=ROWS[:4], eval_steps=1, **OPTIONS)
    assert watched.digest == plain.digest


def test_decay_shrinks_and_clipping_limits(tokenizer, tmp_path):
    plain = fresh(tokenizer).train(ROWS, **OPTIONS)
    decayed = fresh(tokenizer).train(ROWS, weight_decay=5.0, **OPTIONS)
    norm = {
        name: sum(float(t.norm()) for t in one.tensors.values())
        for name, one in (("plain", plain), ("decayed", decayed))
    }
    assert norm["decayed"] < 0.9 * norm["plain"]
    fresh(tokenizer).train(ROWS, output=tmp_path, max_grad_norm=1e-9, **OPTIONS)
    assert log_of(tmp_path)[0]["grad_norm"] > 1e-3, "what is logged is the norm before it is clipped"


def test_unknown_and_unfit_options_are_said_together(tokenizer):
    with pytest.raises(ConfigError) as caught:
        fresh(tokenizer).train(ROWS, rnak=8, epochs=0, alpha="big", methd="lora")
    text = str(caught.value)
    assert "rnak: neither method 'lora' nor training has it; did you mean 'rank'?" in text
    assert "epochs" in text
    assert "alpha" in text
    with pytest.raises(ConfigError, match="data: is required"):
        fresh(tokenizer).train()


def test_no_rows_and_useless_rows_are_errors(tokenizer):
    with pytest.raises(DataError):
        fresh(tokenizer).train([])
    with pytest.raises(DataError, match="question"):
        fresh(tokenizer).train([{"question": "a", "reply": "b"}])


def test_rows_that_were_cut_or_left_out_are_reported(tokenizer, caplog):
    rows = [*ROWS, {"prompt": "long " * 60, "completion": "yes"}]
    with caplog.at_level(logging.WARNING, logger="adapterkit"):
        adapter = fresh(tokenizer).train(rows, max_length=40, **{**OPTIONS, "max_steps": 1})
    assert "1 of 25 rows were cut to max_length" in caplog.text
    assert adapter.manifest.training["data"]["truncated_rows"] == 1


def test_listeners_hear_of_the_run(tokenizer):
    heard = []

    class Listener:
        @hookimpl
        def adapterkit_train_started(self, run):
            heard.append(("started", run.method, run.steps))

        @hookimpl
        def adapterkit_train_logged(self, record):
            heard.append(("logged", record["step"]))

        @hookimpl
        def adapterkit_train_finished(self, run, adapter):
            heard.append(("finished", adapter.method, run.steps))

    registry = Registry()
    registry.add(Listener())
    fresh(tokenizer, registry=registry).train(ROWS, **{**OPTIONS, "max_steps": 2})
    assert heard == [("started", "lora", 2), ("logged", 1), ("logged", 2), ("finished", "lora", 2)]


def test_an_output_that_is_a_file_is_refused_before_any_work(tokenizer, tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(TrainingError, match="is a file"):
        fresh(tokenizer).train(ROWS, output=tmp_path / "taken", **OPTIONS)
    assert (tmp_path / "taken").read_text() == "mine"


def test_answers_and_evaluations_beside_a_training_run_are_undisturbed(tokenizer):
    base = fresh(tokenizer)
    ids = torch.randint(1, 8000, (2, 9))
    expected, wrong = base.logits(ids), []
    done = threading.Event()

    def ask():
        while not done.is_set():
            if not torch.equal(base.logits(ids), expected):
                wrong.append("logits")
            base.evaluate(ROWS[:3], adapter=None, max_new_tokens=2)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        busy = base.train(ROWS, **OPTIONS)
    finally:
        done.set()
        asking.join()
    assert wrong == []
    assert busy.digest == fresh(tokenizer).train(ROWS, **OPTIONS).digest


def test_two_runs_at_once_are_those_of_each_alone(tokenizer):
    base, made = fresh(tokenizer), {}

    def run(seed):
        made[seed] = base.train(ROWS, seed=seed, dropout=0.2, **{**OPTIONS, "max_steps": 2})

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, adapter in made.items():
        alone = fresh(tokenizer).train(ROWS, seed=seed, dropout=0.2, **{**OPTIONS, "max_steps": 2})
        assert adapter.digest == alone.digest


def test_a_run_that_cannot_start_leaves_the_folder_as_it_was(tokenizer, tmp_path):
    base = fresh(tokenizer)
    (tmp_path / "log.jsonl").write_text("of an earlier run")
    with pytest.raises(DataError):
        base.train([{"question": "a", "reply": "b"}], output=tmp_path, **OPTIONS)
    assert (tmp_path / "log.jsonl").read_text() == "of an earlier run"
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "thesis.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="no adapter"):
        base.train(ROWS, output=tmp_path, **OPTIONS)
    assert (tmp_path / "adapter" / "thesis.txt").read_text() == "mine"
    assert (tmp_path / "log.jsonl").read_text() == "of an earlier run"


def test_a_tokenizer_of_another_base_is_found_out(tokenizer):
    with pytest.raises(DataError, match="another base's tokenizer"):
        Base(tiny_llama(), tokenizer=tokenizer).train(ROWS, **OPTIONS)


def test_training_works_where_gradients_are_off(tokenizer):
    with torch.no_grad():
        adapter = fresh(tokenizer).train(ROWS, **OPTIONS)
    assert adapter.digest == fresh(tokenizer).train(ROWS, **OPTIONS).digest


@pytest.mark.parametrize("options", [{"seed": 2**70}, {"epochs": float("inf")}, {"batch_size": 0}, {"adam_beta2": 1.0}])
def test_options_out_of_bounds_are_config_errors(tokenizer, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        fresh(tokenizer).train(ROWS, **options)


def test_a_tensor_that_is_changed_after_loading_changes_no_answer(tokenizer):
    base = fresh(tokenizer)
    adapter = make_adapter(base, rank=2)
    ids = torch.randint(1, 8000, (1, 5))
    before = base.logits(ids, adapter=adapter)
    for tensor in adapter.tensors.values():
        tensor.zero_()
    assert torch.equal(base.logits(ids, adapter=adapter), before)


def test_names_that_peft_and_transformers_use_lead_to_ours(tokenizer):
    with pytest.raises(ConfigError) as caught:
        fresh(tokenizer).train(ROWS, r=8, lr=1e-3)
    assert "r: neither method 'lora' nor training has it; did you mean 'rank'?" in str(caught.value)
    assert "lr: neither method 'lora' nor training has it; did you mean 'learning_rate'?" in str(caught.value)


def test_an_option_that_nothing_is_near_to_gets_the_list_of_the_methods_own_once(tokenizer):
    with pytest.raises(ConfigError) as caught:
        fresh(tokenizer).train(ROWS, method="full", rank=8, num_virtual_tokens=3, lr=1e-3)
    assert caught.value.problems == (
        "rank: neither method 'full' nor training has it; the method has: exclude_modules, target_modules",
        "num_virtual_tokens: neither method 'full' nor training has it",
        "lr: neither method 'full' nor training has it; did you mean 'learning_rate'?",
    )
    with pytest.raises(ConfigError, match=r"num_virtual_tokens: .*did you mean 'tokens'"):
        fresh(tokenizer).train(ROWS, method="prompt_tuning", num_virtual_tokens=3)


def test_columns_that_are_no_mapping_are_a_data_error(tokenizer):
    with pytest.raises(DataError, match="columns= maps fields to columns"):
        fresh(tokenizer).train(ROWS, columns=["prompt", "completion"], **OPTIONS)


def test_a_runs_folder_leads_to_the_adapter_in_it(tokenizer, tmp_path):
    base = fresh(tokenizer)
    base.train(ROWS, output=tmp_path, **{**OPTIONS, "max_steps": 1})
    with pytest.raises(ArtifactError, match=r"did you mean '.*adapter'\?"):
        base.load(tmp_path)
