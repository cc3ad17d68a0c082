"""Evaluation: the figures are those that a hand computes, and the base stands beside."""

import functools
import json
import math

import attrs
import pytest
import torch
from torch.nn import functional

from adapterkit import (
    ConfigError,
    Conversation,
    DataError,
    Example,
    Loss,
    Message,
    Metric,
    PluginError,
    Registry,
    SelectionError,
    Text,
    UnknownNameError,
    hookimpl,
)
from adapterkit.contracts import Preference
from adapterkit.data.batching import collate
from adapterkit.evaluation.asking import asked
from adapterkit.evaluation.losses import mean_loss, passes
from adapterkit.evaluation.unseen import say_unseen, unseen_labels
from tests.evaluation.conftest import ROWS


def loss_by_hand(base, adapter):
    """Row by row, without padding, with transformers' own template."""
    total, count = 0.0, 0
    for row in ROWS:
        turns = [{"role": "user", "content": row["prompt"]}]
        prompt = base.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        start = len(base.tokenizer(prompt, add_special_tokens=False).input_ids)
        text = prompt + row["completion"] + "<|im_end|>"
        ids = base.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        logits = base.logits(ids, adapter=adapter)[0, start - 1 : -1]
        total += float(functional.cross_entropy(logits, ids[0, start:], reduction="sum"))
        count += ids.shape[1] - start
    return total / count


def test_loss_and_perplexity_are_those_of_a_hand(base, adapter):
    result = base.evaluate(ROWS, adapter=adapter)
    assert result["loss"] == pytest.approx(loss_by_hand(base, adapter), abs=1e-4)
    assert result.base["loss"] == pytest.approx(loss_by_hand(base, None), abs=1e-4)
    assert result["loss"] != pytest.approx(result.base["loss"], abs=1e-2), "the adapter does nothing: the test is blind"
    assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))
    assert result.rows == len(ROWS)


def test_accuracy_is_the_part_of_answers_that_are_right(base):
    answers = base.generate([row["prompt"] for row in ROWS], max_new_tokens=6)
    rows = [{**row, "completion": answer} for row, answer in zip(ROWS, answers, strict=True)]
    rows[1] = {**rows[1], "completion": "something else entirely"}
    result = base.evaluate(rows, max_new_tokens=6)
    assert result["accuracy"] == 0.75
    assert list(result.predictions) == answers


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_do_not_matter(base, adapter, batch_size):
    whole, parts = base.evaluate(ROWS, adapter=adapter), base.evaluate(ROWS, adapter=adapter, batch_size=batch_size)
    assert parts["loss"] == pytest.approx(whole["loss"], abs=1e-5)
    assert parts.predictions == whole.predictions


def test_the_base_stands_beside_unless_it_is_not_wanted(base, adapter):
    beside = base.evaluate(ROWS, adapter=adapter)
    alone = base.evaluate(ROWS)
    assert dict(beside.base) == dict(alone)
    answers = [base.generate([row["prompt"] for row in ROWS], adapter=one, max_new_tokens=8) for one in (adapter, None)]
    assert answers[0] != answers[1], "the adapter changes no answer: the test is blind"
    assert [list(base.evaluate(ROWS, adapter=one, max_new_tokens=8).predictions) for one in (adapter, None)] == answers
    assert alone.base is None
    assert base.evaluate(ROWS, adapter=adapter, compare=False).base is None


def test_the_adapter_in_use_is_the_one_that_is_scored(base, adapter):
    want = dict(base.evaluate(ROWS, adapter=adapter, compare=False))
    with base.using(adapter):
        assert dict(base.evaluate(ROWS, compare=False)) == want
        assert base.evaluate(ROWS).base is not None
        assert dict(base.evaluate(ROWS, adapter=None)) == dict(base.evaluate(ROWS, adapter=adapter).base)
    base.use(adapter)
    try:
        assert dict(base.evaluate(ROWS, compare=False)) == want
    finally:
        base.use(None)


