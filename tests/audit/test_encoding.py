"""What an audit finds with a base's tokenizer."""

import attrs
import pytest

from adapterkit.audit import audit
from adapterkit.data.rendering import Renderer

LONG = "What is to be said of this? " * 20


def rows(count=20):
    return [{"prompt": f"What is the number {i}?", "completion": f"The number is {i}."} for i in range(count)]


def names(result):
    return {finding.name for finding in result.findings}


def test_rows_that_fit_have_no_findings(example_base):
    result = audit(example_base, rows())
    assert not names(result) & {"truncated-rows", "missing-end-tokens", "unusable-rows", "not-checked"}
    assert "missing end tokens" in result.made
    assert result.base == example_base.source.name


def test_lengths_are_those_of_the_tokens(example_base):
    result = audit(example_base, rows())
    renderer = Renderer(example_base.tokenizer, 1024)
    (example,) = renderer.encode_all([renderer_record("What is the number 7?", "The number is 7.")])
    prompt, completion = result.lengths
    assert (prompt.unit, completion.unit) == ("tokens", "tokens")
    assert completion.quantiles["min"] == example.trained
    assert prompt.quantiles["min"] == len(example.input_ids) - example.trained
    assert sum(prompt.counts) == sum(completion.counts) == 20
    assert len(prompt.edges) == len(prompt.counts) + 1


def renderer_record(prompt, completion):
    from adapterkit import Conversation, Message

    return Conversation((Message("user", prompt), Message("assistant", completion, train=True)))


def test_a_cut_prompt_is_a_note_and_a_cut_completion_is_serious(example_base):
    long_prompt = [*rows(), {"prompt": LONG, "completion": "Nothing."}]
    finding = audit(example_base, long_prompt, max_length=64)["truncated-rows"]
    assert finding.severity == "warning"
    assert finding.count == 1
    assert finding.counts["rows that lose part of a completion"] == 0
    long_completion = [*rows(), {"prompt": "What?", "completion": LONG}]
    finding = audit(example_base, long_completion, max_length=64)["truncated-rows"]
    assert finding.severity == "serious"
    assert finding.counts["rows that lose part of a completion"] == 1
    assert finding.examples[0].where == ("rows[20]",)


def test_raw_text_that_is_cut_does_not_learn_to_end(example_base):
    texts = [{"text": "Once upon a time there was a boat."} for _ in range(5)]
    assert "missing-end-tokens" not in names(audit(example_base, texts))
    finding = audit(example_base, [*texts, {"text": LONG}], max_length=64)["missing-end-tokens"]
    assert finding.count == 1
    assert finding.severity == "serious"
    assert finding.examples[0].where == ("rows[5]",)


def test_a_tokenizer_that_drops_end_tokens_is_found(example_base, monkeypatch):
    real = Renderer.encode_all

    def without_ends(self, records):
        return [attrs.evolve(one, labels=_unended(one.labels)) for one in real(self, records)]

    monkeypatch.setattr(Renderer, "encode_all", without_ends)
    finding = audit(example_base, rows())["missing-end-tokens"]
    assert finding.count == 20
    assert finding.severity == "serious"


def _unended(labels):
    last = max(place for place, label in enumerate(labels) if label != -100)
    return (*labels[:last], -100, *labels[last + 1 :])


def test_rows_that_the_tokenizer_cannot_use_are_listed(example_base):
    end = example_base.tokenizer.eos_token
    result = audit(example_base, [*rows(), {"prompt": "What?", "completion": f"It ends{end} and goes on."}])
    finding = result["unusable-rows"]
    assert finding.count == 1
    assert finding.examples[0].where == ("rows[20]",)
    assert finding.severity == "serious"


@pytest.mark.parametrize("known", [True, False])
def test_without_a_base_the_audit_says_what_it_left_out(example_base, known):
    result = audit(example_base if known else None, rows())
    left_out = [finding for finding in result.findings if finding.name == "not-checked"]
    assert bool(left_out) is not known
    assert ("truncated rows" in result.made) is known
    assert {one.unit for one in result.lengths} == {"tokens" if known else "characters"}
