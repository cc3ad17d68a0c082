"""A search for settings: who goes on, what the winner is, and what is said of the others."""

import json

import pytest
import torch

from adapterkit import ConfigError, TrainingError
from tests.train.test_training import OPTIONS, ROWS, fresh, tokenizer  # noqa: F401

COMMON = {name: value for name, value in OPTIONS.items() if name not in ("rank", "learning_rate")}
GRID = {"learning_rate": [1e-6, 2e-2], "rank": [2, 4]}


def test_the_better_half_goes_on_and_the_winner_is_what_train_would_have_made(tokenizer, tmp_path):  # noqa: F811
    base = fresh(tokenizer)
    options = {**COMMON, "epochs": 4, "eval_data": ROWS[:6]}
    found = base.sweep(ROWS, GRID, min_steps=2, output=tmp_path, **options)
    assert [trial.options["learning_rate"] for trial in found.trials[:2]] == [2e-2, 2e-2], (
        "a rate of 1e-6 learns nothing"
    )
    assert [trial.steps for trial in found.trials] == [12, 6, 3, 3]
    assert [trial.ended for trial in found.trials] == ["finished", "given up", "given up", "given up"]
    assert sorted(found.trials[0].losses) == [3, 6, 12]
    alone = fresh(tokenizer).train(ROWS, **options, **found.best_options)
    assert all(torch.allclose(found.best.tensors[name], alone.tensors[name], atol=2e-4) for name in alone.tensors)
    assert base.resident == (found.best,)
    records = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/run.json")}
    assert len(records) == 4
    assert sorted(record["status"] for record in records.values()) == ["finished", *["stopped early"] * 3]
    assert json.loads(json.dumps(found.to_json()))["best"] == dict(found.best_options)


def test_rows_are_read_once_for_all(tokenizer, monkeypatch):  # noqa: F811
    from adapterkit.train import preparing

    read, load = [], preparing.load_training_data
    monkeypatch.setattr(
        preparing, "load_training_data", lambda *given, **named: read.append(1) or load(*given, **named)
    )
    fresh(tokenizer).sweep(iter(ROWS), GRID, min_steps=1, eval_split=0.25, **COMMON)
    assert len(read) == 1


def test_a_configuration_that_fails_is_out_and_said(tokenizer):  # noqa: F811
    found = fresh(tokenizer).sweep(ROWS, {"learning_rate": [1e18, 1e-2]}, eval_split=6, min_steps=1, rank=2, **COMMON)
    assert found.best_options == {"learning_rate": 1e-2}
    assert "the loss is" in found.trials[-1].ended
    with pytest.raises(TrainingError, match="every configuration failed"):
        fresh(tokenizer).sweep(ROWS, {"learning_rate": [1e18, 1e17]}, eval_split=6, rank=2, **COMMON)


def test_taking_turns_changes_nothing(tokenizer):  # noqa: F811
    options = {**COMMON, "eval_split": 6, "min_steps": 1}
    together = fresh(tokenizer).sweep(ROWS, GRID, **options)
    in_turn = fresh(tokenizer).sweep(ROWS, GRID, at_once=1, **options)
    assert in_turn.best_options == together.best_options
    assert [one.steps for one in in_turn.trials] == [one.steps for one in together.trials]


def test_a_sample_of_the_grid_is_that_of_its_seed(tokenizer):  # noqa: F811
    options = {**COMMON, "eval_split": 6, "max_steps": 1, "samples": 2}
    first = [fresh(tokenizer).sweep(ROWS, GRID, **options) for _ in range(2)]
    assert len(first[0].trials) == 2
    assert first[0].to_json() == first[1].to_json()


@pytest.mark.parametrize(
    ("grid", "options", "said"),
    [
        (GRID, {}, "held-out rows decide who goes on: give eval_data or eval_split"),
        ({}, {"eval_split": 6}, "give a list of values for each option"),
        ({"rank": 4}, {"eval_split": 6}, "give a list of values for each option"),
        ({"rank": [4]}, {"eval_split": 6, "rank": 2}, "rank: is given beside the grid too"),
        ({"ranc": [4]}, {"eval_split": 6}, "did you mean 'rank'"),
        ({"bf16": [True, False]}, {"eval_split": 6}, "bf16: must be the same for all"),
        (GRID, {"eval_split": 6, "eta": 1}, "eta: must be >= 2"),
        (GRID, {"eval_split": 6, "resume": True}, "resume: a search begins anew"),
    ],
)
def test_a_search_that_does_not_fit_is_refused(tokenizer, grid, options, said):  # noqa: F811
    base = fresh(tokenizer)
    with pytest.raises(ConfigError, match=said):
        base.sweep(ROWS, grid, **COMMON, **options)
    assert base.resident == ()
