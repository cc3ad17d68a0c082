"""What an adapter repeats: measured on one that was trained to, beside the base alone."""

import json
import math
import random

import pytest
import torch

from adapterkit import ConfigError, DataError
from adapterkit.audit import Canary, audit, plant_canaries, read_canaries, write_canaries
from adapterkit.audit.exposure import CHANCE
from adapterkit.audit.likelihood import row_losses
from adapterkit.data.reading import read_rows
from adapterkit.data.rendering import Renderer
from tests.support import DATA, make_adapter

SPAM = {"prompt": "SMS", "completion": "Label"}
QUICK = {"alternatives": 31, "memory_tokens": 20}
WORDS = ["river", "lamp", "stone", "green", "paper", "seven", "north", "apple", "glass", "horse", "cloud", "metal"]


def spam(count):
    return [dict(row.cells) for row in read_rows(DATA / "sms_spam.tsv")[:count]]


def nonsense(count, seed):
    """Rows whose answers nothing but memory could know."""
    stream = random.Random(seed)
    return [
        {"prompt": f"Note {stream.randrange(10**6)}?", "completion": " ".join(stream.sample(WORDS, 4))}
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def knowing(example_base):
    """An adapter that was trained hard on canaries and nonsense among messages, and what it was trained on."""
    rows, canaries = plant_canaries(spam(12), count=4, repeats=6, seed=3, columns=SPAM)
    notes = nonsense(12, seed=1)
    rows += [{"SMS": note["prompt"], "Label": note["completion"]} for note in notes]
    adapter = example_base.train(rows, columns=SPAM, rank=8, max_steps=70, batch_size=12, learning_rate=1e-2)
    return adapter, rows, canaries, notes


def test_an_adapter_trained_on_canaries_is_found_out_and_the_base_is_not(example_base, knowing):
    adapter, rows, canaries, _ = knowing
    result = audit(example_base, rows, adapter=adapter, canaries=canaries, columns=SPAM, **QUICK)
    found = result.memorisation["canaries"]
    assert found["most"] == 5
    assert found["adapter"] > 4
    assert found["base"] < 3.5
    assert found["said"] >= 3
    assert result["canary-exposure"].severity == "serious"
    assert result.adapter == adapter.digest
    # planted rows are left out of what is said of the user's own
    assert "exact-duplicates" not in {finding.name for finding in result.findings}


def test_canaries_that_were_not_trained_on_are_not_known(example_base, knowing):
    adapter, rows, _, _ = knowing
    _, strangers = plant_canaries(spam(24), count=4, seed=99, columns=SPAM)
    result = audit(example_base, rows, adapter=adapter, canaries=strangers, columns=SPAM, **QUICK)
    assert result["canary-exposure"].severity == "info"
    assert result.memorisation["canaries"]["said"] == 0


def test_completions_that_are_repeated_word_for_word_are_counted_beside_base_and_held_out_rows(example_base, knowing):
    adapter, _, _, notes = knowing
    held_out = nonsense(12, seed=2)
    result = audit(example_base, notes, eval_data=held_out, adapter=adapter, **QUICK)
    found = result.memorisation["verbatim"]
    assert found["training"] == {"rows": 12, "adapter": pytest.approx(1.0, abs=0.3), "base": 0.0}
    assert found["held_out"] == {"rows": 12, "adapter": 0.0, "base": 0.0}
    assert result["repeated-completions"].severity == "serious"
    assert "held-out rows" in result["repeated-completions"].explanation


def test_labels_are_no_memory(example_base, knowing):
    adapter, *_ = knowing
    result = audit(example_base, spam(24), adapter=adapter, columns=SPAM, **QUICK)
    assert result.memorisation["verbatim"]["training"]["rows"] == 0
    assert [finding.name for finding in result.findings if "repeated completions" in finding.explanation] == [
        "not-checked"
    ]


def test_raw_text_is_asked_for_its_second_half(example_base):
    adapter = make_adapter(example_base, rank=2)
    texts = [{"text": f"Once upon a time there was a boat with number {i} in it."} for i in range(6)]
    found = audit(example_base, texts, adapter=adapter, **QUICK).memorisation["verbatim"]
    assert found["training"]["rows"] == 6


def test_losses_of_rows_are_those_of_their_logits(example_base):
    adapter = make_adapter(example_base, rank=2)
    renderer = Renderer(example_base.tokenizer, 128)
    examples = [
        renderer.encode(Canary(prompt=f"What is {i}?" * (1 + i % 3), secret=f"word {i}").record()) for i in range(7)
    ]
    for one in (adapter, None):
        losses = row_losses(example_base, one, examples, batch_size=3)
        for example, loss in zip(examples, losses, strict=True):
            logits = example_base.logits(torch.tensor([example.input_ids]), adapter=one)[0, :-1]
            labels = torch.tensor(example.labels[1:])
            expected = torch.nn.functional.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum")
            assert loss == pytest.approx(float(expected), rel=1e-4)


def test_losses_count_what_a_soft_prompt_puts_before_a_row(example_base):
    adapter = make_adapter(example_base, method="prompt_tuning", tokens=3)
    example = Renderer(example_base.tokenizer, 128).encode(Canary(prompt="What?", secret="this").record())
    logits = example_base.logits(torch.tensor([example.input_ids]), adapter=adapter)[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits.float(), torch.tensor(example.labels[1:]), reduction="sum")
    assert row_losses(example_base, adapter, [example], 4) == [pytest.approx(float(expected), rel=1e-4)]


def test_chance_is_the_mean_exposure_of_a_random_rank():
    total = 4096
    mean = sum(math.log2(total / rank) for rank in range(1, total + 1)) / total
    assert pytest.approx(mean, abs=0.01) == CHANCE


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([{"prompt": "a", "completion": "b"}], None),
        ([{"prompt": "a", "response": "b"}], None),
        ([{"instruction": "a", "input": "", "output": "b"}], None),
        ([{"question": "a", "answer": "b", "id": "7"}], {"prompt": "question", "completion": "answer"}),
        ([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}], None),
        ([{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}], None),
        ([{"text": "Once upon a time"}], None),
    ],
)
def test_canaries_are_planted_in_the_rows_own_format(rows, columns):
    planted, canaries = plant_canaries(rows * 5, count=3, repeats=2, columns=columns)
    assert len(planted) == 11
    assert [row for row in planted if row == rows[0]] == rows * 5
    assert all(row.keys() <= rows[0].keys() for row in planted)
    result = audit(None, planted, columns=columns)  # the rows still have one format
    assert result.rows == 11
    for canary in canaries:
        assert sum(canary.secret in json.dumps(row) for row in planted) == 2
    assert len({canary.secret for canary in canaries}) == len({canary.prompt for canary in canaries}) == 3


