"""lm-evaluation-harness on a base with an adapter: what it scores is what a hand computes, and the base is as it was."""

import json
import random

import numpy as np
import pytest
import torch

from adapterkit import ConfigError, DataError, SelectionError, UnknownNameError
from adapterkit.evaluation import harness
from adapterkit.evaluation.harness import harness_model, run_tasks
from tests.support import make_adapter, state_digest

CHOICES = ["yes", "no", "perhaps so"]
QUESTIONS = [
    {"question": f"Is number {n} even{', and is it really so' * (n % 3)}?", "label": n % 3, "answer": CHOICES[n % 3]}
    for n in range(10)
]
CHOICE = """
task: cards_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: {choices}
doc_to_target: label
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
ANSWER = """
task: cards_answer
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 5}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""

lm_eval = pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def adapters(base, adapter):
    soft = {"tokens": 5, "scale": 0.05}
    return {
        "base": None,
        "lora": adapter,
        "soft": make_adapter(base, method="prompt_tuning", **soft),
        "prefix": make_adapter(base, method="prefix_tuning", tokens=4, scale=0.05),
    }


@pytest.fixture(params=["base", "lora", "soft", "prefix"])
def chosen(request, adapters):
    return adapters[request.param]


def requests(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, number) for number, one in enumerate(arguments)]


def likelihood(base, adapter, context, text):
    """By hand: one row, no padding, no batch."""
    start = base.tokenizer(context, add_special_tokens=False).input_ids
    whole = base.tokenizer(context + text, add_special_tokens=False, return_tensors="pt").input_ids
    logits = base.logits(whole, adapter=adapter).log_softmax(-1)[0]
    places = range(len(start), whole.shape[1])
    total = sum(float(logits[place - 1, whole[0, place]]) for place in places)
    return total, all(int(logits[place - 1].argmax()) == int(whole[0, place]) for place in places)


def test_likelihoods_are_those_of_a_hand(base, chosen):
    rows = [(one["question"], f" {choice}") for one in QUESTIONS[:4] for choice in CHOICES]
    found = harness_model(base, chosen, batch_size=5).loglikelihood(requests("loglikelihood", *rows), disable_tqdm=True)
    want = [likelihood(base, chosen, *one) for one in rows]
    assert [one for one, _ in found] == pytest.approx([one for one, _ in want], abs=2e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in want]


def test_the_adapter_changes_what_is_found(base, adapters):
    row = requests("loglikelihood", (QUESTIONS[0]["question"], " yes"))
    found = {
        name: harness_model(base, one).loglikelihood(row, disable_tqdm=True)[0][0] for name, one in adapters.items()
    }
    assert len(set(found.values())) == len(found), "an adapter does nothing: the tests are blind"


def test_answers_are_those_of_a_hand(base, chosen):
    rows = [(one["question"], {"until": ["\n\n"], "max_gen_toks": 5}) for one in QUESTIONS[:5]]
    found = harness_model(base, chosen, batch_size=3).generate_until(
        requests("generate_until", *rows), disable_tqdm=True
    )
    for (question, _), answer in zip(rows, found, strict=True):
        ids = base.tokenizer(question, return_tensors="pt", add_special_tokens=False).input_ids
        start = ids.shape[1]
        for _ in range(5):
            ids = torch.cat([ids, base.logits(ids, adapter=chosen)[:, -1:].argmax(-1)], 1)
            if ids[0, -1] == base.tokenizer.eos_token_id:
                break
        assert answer == base.tokenizer.decode(ids[0, start:], skip_special_tokens=True).split("\n\n")[0]


def test_room_for_virtual_tokens_is_kept_free(base, adapters):
    whole = harness_model(base).max_length
    assert whole == base.model.config.max_position_embeddings
    assert harness_model(base, adapters["soft"]).max_length == whole - 5


def test_whatever_is_in_use_the_adapter_given_is_scored(base, adapters):
    row, model = requests("loglikelihood", (QUESTIONS[0]["question"], " yes")), harness_model(base)
    want = model.loglikelihood(row, disable_tqdm=True)
    with base.using(adapters["lora"]):
        assert model.loglikelihood(row, disable_tqdm=True) == want


@pytest.mark.slow
def test_a_task_of_ones_own_is_run_and_leaves_nothing_behind(base, adapter, tmp_path):
    from lm_eval.tasks import TaskManager

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    given = {"rows": tmp_path / "rows.jsonl", "choices": json.dumps(CHOICES)}
    (tmp_path / "choice.yaml").write_text(CHOICE.format(**given))
    (tmp_path / "answer.yaml").write_text(ANSWER.format(**given))
    state, side = state_digest(base.model), base.tokenizer.padding_side
    randoms = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    tasks = ["cards_choice", "cards_answer"]
    found = run_tasks(base, tasks, adapter=adapter, folder=tmp_path, batch_size=4)
    right = [
        int(np.argmax([likelihood(base, adapter, one["question"], f" {choice}")[0] for choice in CHOICES]))
        == one["label"]
        for one in QUESTIONS
    ]
    assert found["cards_choice"]["acc"] == pytest.approx(np.mean(right))
    assert found["cards_choice"].keys() == {"acc", "acc_stderr"}
    assert found["cards_answer"]["exact_match"] == 0.0
    assert state_digest(base.model) == state
    assert base.tokenizer.padding_side == side
    assert random.getstate() == randoms[0]
    assert np.random.get_state()[1].tolist() == randoms[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), randoms[2])
    manager = TaskManager(include_path=str(tmp_path))
    with pytest.raises(UnknownNameError, match="no task 'cards_choise'; did you mean 'cards_choice'"):
        run_tasks(base, ["cards_choise"], task_manager=manager)
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(DataError, match="the data of cards_choice cannot be had"):
        run_tasks(base, ["cards_choice"], task_manager=manager, limit=1)


def test_what_is_no_adapter_is_refused(base):
    with pytest.raises(SelectionError, match="harness_model takes one adapter, a Stack, a Blend or None"):
        harness_model(base, "folder")


def test_without_the_extra_the_cure_is_named(base, monkeypatch):
    harness._model_class.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "lm_eval.models.huggingface", None)
    with pytest.raises(ConfigError, match=r"pip install 'adapterkit\[lm-eval\]'"):
        harness_model(base)
