"""From a source to examples, with a digest of the data and a report of every row."""

import pytest

from adapterkit import Conversation, DataError, Message, Text
from adapterkit.data.dataset import answers, digest, encode_rows
from adapterkit.data.rendering import Renderer
from tests.data.test_reading import DATA, ROWS, write
from tests.sample_tokenizers import turns

COLUMNS = {"prompt": "text", "completion": "category"}


@pytest.mark.parametrize("kind", ["tsv", "json", "jsonl", "parquet"])
def test_the_same_data_has_the_same_digest_in_every_file_type(tmp_path, registry, tokenizer, kind):
    renderer = Renderer(tokenizer, 64)
    expected = encode_rows(write(tmp_path, "csv"), renderer, registry)
    seen = encode_rows(write(tmp_path, kind), renderer, registry)
    assert seen.digest == expected.digest
    assert seen.examples == expected.examples


def test_the_digest_follows_content_order_and_what_is_trained():
    one, other = turns("a", "b"), turns("a", "c")
    untrained = turns("a", "b", train=False)
    digests = {digest(rows) for rows in ([one], [other], [one, other], [other, one], [untrained], [Text("a")])}
    assert len(digests) == 6


def test_the_report_counts(tokenizer, registry):
    rows = [{"prompt": "q", "completion": "a"}, {"prompt": "word " * 99, "completion": "a"}]
    encoded = encode_rows(rows, Renderer(tokenizer, 32), registry)
    report = encoded.report
    assert (report.rows, report.truncated_rows, report.unusable) == (2, 1, ())
    assert report.tokens == sum(len(one.input_ids) for one in encoded.examples)
    assert report.trained_tokens == 4  # twice "a" and the token that ends the turn
    assert report.truncated_tokens == encoded.examples[1].truncated > 0


def test_rows_that_this_tokenizer_cannot_use_are_left_out_and_listed(tokenizer, registry):
    rows = [{"prompt": "q", "completion": "a"}, {"prompt": "<|im_end|>", "completion": "a"}]
    encoded = encode_rows(rows, Renderer(tokenizer, 32), registry)
    assert len(encoded.examples) == len(encoded.records) == 1
    (unusable,) = encoded.report.unusable
    assert unusable.where == "rows[1]"
    assert "special token" in unusable.reason
    # the digest is the data's: it does not depend on what a tokenizer makes of it
    assert encoded.digest == digest([turns("q", "a"), turns("<|im_end|>", "a")])


def test_when_no_row_can_be_used_it_is_an_error(tokenizer, registry):
    rows = [{"prompt": "<|im_end|>", "completion": "a"}] * 12
    with pytest.raises(DataError, match=r"(?s)none of 12 rows.*rows\[9\].*and 2 more"):
        encode_rows(rows, Renderer(tokenizer, 32), registry)


def test_banking77_is_encoded_whole(tokenizer, registry):
    renderer = Renderer(tokenizer, 256)
    encoded = encode_rows(DATA / "banking77" / "test.csv", renderer, registry, columns=COLUMNS)
    assert encoded.report.rows == len(encoded.examples) == 3080
    prompts, references = answers(encoded.records)
    for example, prompt, reference in list(zip(encoded.examples, prompts, references, strict=True))[::97]:
        ids = renderer.prompt(prompt)
        assert list(example.input_ids[: len(ids)]) == ids
        assert example.labels[len(ids) - 1 : len(ids) + 1] == (-100, example.input_ids[len(ids)])
        assert renderer.decode(example.input_ids[len(ids) :]) == reference


def test_answers_are_the_last_turns_of_the_assistant():
    prompts, references = answers([turns("a", "b", "c", "d", "e", system="s")])
    assert references == ["d"]
    assert [message.content for message in prompts[0]] == ["s", "a", "b", "c"]


@pytest.mark.parametrize("record", [Text("a"), Conversation((Message("user", "a"),))])
def test_records_without_an_answer_cannot_be_scored(record):
    with pytest.raises(DataError, match="record 2 expects no answer"):
        answers([turns("a", "b"), record])


def test_rows_of_every_file_type_become_the_same_examples(tokenizer, registry):
    assert len(encode_rows(ROWS, Renderer(tokenizer, 64), registry).examples) == 3