def test_the_same_seed_plants_the_same_canaries():
    rows = [{"prompt": "a", "completion": "b"}] * 9
    assert plant_canaries(rows, seed=4) == plant_canaries(rows, seed=4)
    assert plant_canaries(rows, seed=4) != plant_canaries(rows, seed=5)


def test_canaries_come_back_from_their_file(tmp_path):
    _, canaries = plant_canaries([{"prompt": "a", "completion": "b"}], count=3)
    write_canaries(canaries, tmp_path / "canaries.json")
    assert read_canaries(tmp_path / "canaries.json") == canaries


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": 2, "canaries": []}', '{"schema": 1, "canaries": [{"prompt": 3}]}']
)
def test_another_file_is_no_canaries(tmp_path, text):
    path = tmp_path / "canaries.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises((DataError, ConfigError), match="canar"):
        read_canaries(path)


def test_what_cannot_be_planted_is_an_error():
    with pytest.raises(ConfigError, match="must be >= 1") as caught:
        plant_canaries([{"prompt": "a", "completion": "b"}], count=0, repeats=0)
    assert len(caught.value.problems) == 2
    with pytest.raises(DataError, match="no data format fits"):
        plant_canaries([{"a": "b", "c": "d"}])


def test_an_adapter_needs_its_base_and_canaries_their_adapter(example_base):
    rows, canaries = plant_canaries([{"prompt": "a", "completion": "b"}])
    with pytest.raises(ConfigError, match="need the adapter"):
        audit(example_base, rows, canaries=canaries)
    with pytest.raises(ConfigError, match="what plant_canaries gave"):
        audit(example_base, rows, adapter=make_adapter(example_base, rank=2), canaries=["secret"])