def test_evaluating_leaves_the_base_as_it_is(base, adapter):
    ids = torch.tensor([[5, 6, 7]])
    before, state = base.logits(ids), torch.get_rng_state()
    base.evaluate(ROWS, adapter=adapter)
    assert torch.equal(base.logits(ids), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert base.active is None


@pytest.mark.parametrize("wrong", ["cards", 3, [None, None], {"a": 1}])
def test_what_is_no_single_adapter_is_refused(base, wrong):
    with pytest.raises(SelectionError, match="evaluate takes one adapter, a Stack, a Blend or None"):
        base.evaluate(ROWS, adapter=wrong)


def test_a_selection_for_rows_in_use_is_no_single_adapter(base, adapter):
    with base.using([adapter, None]), pytest.raises(SelectionError, match="evaluate takes one adapter"):
        base.evaluate(ROWS)


def test_unfit_options_and_rows_are_refused(base):
    with pytest.raises(ConfigError, match="max_new_token: no such option; did you mean 'max_new_tokens'"):
        base.evaluate(ROWS, max_new_token=3)
    with pytest.raises(DataError):
        base.evaluate([])


def test_raw_text_is_scored_by_its_loss_alone(base):
    scores = base.evaluate([{"text": "a first text"}, {"text": "and another one"}], adapter=None)
    assert set(scores) == {"loss", "perplexity"}
    assert scores.rows == 2
    assert not scores.predictions


# -- what an evaluation holds -----------------------------------------------------------------------------------------


def test_losses_of_rows_add_up_to_the_loss(base, adapter):
    result = base.evaluate(ROWS, adapter=adapter)
    assert sum(result.losses) / sum(result.tokens) == pytest.approx(result["loss"])
    alone = base.evaluate([ROWS[3]], adapter=adapter)
    assert alone.losses == pytest.approx([result.losses[3]], abs=1e-4)
    assert alone.tokens == [result.tokens[3]]


def test_every_score_has_an_interval_that_holds_it(base, adapter):
    result = base.evaluate(ROWS, adapter=adapter, max_new_tokens=4)
    assert result.intervals.keys() == {name for name in result if name != "f1" or 0 < result["f1"] < 1}
    for one in (result, result.base):
        assert all(low <= one[name] <= high for name, (low, high) in one.intervals.items())
    assert result.base_intervals == result.base.intervals
    assert math.log(result.intervals["perplexity"][0]) == pytest.approx(result.intervals["loss"][0])
    again = base.evaluate(ROWS, adapter=adapter, max_new_tokens=4)
    assert again.intervals == result.intervals
    assert base.evaluate(ROWS, adapter=adapter, seed=1).intervals["loss"] != result.intervals["loss"]
    narrow = base.evaluate(ROWS, adapter=adapter, confidence=0.5).intervals["loss"]
    assert narrow[1] - narrow[0] < result.intervals["loss"][1] - result.intervals["loss"][0]


@pytest.mark.parametrize(("rows", "options"), [(ROWS, {"resamples": 0}), (ROWS[:1], {})])
def test_no_interval_where_there_can_be_none(base, rows, options):
    assert base.evaluate(rows, max_new_tokens=2, **options).intervals == {}


def test_all_of_it_is_json(base, adapter):
    result = base.evaluate(ROWS, adapter=adapter, max_new_tokens=4)
    said = json.loads(json.dumps(result.to_json(answers=True), allow_nan=False))
    assert said["scores"] == dict(result)
    assert said["base"] == dict(result.base)
    assert [tuple(one) for one in said["base_intervals"].values()] == list(result.base.intervals.values())
    assert [one["expected"] for one in said["answers"]] == [row["completion"] for row in ROWS]
    assert [one["answer"] for one in said["answers"]] == list(result.predictions)
    assert sum(one["base_loss"] for one in said["answers"]) == pytest.approx(sum(result.base.losses))
    assert "answers" not in result.to_json()
    assert attrs.evolve(result, scores={"loss": math.inf}).to_json()["scores"] == {"loss": None}


def test_examples_show_first_where_the_adapter_answers_otherwise(base, adapter):
    result = base.evaluate(ROWS, adapter=adapter, max_new_tokens=4)
    alone = list(result.base.predictions)
    mixed = attrs.evolve(result, predictions=[alone[0], "new", alone[2], "newer"])
    assert [one["adapter"] for one in mixed.examples(3)] == ["new", "newer", alone[0]]
    assert mixed.examples(1) == [
        {"prompt": ROWS[1]["prompt"], "expected": "no", "adapter": "new", "base": alone[1]},
    ]


def test_passes_keep_to_their_limits():
    assert list(passes([5, 1, 3, 2, 9], batch_size=2)) == [[1, 3], [2, 0], [4]]
    assert list(passes([5, 1, 3, 2, 9], batch_size=9, most_tokens=6)) == [[1, 3, 2], [0], [4]]
    seen = []

    def loss(batch):
        seen.append(tuple(batch["input_ids"].shape))
        return Loss(torch.tensor(6.0 if len(seen) == 1 else 3.0), torch.tensor(2.0))

    pair = [Example((1, 2, 3), (-100, 2, 3)), Example((4, 5), (-100, 5))]
    assert mean_loss(loss, pair, 8, functools.partial(collate, pad_id=0), most_tokens=4) == 9 / 4
    assert seen == [(1, 2), (1, 3)]


def test_a_limit_of_tokens_changes_no_loss(base, adapter):
    whole = base.evaluate(ROWS, adapter=adapter, max_new_tokens=2)
    parts = base.evaluate(ROWS, adapter=adapter, max_new_tokens=2, tokens_per_pass=1)
    assert parts.losses == pytest.approx(whole.losses, abs=1e-4)


# -- metrics ----------------------------------------------------------------------------------------------------------


def never(_):
    return False


class Plugin:
    """Metrics of the tests: of rows, of all, and ones that fail."""

    @hookimpl
    def adapterkit_metrics(self):
        yield Metric(
            name="longer", per_row=lambda got, want: [float(len(a) > len(b)) for a, b in zip(got, want, strict=True)]
        )
        yield Metric(name="spread", compute=lambda got, want: {"spread": max(map(len, got)) / len(got[0])})
        yield Metric(name="never", per_row=lambda got, want: [math.nan] * len(got), applies=never)
        yield Metric(name="broken", compute=lambda got, want: {"broken": 1 / 0}, applies=never)
        yield Metric(name="short", per_row=lambda got, want: [1.0], applies=never)
        yield Metric(name="wild", compute=lambda got, want: {"wild": math.inf}, applies=never)
        yield Metric(name="double", compute=lambda got, want: {"accuracy": 0.0}, applies=never)


@pytest.fixture
def with_plugin(base, monkeypatch):
    registry = Registry()
    registry.add(Plugin())
    monkeypatch.setattr(base, "registry", registry)
    return base


def test_metrics_of_plugins_are_scored_with_intervals(with_plugin):
    result = with_plugin.evaluate(ROWS, adapter=None, max_new_tokens=4)
    longer = [len(got) > len(row["completion"]) for got, row in zip(result.predictions, ROWS, strict=True)]
    assert result["longer"] == sum(longer) / 4
    lengths = list(map(len, result.predictions))
    assert result["spread"] == max(lengths) / lengths[0]
    low, high = result.intervals["spread"]
    assert low <= result["spread"] <= high
    assert low < high
    assert "never" not in result


def test_metrics_are_chosen_by_name(with_plugin):
    result = with_plugin.evaluate(ROWS, adapter=None, max_new_tokens=4, metrics=("rouge_l", "accuracy"))
    assert list(result) == ["loss", "perplexity", "rouge_l", "accuracy"]
    with pytest.raises(UnknownNameError, match="no metric 'rougel'; did you mean 'rouge_l'"):
        with_plugin.evaluate(ROWS, adapter=None, metrics=("rougel",))


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("never", ConfigError, "'never' says nothing of these expected answers"),
        ("json_fields", ConfigError, "'json_fields' says nothing"),
        ("broken", PluginError, "metric 'broken' failed: ZeroDivisionError"),
        ("short", PluginError, "gives 1 values for 4 rows"),
        ("wild", PluginError, "gives 'wild' the value inf"),
    ],
)
def test_a_metric_that_gives_no_score_is_named(with_plugin, name, error, said):
    with pytest.raises(error, match=said):
        with_plugin.evaluate(ROWS, adapter=None, max_new_tokens=2, metrics=(name,))


