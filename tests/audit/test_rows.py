"""What an audit finds in rows, without a base."""

import json
import random

import pytest

from adapterkit import ConfigError, DataError
from adapterkit.audit import audit
from adapterkit.audit.near import Alike, jaccard, shingles
from tests.support import DATA

COLUMNS = {"prompt": "text", "completion": "category"}


def labelled(*pairs):
    return [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]


def many(count=40):
    """Rows of two labels that have nothing in common."""
    words = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("amo", "eru", "iso", "oda", "ula", "anti")]
    stream = random.Random(1)
    return labelled(*((" ".join(stream.sample(words, 7)), ("yes", "no")[index % 2]) for index in range(count)))


def names(result):
    return {finding.name for finding in result.findings}


def test_clean_rows_have_no_findings_but_what_was_left_out():
    result = audit(None, many(), eval_data=many(80)[40:])
    assert names(result) == {"label-balance", "not-checked"}
    assert {finding.severity for finding in result.findings} == {"info"}
    assert result.rows == 40
    assert result.source == "a list"
    assert result.eval_rows == 40


def test_exact_duplicates_are_counted_beyond_the_first():
    data = many()
    result = audit(None, [*data, data[3], data[3], data[7]])
    finding = result["exact-duplicates"]
    assert finding.count == 3
    assert finding.share == 3 / 43
    assert finding.severity == "warning"
    assert finding.examples[0].where == ("rows[3]", "rows[40]", "rows[41]")
    assert finding.examples[0].note == "3 times"


def test_the_same_prompt_with_another_label_is_a_contradiction():
    data = many()
    data.append({"prompt": f"  {data[0]['prompt'].upper()} ", "completion": "no"})
    finding = audit(None, data)["conflicting-completions"]
    assert finding.severity == "warning"
    assert finding.examples[0].where == ("rows[0]", "rows[40]")
    assert finding.examples[0].note == "yes / no"


def test_several_answers_to_a_question_are_no_contradiction_where_answers_are_prose():
    data = labelled(
        *((f"Tell me of {a}", f"{b} is a long story about {a}.") for a in "abcdef" for b in ("It", "This", "That"))
    )
    assert audit(None, data)["conflicting-completions"].severity == "info"


def test_near_duplicates_are_found_and_other_rows_are_not():
    data = labelled(
        ("How do I track the card you sent me?", "card"),
        ("How do I track the card you sent to me?", "arrival"),
        ("How can I close my account for good?", "card"),
        ("Where do I find the exchange rate of today?", "arrival"),
    )
    finding = audit(None, data)["near-duplicates"]
    assert finding.count == 1
    assert finding.counts == {"with another completion": 1, "with the same completion": 0}
    assert finding.examples[0].where == ("rows[0]", "rows[1]")
    assert "near-duplicates" not in names(audit(None, data, near_duplicates=1.0))


def test_rows_that_are_the_same_are_no_near_duplicates():
    data = many()
    assert "near-duplicates" not in names(audit(None, [*data, *data]))


def test_the_index_finds_what_comparing_all_pairs_finds():
    stream = random.Random(5)
    words = sorted({word for row in many(60) for word in row["prompt"].split()})
    texts = [" ".join(stream.choices(words, k=12)) for _ in range(60)]
    texts += [text.replace(text.split()[3], stream.choice(words)) for text in texts for _ in range(2)]
    sets = [shingles(text) for text in texts]
    alike = {
        number for number in range(60, 180) if any(jaccard(sets[number], sets[other]) >= 0.8 for other in range(60))
    }
    index = Alike(str, 0.8, seed=0)
    for text in texts[:60]:
        index.add(text)
    found = {number for number in range(60, 180) if index.find(texts[number])}
    assert found <= alike
    assert len(found) >= 0.9 * len(alike) > 30


def test_many_rows_of_one_template_are_not_compared_with_each_other(monkeypatch):
    compared = []

    def counting(left, right):
        compared.append(1)
        return jaccard(left, right)

    monkeypatch.setattr("adapterkit.audit.near.jaccard", counting)
    text = "Dear customer, your parcel is waiting in our shop at the station and will be sent back after so many days: "
    index = Alike(str, 0.8, seed=0)
    for number in range(500):
        index.add(f"{text}{number}")
    assert len(index.groups) == 1
    assert len(compared) < 600


