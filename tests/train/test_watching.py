"""When a run stops by itself, what it then keeps, and what it says when it has gone wrong."""

import json
import math

import pytest
import torch

from adapterkit import ConfigError, TrainingError
from adapterkit.contracts import TrainOptions
from adapterkit.train.watching import Watch
from tests.train.test_training import OPTIONS, ROWS, fresh, log_of, tokenizer  # noqa: F401

WATCHED = {**OPTIONS, "eval_data": ROWS[:6], "eval_steps": 1, "epochs": 8}


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


def test_a_run_that_no_longer_improves_stops_and_keeps_the_best(tokenizer, tmp_path):  # noqa: F811
    base = fresh(tokenizer)
    adapter = base.train(ROWS, early_stopping_patience=2, output=tmp_path, **{**WATCHED, "learning_rate": 0.2})
    losses = {record["step"]: record["eval_loss"] for record in log_of(tmp_path, "eval_loss") if record["step"]}
    best = min(losses, key=losses.get)
    record = record_of(tmp_path)
    assert record["status"] == "stopped early"
    assert "2 evaluations in a row" in record["reason"]
    assert (record["best_step"], record["last_step"]) == (best, best + 2)
    assert adapter.manifest.training["steps"] == best
    assert adapter.manifest.training["eval_loss"] == losses[best]
    alone = fresh(tokenizer).train(ROWS, **{**WATCHED, "learning_rate": 0.2, "lr_scheduler_type": "linear"})
    assert adapter != alone, "the last step's adapter is another one"


def test_the_best_adapter_is_that_of_its_step(tokenizer, tmp_path):  # noqa: F811
    options = {**WATCHED, "learning_rate": 0.2, "lr_scheduler_type": "constant"}
    best = fresh(tokenizer).train(ROWS, load_best_model_at_end=True, output=tmp_path, **options)
    step = record_of(tmp_path)["best_step"]
    assert 0 < step < 24
    until = {name: value for name, value in options.items() if name not in ("eval_data", "eval_steps")}
    assert fresh(tokenizer).train(ROWS, **{**until, "max_steps": step}).digest == best.digest


def test_what_is_kept_is_the_best_however_little_it_is_better():
    """As in transformers: the threshold says how long to wait, not what to keep."""
    watch = Watch(TrainOptions(eval_steps=1, early_stopping_patience=3, early_stopping_threshold=0.1))
    for step, loss in enumerate((2.0, 1.0, 0.95, 0.91, 0.97), start=1):
        watch.see_evaluation(step, {"eval_loss": loss}, dict)
    assert (watch.kept_step, watch.best_step, watch.best) == (4, 4, 0.91)
    assert watch.stop.startswith("3 evaluations in a row")


def test_the_manifest_says_nothing_of_steps_after_the_kept_one(tokenizer, tmp_path):  # noqa: F811
    options = {**WATCHED, "learning_rate": 0.2, "early_stopping_patience": 2}
    adapter = fresh(tokenizer).train(ROWS, output=tmp_path, **options)
    losses = {record["step"]: record["loss"] for record in log_of(tmp_path)}
    best, last = (record_of(tmp_path)[name] for name in ("best_step", "last_step"))
    assert losses[best] != losses[last]
    assert adapter.manifest.training["loss"] == losses[best]


def test_a_run_that_forgets_too_much_stops_before_it_does(tokenizer, tmp_path):  # noqa: F811
    general = [{"text": "question number seven about cards and money is not what this is about"}]
    options = {**WATCHED, "learning_rate": 0.2, "general_data": general}
    free = fresh(tokenizer).train(ROWS, output=tmp_path / "free", **options)
    losses = [record["general_loss"] for record in log_of(tmp_path / "free", "general_loss")]
    rise = math.expm1(max(losses) - losses[0])
    assert rise > 0.01, "it must be able to forget"
    held = fresh(tokenizer).train(ROWS, output=tmp_path / "held", max_forgetting=rise / 2, **options)
    record = record_of(tmp_path / "held")
    assert record["status"] == "stopped early"
    assert "perplexity of general text has risen" in record["reason"]
    kept = held.manifest.training["general_loss"]
    assert math.expm1(kept - losses[0]) <= rise / 2
    assert record["best_step"] == record["last_step"] - 1
    assert held != free