def test_two_metrics_with_one_score_are_an_error(with_plugin):
    with pytest.raises(PluginError, match="'double' gives a score 'accuracy', which another metric gives too"):
        with_plugin.evaluate(ROWS, adapter=None, max_new_tokens=2, metrics=("accuracy", "double"))


@pytest.mark.parametrize("functions", [{}, {"compute": dict, "per_row": list}, {"per_row": list, "on_samples": dict}])
def test_a_metric_has_one_way_to_be_computed(functions):
    with pytest.raises(ValueError, match="metric 'm'"):
        Metric(name="m", **functions)


def test_details_say_what_was_confused(base):
    rows = [{"prompt": f"question {n}", "completion": ("yes", "no")[n % 2]} for n in range(6)]
    result = base.evaluate(rows, max_new_tokens=3)
    assert {one["label"] for one in result.details["f1"]["classes"]} == {"yes", "no"}
    assert sum(map(sum, result.details["f1"]["matrix"])) == 6
    assert result.to_json()["details"]["f1"]["matrix"] == result.details["f1"]["matrix"]


def test_json_is_scored_where_it_is_expected_and_nowhere_else(base):
    rows = [{"prompt": "say it as JSON", "completion": '{"a": 1}'}, {"prompt": "say hello", "completion": "hello"}]
    assert {"json_valid", "json_fields", "json_match"} <= set(base.evaluate(rows, max_new_tokens=3))
    assert not [name for name in base.evaluate(ROWS, max_new_tokens=3) if name.startswith("json")]


