"""Large files: read as they come, kept in little memory, and stopped at the first broken line."""

import gzip
import io
import json
import tempfile
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterkit import Conversation, DataError, Example, Message, Preference, Text
from adapterkit.data import arrays, buffers, dataset
from adapterkit.data.buffers import Buffer
from adapterkit.data.dataset import encode_rows
from adapterkit.data.examples import ExamplesBuilder
from adapterkit.data.reading import iter_rows, read_rows
from adapterkit.data.records import RecordsBuilder
from adapterkit.data.rendering import Renderer
from adapterkit.data.trees import json_rows

MILLION = 1_000_000
LINE = b'{"prompt": "q", "completion": "a"}\n'


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A million rows, of which row 5,001 is cut off."""
    path = tmp_path_factory.mktemp("large") / "rows.jsonl"
    path.write_bytes(LINE * 5000 + b'{"prompt": "q", "comple\n' + LINE * (MILLION - 5001))
    return path


def test_malformed_json_in_row_5001_of_a_million_is_named_before_the_rest_is_read(broken, tokenizer, registry):
    read = []
    with pytest.raises(DataError, match=r"^rows\.jsonl:5001: bad JSON: Unterminated string"):
        list(iter_rows(broken, lambda done, total: read.append((done, total))))
    done, total = read[-1]
    assert total == broken.stat().st_size
    assert done < total / 50
    with pytest.raises(DataError, match=r"^rows\.jsonl:5001"):
        encode_rows(broken, Renderer(tokenizer, 64), registry)


def test_malformed_json_far_into_an_array_is_named_before_the_rest_is_read(tmp_path):
    path = tmp_path / "rows.json"
    row = LINE.strip() + b",\n"
    path.write_bytes(b"[" + row * 50_000 + b'{"prompt": q},\n' + row * 500_000 + LINE + b"]")
    read = []
    with pytest.raises(DataError, match=r"^rows\.json:50001: bad JSON: Expecting value at column 12$"):
        list(iter_rows(path, lambda done, _: read.append(done)))
    assert read[-1] < path.stat().st_size / 4


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_what_is_read_is_not_kept(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    count = 20_000
    text = "a question of some length that is asked again and again"
    if kind == "parquet":
        pyarrow.parquet.write_table(pa.table({"prompt": [text] * count, "completion": ["a"] * count}), path)
    elif kind in ("csv", "tsv"):
        mark = "," if kind == "csv" else "\t"
        path.write_text(f"prompt{mark}completion\n" + f"{text}{mark}a\n" * count)
    else:
        line = json.dumps({"prompt": text, "completion": "a"})
        path.write_text("[" + ",\n".join([line] * count) + "]" if kind == "json" else (line + "\n") * count)
    assert sum(1 for _ in iter_rows(path)) == count  # what is imported on the way counts for nothing
    tracemalloc.start()
    try:
        rows = sum(1 for _ in iter_rows(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == count
    assert peak < 5 * 2**20  # all rows at once are more than twice as much


ROWS = st.lists(
    st.dictionaries(st.text(max_size=4), st.text(max_size=9) | st.integers() | st.none(), max_size=3), max_size=9
)


def in_pieces(text, size):
    """The cells of an array that is read so many characters at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK", size)
        return [row.cells for row in json_rows(io.StringIO(text), "a.json")]


@settings(deadline=None)
@given(ROWS, st.integers(1, 40), st.sampled_from([None, 1]), st.sampled_from(["", " ", "\n"]))
def test_an_array_is_read_in_pieces_of_any_size(rows, size, indent, around):
    text = around + json.dumps(rows, ensure_ascii=False, indent=indent) + around
    assert in_pieces(text, size) == rows


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 60), st.sampled_from(['"', "]", "x", ",", "{", ""]), st.integers(1, 50))
def test_a_broken_array_has_the_error_that_json_has(place, mistake, size):
    text = '[{"a": "b\\u00e9", "c": [1, 2.5, true]},\n {"d": null},\n {"e": "f"}]'
    text = text[:place] + mistake + text[place + 1 :]
    try:
        expected = json.loads(text)
        line = "a.json"
    except json.JSONDecodeError as error:
        expected = None
        line = f"a.json:{error.lineno}: bad JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    if isinstance(expected, list) and all(isinstance(one, dict) for one in expected):
        assert in_pieces(text, size) == expected
        return
    with pytest.raises(DataError) as caught:
        in_pieces(text, size)
    # an element that is no row is found before what is broken behind it
    assert str(caught.value).startswith(line) or "must be an object" in str(caught.value)


