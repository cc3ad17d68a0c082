"""Rows from several sources, rows held out, and others mixed in."""

import json
import logging
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterkit import ConfigError, DataError
from adapterkit.data.batching import batches
from adapterkit.data.dataset import encode_rows
from adapterkit.data.mixture import Mixture, times
from adapterkit.data.rendering import Renderer
from adapterkit.data.reports import Report, Unusable, by_reason, list_unusable, say_what_was_lost
from adapterkit.data.splitting import held_out
from adapterkit.data.training import load_training_data
from tests.sample_tokenizers import turns


@pytest.fixture
def load(tokenizer, registry):
    def load(data, **options):
        return load_training_data(data, renderer=Renderer(tokenizer, 64), registry=registry, **options)

    return load


def rows(name, count):
    return [{"prompt": f"{name} {n}", "completion": f"answer {n}"} for n in range(count)]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
        return str(path)

    return write


def asked(part):
    return [record.messages[0].content for record in part.records]


def test_one_source_gives_what_it_always_gave(load, tokenizer, registry):
    data = rows("a", 20)
    seen = load(data)
    alone = encode_rows(data, Renderer(tokenizer, 64), registry)
    assert seen.examples == alone.examples
    assert (seen.rows.digest, seen.rows.report) == (alone.digest, alone.report)
    assert seen.held_out is seen.replay is None
    lengths = seen.examples.lengths
    assert batches(lengths, 4, 1, 2, rows=seen.mixture.epoch(2)) == batches(lengths, 4, 1, 2)


def test_a_list_of_files_is_one_after_the_other(load, write):
    one, other = rows("a", 5), rows("b", 3)
    seen = load([write("a", one), write("b", other)])
    whole = load(one + other)
    assert seen.examples == whole.examples
    assert seen.rows.digest == whole.rows.digest
    assert list(seen.mixture.epoch(0)) == list(range(8))


def test_weights_say_how_often_an_epoch_sees_a_row(load, write):
    seen = load({write("a", rows("a", 4)): 2, write("b", rows("b", 10)): 0.5, write("c", rows("c", 3)): 1})
    first, second, third = (Counter(seen.mixture.epoch(epoch)) for epoch in range(3))
    assert len(seen.mixture) == first.total() == 8 + 5 + 3
    assert all(first[row] == 2 for row in range(4))
    halves = [{row for row in epoch if 4 <= row < 14} for epoch in (first, second)]
    assert halves[0] | halves[1] == set(range(4, 14))
    assert not halves[0] & halves[1]
    assert halves[0] == {row for row in third if 4 <= row < 14}
    assert all(first[row] == 1 for row in range(14, 17))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.floats(0.05, 4)), min_size=1, max_size=4), st.integers(0, 9))
def test_epochs_are_as_long_as_said_and_all_rows_are_seen_equally_often(sources, seed):
    counts = tuple(count for count, _ in sources)
    mixture = Mixture(counts, tuple(times(weight, count) for count, weight in sources), seed)
    epochs = [mixture.epoch(epoch) for epoch in range(12)]
    assert all(len(epoch) == len(mixture) for epoch in epochs)
    assert epochs[7] == Mixture(mixture.rows, mixture.drawn, seed).epoch(7)
    seen = Counter(row for epoch in epochs for row in epoch)
    start = 0
    for count in counts:
        times_seen = [seen[row] for row in range(start, start + count)]
        assert max(times_seen) - min(times_seen) <= 1
        start += count


def test_sources_may_have_columns_of_their_own(load, write):
    texts = [{"text": "q", "category": "a"}] * 3
    seen = load([write("a", rows("a", 2)), write("b", texts)], columns={"prompt": "text", "completion": "category"})
    assert asked(seen.rows) == ["a 0", "a 1", "q", "q", "q"]
    with pytest.raises(DataError, match=r"'txt': no such column"):
        load([write("a", rows("a", 2)), write("b", texts)], columns={"prompt": "txt", "completion": "catgory"})


@pytest.mark.parametrize("weight", [1e9, 1e300])
def test_an_epoch_that_no_memory_holds_is_refused(load, write, weight):
    with pytest.raises(ConfigError, match=r"an epoch would have .* rows, of 4 that there are"):
        load({write("a", rows("a", 4)): weight})


@pytest.mark.parametrize("weight", [0, -1, float("nan"), True])
def test_weights_that_are_none(load, write, weight):
    with pytest.raises(ConfigError, match=r"the weight of '.*' must be a number above 0"):
        load({write("a", rows("a", 2)): weight})


def test_a_mapping_of_datasets_is_still_no_data(load):
    with pytest.raises(DataError, match="pick one of its parts: 'train', 'test'"):
        load({"train": rows("a", 2), "test": rows("b", 2)})


@pytest.mark.parametrize(("split", "count"), [(0.25, 5), (3, 3), (3.0, 3), (0.001, 1)])
def test_rows_are_held_out(load, split, count):
    data = rows("a", 20)
    seen = load(data, eval_split=split, seed=5)
    assert len(seen.held_out.examples) == count == seen.held_out.report.rows
    assert sorted(asked(seen.rows) + asked(seen.held_out)) == sorted(row["prompt"] for row in data)
    assert seen.rows.report.rows == len(seen.examples) == len(seen.mixture) == 20 - count
    assert seen.held_out.digest == load([row for row in data if row["prompt"] in asked(seen.held_out)]).rows.digest
    assert seen.rows.digest == load([row for row in data if row["prompt"] in asked(seen.rows)]).rows.digest
    assert asked(load(data, eval_split=split, seed=5).held_out) == asked(seen.held_out)
    assert split < 0.1 or asked(load(data, eval_split=split, seed=6).held_out) != asked(seen.held_out)


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=3, max_size=40), st.floats(0.05, 0.9), st.integers(0, 5))
def test_rows_with_the_same_prompt_stay_together(asked, split, seed):
    records = [turns(f"question {one}", f"answer {place}") for place, one in enumerate(asked)]
    if len(set(asked)) == 1:
        with pytest.raises(DataError, match="have the same prompt"):
            held_out(records, split, seed)
        return
    drawn = held_out(records, split, seed)
    there, here = ({asked[n] for n in part} for part in (drawn, set(range(len(asked))) - set(drawn)))
    assert not there & here
    assert there
    assert here


