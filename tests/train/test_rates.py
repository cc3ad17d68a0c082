"""The test of learning rates: what it suggests, and that nothing of it stays."""

import json
import logging

import attrs
import pytest
import torch
from transformers import AutoTokenizer

from adapterkit import Base, ConfigError, Registry, TrainingError, TrainOptions, hookimpl
from adapterkit.cli import main
from adapterkit.discovery import find
from adapterkit.testing import tiny_llama
from adapterkit.train.rates import smoothed, suggested
from adapterkit_peft.catalogue import REFUSED
from tests.support import DATA, EXAMPLE_BASE, state_digest

ROWS = [{"prompt": f"question number {n}", "completion": ("yes it is", "no")[n % 2]} for n in range(8)]
QUICK = {"rank": 2, "steps": 25, "batch_size": 4}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(EXAMPLE_BASE)


def fresh(tokenizer, registry=None):
    model = tiny_llama(vocab_size=8192, max_position_embeddings=128)
    return Base(model, tokenizer=tokenizer, registry=registry)


def test_rates_grow_evenly_in_their_logarithm_and_the_loss_follows(tokenizer):
    found = fresh(tokenizer).find_learning_rate(ROWS, low=1e-4, high=1.0, **QUICK)
    assert found.rates == pytest.approx([1e-4 * 10 ** (4 * step / 24) for step in range(25)])
    assert found.losses[0] == pytest.approx(torch.tensor(8192.0).log().item(), abs=0.5)
    assert min(found.losses) < found.losses[0] - 0.3
    lowest = found.rates[found.losses.index(min(found.losses))]
    assert found.suggestion == pytest.approx(lowest / 10, rel=0.05)


def test_the_first_steps_are_those_of_a_run_at_that_rate(tokenizer, tmp_path):
    """A constant rate, nearly: the losses are those that training logs."""
    same = {"rank": 2, "batch_size": 4}
    found = fresh(tokenizer).find_learning_rate(ROWS, low=1e-3, high=1.0000001e-3, steps=10, **same)
    constant = {"learning_rate": 1e-3, "lr_scheduler_type": "constant", "logging_steps": 1, "report": False}
    fresh(tokenizer).train(ROWS, output=tmp_path, max_steps=10, **same, **constant)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert found.losses == pytest.approx(smoothed([one["loss"] for one in records if "loss" in one]), abs=1e-4)


def test_nothing_of_it_stays(tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = []

    class Listening:
        @hookimpl
        def adapterkit_train_started(self, run):
            told.append(run)

        @hookimpl
        def adapterkit_train_logged(self, record):
            told.append(record)

        @hookimpl
        def adapterkit_train_failed(self, error):
            told.append(error)

    registry = Registry()
    registry.add(Listening())
    base = fresh(tokenizer, registry)
    before, random = state_digest(base._loaded.model), torch.get_rng_state()
    requires = [one.requires_grad for one in base.model.parameters()]
    base.find_learning_rate(ROWS, **{**QUICK, "steps": 10})
    assert torch.equal(torch.get_rng_state(), random)
    assert state_digest(base.model) == before
    assert [one.requires_grad for one in base.model.parameters()] == requires
    assert (base.resident, base.active, told) == ((), None, [])
    assert list(tmp_path.iterdir()) == []
    again = {"rank": 2, "batch_size": 4, "max_steps": 3}
    assert base.train(ROWS, **again).digest == fresh(tokenizer).train(ROWS, **again).digest


def test_a_loss_that_leaves_for_good_ends_the_test_and_is_no_error(tokenizer, caplog):
    with caplog.at_level(logging.WARNING, logger="adapterkit"):
        found = fresh(tokenizer).find_learning_rate(ROWS, low=1e-4, high=1e12, **{**QUICK, "steps": 40})
    assert 10 <= len(found.rates) == len(found.losses) < 40
    assert found.suggestion < found.rates[-1] / 10


def test_rates_that_are_too_high_from_the_start_are_said(tokenizer):
    with pytest.raises(TrainingError, match=r"no learning rate from 1e\+15 on is low enough.*step \d+"):
        fresh(tokenizer).find_learning_rate(ROWS, low=1e15, high=1e18, **QUICK)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"learning_rate": 1e-3, "report_to": ("wandb",)}, ["learning_rate: the test", "report_to: the test"]),
        ({"low": 1e-2, "high": 1e-3}, ["low, high: rates must grow"]),
        ({"low": 0.0}, ["low, high: rates must grow"]),
        ({"high": float("inf")}, ["low, high: rates must grow"]),
        ({"steps": 9}, ["steps: must be at least 10, not 9"]),
        ({"ranks": 4}, ["ranks: neither"]),
    ],
)
def test_what_does_not_fit_is_said(tokenizer, options, said):
    with pytest.raises(ConfigError) as caught:
        fresh(tokenizer).find_learning_rate(ROWS, **options)
    assert [problem[: len(start)] for problem, start in zip(caught.value.problems, said, strict=True)] == said


def test_the_suggestion_is_a_tenth_of_where_the_smoothed_loss_is_lowest():
    rates = [10.0**-n for n in range(6, 0, -1)]
    assert suggested(rates, [5.0, 4.0, 3.0, 1.0, 2.0, 9.0]) == pytest.approx(1e-4)


def test_a_single_low_loss_does_not_decide():
    losses = [3.0] * 10 + [0.0] + [3.0 - step / 5 for step in range(10)]
    curve = smoothed(losses)
    assert curve[0] == 3.0
    assert curve.index(min(curve)) == len(losses) - 1


def test_the_command_prints_a_rate_and_with_json_the_curve(capsys, tmp_path):
    few = tmp_path / "few.csv"
    few.write_text("SMS,Label\nsee you,ham\nyou have won,spam\n")
    options = ["--columns.prompt", "SMS", "--columns.completion", "Label", "--rank", "2", "--steps", "10"]
    assert main(["find-rate", str(EXAMPLE_BASE), str(few), *options]) == 0
    plain = capsys.readouterr()
    assert 1e-7 <= float(plain.out) <= 0.1
    assert "the lowest smoothed loss was" in plain.err
    assert main(["find-rate", str(EXAMPLE_BASE), str(few), *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["suggestion"] == float(plain.out)
    assert [row.keys() for row in found["curve"]] == [{"learning_rate", "loss"}] * len(found["curve"])


def test_adapters_begin_with_ten_times_the_learning_rate_of_all_weights_or_more():
    general = attrs.fields(TrainOptions).learning_rate.default
    bundled = Registry([one for one in find() if one.distribution == "adapterkit"]).methods()
    refused = {f"peft:{name.lower()}" for name in REFUSED}
    rates = {one.name: one.defaults.get("learning_rate", general) for one in bundled if one.name not in refused}
    assert len(rates) > 30
    assert [name for name, rate in rates.items() if name != "full" and rate < 9.99 * rates["full"]] == []


def test_the_command_takes_no_option_that_the_test_sets(capsys):
    assert main(["find-rate", str(EXAMPLE_BASE), str(DATA / "sms_spam.tsv"), "--learning-rate", "1e-3"]) == 2