# -- rows -------------------------------------------------------------------------------------------------------------


def test_rows_that_expect_no_answer_are_not_asked():
    user, said = Message("user", "Hi"), Message("assistant", "Hello", train=True)
    call = Message("assistant", "", train=True, tool_calls='[{"type": "function"}]')
    records = [
        Conversation((user, said)),
        Text("raw"),
        Conversation((user, call)),
        Conversation((user, call, Message("tool", "7"), said), tools='[{"name": "look"}]'),
        Conversation((said,)),
        Preference((user,), (said,), (Message("assistant", "no"),)),
    ]
    found = list(asked(records))
    assert [(one.row, one.expected) for one in found] == [(0, "Hello"), (3, "Hello"), (5, "Hello")]
    assert found[0].prompt == (user,)
    assert found[1].prompt == Conversation(records[3].messages[:-1], tools=records[3].tools)
    assert found[0].readable() == "Hi"
    assert found[1].readable() == 'user: Hi\n\nassistant: [{"type": "function"}]\n\ntool: 7'


def test_a_prompt_that_does_not_fit_is_not_answered_and_said(base, caplog):
    context = base.model.config.max_position_embeddings
    rows = [*ROWS, {"prompt": "word " * context, "completion": "card arrival"}]
    result = base.evaluate(rows, max_length=64, max_new_tokens=4)
    assert (result.rows, len(result.predictions), list(result.answered)) == (5, 4, [0, 1, 2, 3])
    assert f"more than the base's {context}" in caplog.text
    (left_out,) = result.to_json()["left_out"]
    assert left_out["where"] == "row 5"
    assert result.to_json()["truncated_rows"] == 1


def test_rows_that_are_left_out_are_reported(base, caplog):
    result = base.evaluate([*ROWS, {"prompt": "a <|im_end|> b", "completion": "no"}], max_new_tokens=2)
    assert result.rows == 4
    (left_out,) = result.to_json()["left_out"]
    assert left_out["reason"] in caplog.text


def test_labels_that_training_never_had_are_said(caplog):
    def rows(*labels):
        return [Conversation((Message("user", "?"), Message("assistant", label, train=True))) for label in labels]

    known = rows("ham", "spam", "ham", "spam")
    say_unseen(known, rows("ham", "eggs", "eggs", "bacon"))
    assert "3 held-out rows expect 2 answers that no training row has: 'eggs', 'bacon'" in caplog.text
    assert unseen_labels(known, rows("ham")) == {}
    assert unseen_labels(rows("a text", "and another"), rows("a third")) == {}, "texts are no labels"


def test_labels_that_are_never_given_are_said(base, adapter, caplog):
    rows = [{"prompt": f"question {n}", "completion": ("yes", "no")[n % 2]} for n in range(6)]
    result = base.evaluate(rows, adapter=adapter, max_new_tokens=3, compare=False)
    assert result["f1"] == 0.0
    assert "2 of 2 expected answers were never given: 'no', 'yes' (6 rows)" in caplog.text