def test_what_is_unusable_stays_with_the_data(load):
    data = [*rows("a", 10), {"prompt": "<|im_end|>", "completion": "x"}]
    seen = load(data, eval_split=4)
    assert [one.where for one in seen.rows.report.unusable] == ["rows[10]"]
    assert seen.rows.report.rows == 7
    assert seen.held_out.report.unusable == ()


def test_replay_is_a_share_of_an_epoch(load):
    general = [{"text": f"general {n}"} for n in range(50)]
    seen = load(rows("a", 90), replay=general)
    assert len(seen.mixture) == 100
    assert sum(row >= 90 for row in seen.mixture.epoch(0)) == 10
    drawn = [row for epoch in range(5) for row in seen.mixture.epoch(epoch) if row >= 90]
    assert sorted(drawn) == list(range(90, 140))
    assert seen.examples[90:] == seen.replay.examples
    few = load(rows("a", 90), replay=general[:4], replay_ratio=0.1)
    assert Counter(row for row in few.mixture.epoch(0) if row >= 90).total() == 10
    assert len(load(rows("a", 30), replay=general, replay_ratio=0.5).mixture) == 60


def test_replay_and_held_out_rows_have_reports_of_their_own(load, write):
    bad = [{"prompt": "<|im_end|>", "completion": "x"}]
    seen = load(
        {write("a", rows("a", 6)): 2.0},
        eval_data=rows("e", 2) + bad,
        replay=[write("g", [{"text": "general"}] * 3), write("h", rows("h", 2) + bad)],
        replay_ratio=0.25,
        columns=None,
    )
    assert {name: (one.rows, len(one.unusable)) for name, one in seen.reports.items()} == {
        "data": (6, 0),
        "eval_data": (3, 1),
        "replay": (6, 1),
    }
    assert len(seen.mixture) == 16
    assert len(seen.held_out.examples) == 2


def test_replay_need_not_have_the_columns_of_the_data(load):
    data = [{"text": f"q{n}", "category": "a"} for n in range(4)]
    columns = {"prompt": "text", "completion": "category"}
    seen = load(data, replay=iter([{"prompt": "p", "completion": "c"}]), columns=columns)
    assert asked(seen.replay) == ["p"]
    assert asked(load(data, replay=data, columns=columns).replay) == ["q0", "q1", "q2", "q3"]
    raw = [{"text": "a text", "url": "u"}]
    assert load(raw, replay=raw, format="text").replay.records[0].text == "a text"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"eval_split": 0}, ["eval_split: must be a fraction between 0 and 1 or a number of rows, not 0"]),
        ({"eval_split": 1.5}, ["not 1.5"]),
        ({"eval_split": True}, ["not True"]),
        ({"eval_split": 0.5, "eval_data": rows("e", 2)}, ["eval_split: eval_data is given as well"]),
        ({"replay_ratio": 0.2}, ["replay_ratio: needs replay"]),
        ({"replay_ratio": 1, "eval_split": -1}, ["replay_ratio: must be between 0 and 1, not 1", "not -1"]),
        ({"eval_data": {"a.jsonl": 2}}, ["eval_data: rows that are held out are all seen once"]),
    ],
)
def test_options_that_do_not_fit_are_said_together(load, options, parts):
    with pytest.raises(ConfigError) as caught:
        load(rows("a", 9), **options)
    for part in parts:
        assert part in str(caught.value)


def test_nothing_left_to_train_on(load):
    with pytest.raises(DataError, match="eval_split=9 would hold out all of 9 rows"):
        load(rows("a", 9), eval_split=9)


def test_preferences_train_the_chosen_answer_and_say_so_once(load, caplog):
    with caplog.at_level(logging.WARNING, "adapterkit"):
        seen = load([{"prompt": f"q{n}", "chosen": "good", "rejected": "bad"} for n in range(3)])
    assert [record.getMessage() for record in caplog.records] == [
        "the rows are preferences: the chosen answers are trained, and the rejected ones are left out"
    ]
    assert len(seen.examples) == 3


UNUSABLE = tuple(Unusable(f"a.csv:{n}", f"no trained token is left: {n} tokens") for n in range(12))


def test_rows_that_are_left_out_are_said_listed_and_counted(caplog, tmp_path):
    report = Report(20, 9, 9, 0, 0, (*UNUSABLE, Unusable("a.csv:99", "holds 'x'")))
    with caplog.at_level(logging.WARNING, "adapterkit"):
        say_what_was_lost(report, "eval_data")
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "a.csv:0 of eval_data is left out: no trained token is left: 0 tokens"
    assert said[10:] == [
        "3 more rows of eval_data are left out",
        "12 rows of eval_data in all: no trained token is left: … tokens",
        "1 rows of eval_data in all: holds …",
    ]
    assert by_reason(report) == {"no trained token is left: … tokens": 12, "holds …": 1}
    path = tmp_path / "unusable.jsonl"
    list_unusable(path, {"data": Report(1, 1, 1, 0, 0), "eval_data": report})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 13
    assert lines[-1] == {"data": "eval_data", "where": "a.csv:99", "reason": "holds 'x'"}
    list_unusable(path, {"data": Report(1, 1, 1, 0, 0)})
    assert not path.exists()