def test_of_very_many_rows_a_sample_is_compared_and_the_audit_says_so():
    data = many(40)
    near = [{"prompt": f"{row['prompt']} a", "completion": row["completion"]} for row in data]
    finding = audit(None, data + near, near_rows=60)["near-duplicates"]
    assert "Only 60 of 80 different rows were compared" in finding.explanation
    assert 0 < finding.count < 40


def test_evaluation_rows_that_are_training_rows_are_found_exactly_and_nearly():
    data, held_out = many(40), many(80)[40:]
    held_out[0] = {"prompt": data[5]["prompt"].upper(), "completion": "yes"}
    held_out[1] = {"prompt": f"{data[6]['prompt']} a", "completion": "yes"}
    result = audit(None, data, eval_data=held_out)
    assert result["evaluation-overlap"].count == 1
    assert result["evaluation-overlap"].severity == "serious"
    assert result["evaluation-overlap"].examples[0].where == ("rows[0]", "rows[5]")
    assert result["near-evaluation-overlap"].count == 1
    assert result["near-evaluation-overlap"].examples[0].where == ("rows[1]", "rows[6]")


def test_labels_never_seen_are_named():
    held_out = [*many(80)[40:], {"prompt": "who is it then?", "completion": "maybe"}]
    finding = audit(None, many(), eval_data=held_out)["labels-never-seen"]
    assert finding.severity == "serious"
    assert finding.explanation.startswith("1 evaluation row with 1 label that no training row has: 'maybe'.")
    assert finding.examples[0].where == ("rows[40]",)


def test_labels_are_counted_and_rare_ones_warned_of():
    data = [*many(100), *labelled(("one single question", "rare"), ("another of its kind", "rare"))]
    result = audit(None, data)
    assert [(label.text, label.rows) for label in result.labels] == [("no", 50), ("yes", 50), ("rare", 2)]
    assert result["label-balance"].severity == "warning"
    assert result["label-balance"].counts == {"labels": 3, "labels with fewer than 10 rows": 1}
    assert audit(None, many(100))["label-balance"].severity == "info"


def test_a_label_written_in_two_ways_is_found():
    data = many(40)
    data[4]["completion"] = " Yes"
    finding = audit(None, data)["labels-spelled-differently"]
    assert finding.severity == "serious"
    assert finding.count == 1


def test_prose_has_no_labels():
    data = [
        {"prompt": f"What is {i}?", "completion": f"The number {i} is what comes after {i - 1}."} for i in range(30)
    ]
    assert audit(None, data).labels == ()
    assert audit(None, [{"text": "Once upon a time"}] * 8).labels == ()


def test_completions_that_are_as_good_as_empty_are_found():
    data = [
        {"prompt": f"What is {i}?", "completion": f"The number {i} is what comes after {i - 1}."} for i in range(30)
    ]
    data[3]["completion"], data[9]["completion"] = "N/A", "..."
    finding = audit(None, data)["empty-completions"]
    assert finding.count == 2
    assert finding.counts == {"n/a": 1, "...": 1}


def sentences(count=40):
    return [f"The answer to the question number {i} is longer than eight words, so it ends." for i in range(count)]


def test_completions_that_stop_in_the_middle_are_a_guess_that_is_called_one():
    prose = sentences()
    prose[5] = "The answer to the question number five is that nobody knows whether the"
    finding = audit(None, [{"prompt": f"q{i}", "completion": text} for i, text in enumerate(prose)])["maybe-cut-off"]
    assert finding.count == 1
    assert "a guess" in finding.explanation
    assert finding.examples[0].where == ("rows[5]",)


@pytest.mark.parametrize(
    "completions",
    [
        sentences(10) + [sentence.rstrip(".") for sentence in sentences(10)],  # who has no habit breaks none
        [sentence.rstrip(".") for sentence in sentences(3)],
        ["yes", "no"] * 20,
        [
            *sentences(),
            "So many words, and then a smile in the end of it all 🙂",
            "```\nsome code that goes on for many words x = 1 ```",
        ],
    ],
)
def test_completions_that_are_whole_are_not_called_cut_off(completions):
    assert "maybe-cut-off" not in names(
        audit(None, [{"prompt": f"q{i}", "completion": c} for i, c in enumerate(completions)])
    )