def test_rows_that_give_no_number_are_named(tokenizer, tmp_path, monkeypatch):  # noqa: F811
    from adapterkit.train.forward import AdapterInTraining

    poisoned = tokenizer("poison", add_special_tokens=False)["input_ids"][0]
    forward = AdapterInTraining.forward

    def failing(self, batch):
        loss = forward(self, batch)
        bad = torch.where((batch["input_ids"] == poisoned).any(), float("nan"), 0.0)
        return loss._replace(total=loss.total + bad)

    monkeypatch.setattr(AdapterInTraining, "forward", failing)
    rows = [*ROWS, {"prompt": "poison is what this is", "completion": "no"}]
    base = fresh(tokenizer)
    with pytest.raises(TrainingError) as caught:
        base.train(rows, output=tmp_path, **OPTIONS)
    said = str(caught.value)
    assert said.startswith("step ")
    assert "These rows alone give no number: row 25" in said
    assert "poison is what this is" in said
    record = record_of(tmp_path)
    assert (record["status"], record["reason"]) == ("failed", said)
    assert base.resident == ()


def test_a_loss_that_leaves_for_good_ends_the_run():
    watch = Watch(TrainOptions())
    for step in range(1, 50):
        watch.see_step(step, 3.0 / step)
    with pytest.raises(TrainingError, match=r"training has diverged.*lower learning_rate than 0.0001"):
        any(watch.see_step(step, 4.0) for step in range(50, 80))


def test_noise_and_a_hard_start_are_no_divergence():
    watch = Watch(TrainOptions())
    noise = torch.Generator().manual_seed(0)
    for step in range(1, 500):
        watch.see_step(step, 2.0 + float(torch.rand(1, generator=noise)) + (1.5 if step % 40 == 0 else 0.0))


def test_forgetting_is_measured_without_being_asked_for_where_a_report_is_written(tokenizer, tmp_path):  # noqa: F811
    adapter = fresh(tokenizer).train(ROWS, output=tmp_path, **OPTIONS)
    steps = [record["step"] for record in log_of(tmp_path, "general_loss")]
    assert steps == [0, 6]
    assert adapter.manifest.training["general_loss"] == log_of(tmp_path, "general_loss")[-1]["general_loss"]
    assert "general_loss" not in fresh(tokenizer).train(ROWS, **OPTIONS).manifest.training


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"early_stopping_patience": 2, "eval_steps": 1}, "need held-out rows; give eval_data or eval_split"),
        ({"load_best_model_at_end": True}, "eval_steps: is required by"),
        ({"lr_scheduler_type": "cosin"}, "did you mean 'cosine'"),
        ({"lr_scheduler_kwargs": {"bend": 1.0}}, "lr_scheduler_kwargs: 'linear' says"),
        ({"general_dat": []}, "did you mean 'general_data'"),
    ],
)
def test_options_that_do_not_fit_are_refused(tokenizer, options, said):  # noqa: F811
    with pytest.raises(ConfigError, match=said):
        fresh(tokenizer).train(ROWS, **options)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("cosine_with_restarts", {"num_cycles": 2}),
        ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
        ("polynomial", {"power": 2.0}),
        ("constant_with_warmup", {}),
        ("inverse_sqrt", {}),
        ("warmup_stable_decay", {"num_decay_steps": 3}),
    ],
)
def test_every_schedule_warms_up_and_goes_its_way(tokenizer, tmp_path, name, extra):  # noqa: F811
    options = {**OPTIONS, "lr_scheduler_type": name, "lr_scheduler_kwargs": extra, "warmup_steps": 2, "epochs": 3}
    fresh(tokenizer).train(ROWS, output=tmp_path, **options)
    rates = [record["learning_rate"] for record in log_of(tmp_path)]
    assert rates[:3] == pytest.approx([0.0, 1e-2, 2e-2], rel=0.05)
    assert (rates[-1] == pytest.approx(2e-2)) == (name == "constant_with_warmup")


def test_before_the_first_step_the_base_alone_is_measured(tokenizer, tmp_path):  # noqa: F811
    """A fresh soft prompt is no fresh LoRA: it changes the base before anything is learned."""
    options = {**OPTIONS, "eval_data": ROWS[:6], "max_steps": 1}
    del options["rank"]
    found = {}
    for method, own in (("lora", {}), ("prompt_tuning", {"tokens": 8})):
        fresh(tokenizer).train(ROWS, method=method, output=tmp_path / method, **options, **own)
        found[method] = [log_of(tmp_path / method, name)[0] for name in ("eval_loss", "general_loss")]
    assert found["prompt_tuning"] == found["lora"]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_of_few_steps_learns_something(tokenizer, steps):  # noqa: F811
    options = {name: value for name, value in OPTIONS.items() if name not in ("epochs", "warmup_ratio")}
    adapter = fresh(tokenizer).train(ROWS, **options, max_steps=steps)
    assert any(bool(one.any()) for name, one in adapter.tensors.items() if "lora_B" in name)