def test_fields_that_only_other_rows_have_are_not_there(tmp_path):
    """Arrow gives each object the fields of all of them, as nulls: a template would write them."""
    tools = [{"name": "a", "parameters": {"x": 1}}, {"name": "b", "parameters": {"y": 2}}]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(
        pa.Table.from_pylist([{"tools": tools, "note": None}, {"tools": [], "note": "n"}]), path
    )
    assert read_rows(path)[0].cells == {"tools": tools, "note": None}


def test_a_packed_file_that_is_cut_off_says_so(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(LINE * 1000)[:-9])
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_rows(path)


EXAMPLES = [
    Example((1, 2, 3), (-100, 2, 3)),
    Example((4, 5), (-100, 5), truncated=3),
    Example((6, 7, 8), (-100, 7, 8), weights=(1.0, 0.3, 2.0)),
    Example((9,) * 40, (9,) * 40),
]


@pytest.fixture(params=[64 * 2**20, 16], ids=["in memory", "in files"])
def stored(request, monkeypatch):
    monkeypatch.setattr(buffers, "MOST_IN_MEMORY", request.param)
    builder = ExamplesBuilder()
    builder.extend(EXAMPLES)
    return builder.finish()


def test_examples_come_back_as_they_were_in_any_order(stored):
    assert stored == EXAMPLES
    assert [stored[n] for n in (3, 0, -1, 2)] == [EXAMPLES[n] for n in (3, 0, -1, 2)]
    assert stored[1:3] == EXAMPLES[1:3]
    assert stored.pick([2, 2, 0]) == [EXAMPLES[2], EXAMPLES[2], EXAMPLES[0]]
    assert stored.after([50, 51]) == [one.after([50, 51]) for one in EXAMPLES]
    assert list(stored.lengths) == [3, 2, 3, 40]
    assert list(stored.after([50]).pick([1]).lengths) == [3]
    assert list(stored.truncated) == [0, 3, 0, 0]
    assert stored.trained_tokens == pytest.approx(sum(one.trained for one in EXAMPLES))
    assert stored.pick([0]).highest >= 3
    assert stored.after([500]).highest == 500
    assert all(type(token) is int for token in (*stored[0].input_ids, *stored[0].labels, *stored.lengths))


RECORDS = [
    Conversation((Message("user", "q\u2028"), Message("assistant", "a", True)), tools="[]", desirable=False),
    Conversation((Message("user", "q"), Message("assistant", "", True, 0.5, "[1]"), Message("tool", "x", name="n"))),
    Preference((Message("user", "q"),), (Message("assistant", "a", True),), (Message("assistant", "b", True),)),
    Text("raw"),
    Text("a b", ((0, 1), (2, 3))),
]


@pytest.mark.parametrize("most", [64 * 2**20, 16])
def test_records_come_back_as_they_were(monkeypatch, most):
    monkeypatch.setattr(buffers, "MOST_IN_MEMORY", most)
    builder = RecordsBuilder()
    for record in RECORDS:
        builder.add(record)
    records = builder.finish()
    assert records == RECORDS
    assert records.pick([4, 0]) == [RECORDS[4], RECORDS[0]]
    assert records[-1] == RECORDS[-1]


def test_half_a_character_is_an_error_with_its_place(tokenizer, registry, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "q", "completion": "a"}\n{"prompt": "\\ud83d", "completion": "a"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: holds '\\ud83d', which is half of a character"):
        encode_rows(path, Renderer(tokenizer, 64), registry)


def test_a_folder_without_room_says_where_to_find_more(monkeypatch):
    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(buffers, "MOST_IN_MEMORY", 8)
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(DataError, match=r"No space left on device.*TMPDIR"):
        Buffer("B").extend(b"more than eight bytes")


def test_rows_are_encoded_in_parts_that_give_what_the_whole_gives(monkeypatch, tokenizer, registry):
    rows = [{"prompt": f"question {n} " * (n % 7 + 1), "completion": f"answer {n}"} for n in range(50)]
    whole = encode_rows(rows, Renderer(tokenizer, 32), registry)
    monkeypatch.setattr(dataset, "AT_ONCE", 7)
    parts = encode_rows(iter(rows), Renderer(tokenizer, 32), registry)
    assert parts.examples == whole.examples
    assert (parts.digest, parts.report) == (whole.digest, whole.report)
    assert np.asarray(parts.examples.lengths).sum() == parts.report.tokens