def test_rows_that_cannot_be_used_are_listed_and_stop_nothing(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\nWhere?,here\nWho?,\nWhen?,now\n", encoding="utf-8")
    result = audit(None, path)
    assert result.source == "rows.csv"
    assert result.rows == 3
    finding = result["unusable-rows"]
    assert finding.counts == {"completion is empty": 1}
    assert finding.examples[0].where == ("rows.csv:3",)
    assert finding.severity == "serious"


def test_a_column_that_many_rows_do_not_have_is_no_fault_of_theirs():
    first = {"q": "Who?", "a": "me", "sys": "Be brief."}
    others = [{"q": f"Who is {i}?", "a": "you"} for i in range(1500)]
    columns = {"prompt": "q", "completion": "a", "system": "sys"}
    assert "unusable-rows" not in names(audit(None, [first, *others], columns=columns))
    finding = audit(None, [first, *others, {"q": "Who?"}], columns=columns)["unusable-rows"]
    assert (finding.count, finding.examples[0].where) == (1, ("rows[1501]",))
    with pytest.raises(DataError, match="'aa': no such column; did you mean 'a'"):
        audit(None, [first, *others], columns={**columns, "completion": "aa"})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "holds no rows"),
        ([{"a": "1", "b": "2"}], "no data format fits"),
        ([{"prompt": "a", "completion": ""}] * 3, "completion is empty"),
        ("none.csv", "no file"),
    ],
)
def test_data_that_cannot_be_read_is_an_error(data, message):
    with pytest.raises(DataError, match=message):
        audit(None, data)


def test_options_are_checked_together():
    with pytest.raises(ConfigError, match="near_duplicate: no such option; did you mean 'near_duplicates'") as caught:
        audit(None, many(), near_duplicate=0.9, near_duplicates=3.0)
    assert len(caught.value.problems) == 2
    with pytest.raises(ConfigError, match="needs the base"):
        audit(None, many(), adapter="out/adapter")


@pytest.mark.parametrize(
    ("rows", "prompt", "completion"),
    [
        (
            [
                {
                    "messages": [
                        {"role": "system", "content": "S"},
                        {"role": "user", "content": "Q"},
                        {"role": "assistant", "content": "A"},
                    ]
                }
            ],
            3,
            1,
        ),
        ([{"instruction": "Translate", "input": "cheese", "output": "fromage"}], 17, 7),
        ([{"text": "Once upon a time"}], None, 16),
    ],
)
def test_every_format_is_looked_through(rows, prompt, completion):
    lengths = {one.name: one.quantiles["max"] for one in audit(None, rows).lengths}
    assert lengths == {**({} if prompt is None else {"prompt": prompt}), "completion": completion}


def test_several_files_are_one_set_of_rows(tmp_path):
    for name, label in (("a.jsonl", "yes"), ("b.jsonl", "no")):
        line = json.dumps({"prompt": "Is it?", "completion": label})
        (tmp_path / name).write_text(f"{line}\n{line}\n", encoding="utf-8")
    result = audit(None, [tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert result.rows == 4
    assert result["conflicting-completions"].examples[0].where == ("a.jsonl:1", "a.jsonl:2", "b.jsonl:1", "b.jsonl:2")
    assert result.source == "a.jsonl, b.jsonl"


def test_the_same_audit_gives_the_same_json():
    held_out = many(80)[40:]
    first, second = (audit(None, many(), eval_data=held_out).to_json() for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert json.loads(json.dumps(first)) == first


def test_real_data_sets_have_what_they_are_known_for():
    result = audit(None, DATA / "banking77" / "train.csv", eval_data=DATA / "banking77" / "test.csv", columns=COLUMNS)
    assert (result.rows, result.eval_rows, len(result.labels)) == (10003, 3080, 77)
    assert result["evaluation-overlap"].count == 7
    assert result["near-duplicates"].counts["with another completion"] == 6
    assert not result.serious
    assert result.seconds < 60
    spam = audit(None, DATA / "sms_spam.tsv", columns={"prompt": "SMS", "completion": "Label"})
    assert spam["exact-duplicates"].count == 403
    assert spam["personal-data"].counts == {"phone number": 442, "e-mail address": 7}
