"""Rows from every kind of file, each with its place, and errors that name the line."""

import csv
import gzip
import io
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterkit import DataError
from adapterkit.data import tables
from adapterkit.data.reading import read_rows
from adapterkit.data.tables import read_csv, read_tsv
from adapterkit.data.trees import read_json_lines

DATA = Path(__file__).parents[2] / "examples" / "data"
ROWS = [
    {"prompt": 'say "hi"', "completion": "hi"},
    {"prompt": "two\nlines, and\ta tab", "completion": "\u2028 é 日本 😀"},
    {"prompt": "plain", "completion": "text"},
]


def write(folder, kind, rows=ROWS):
    path = folder / f"rows.{kind}"
    if kind in ("csv", "tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, rows[0], delimiter="\t" if kind == "tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    elif kind == "json":
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    elif kind == "parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "ndjson", "parquet"])
def test_every_file_type_holds_the_same_rows(tmp_path, kind):
    assert [row.cells for row in read_rows(write(tmp_path, kind))] == ROWS


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_text_files_may_be_packed_and_may_begin_with_a_byte_order_mark(tmp_path, kind):
    plain = write(tmp_path, kind)
    plain.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    assert [row.cells for row in read_rows(str(plain))] == ROWS
    packed = tmp_path / f"rows.{kind}.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert [row.cells for row in read_rows(packed)] == ROWS


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        ("csv", ["rows.csv:2", "rows.csv:3", "rows.csv:5"]),
        ("jsonl", ["rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:3"]),
        ("json", ["rows.json[0]", "rows.json[1]", "rows.json[2]"]),
        ("parquet", ["rows.parquet[0]", "rows.parquet[1]", "rows.parquet[2]"]),
    ],
)
def test_rows_know_their_place(tmp_path, kind, places):
    assert [row.where for row in read_rows(write(tmp_path, kind))] == places


def test_a_json_file_may_hold_its_rows_under_data(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"version": 1, "data": ROWS}))
    assert [row.cells for row in read_rows(path)] == ROWS


@pytest.mark.parametrize("make", [list, iter, tuple, Dataset.from_list, pd.DataFrame])
def test_values_in_memory(make):
    rows = read_rows(make(ROWS))
    assert [dict(row.cells) for row in rows] == ROWS
    assert rows[1].where.endswith("[1]")


def test_the_spam_collection_has_all_its_messages_with_their_quotes():
    rows = read_rows(DATA / "sms_spam.tsv")
    assert len(rows) == 5574
    assert set(rows[0].cells) == {"Label", "SMS"}
    lines = (DATA / "sms_spam.tsv").read_text(encoding="utf-8").split("\n")
    assert [f"{row.cells['Label']}\t{row.cells['SMS']}" for row in rows] == lines[1:-1]
    assert sum('"' in row.cells["SMS"] for row in rows) == 145


def test_a_csv_reader_would_have_lost_messages():
    """Seeded bug: what reading that file with quotes would do."""
    with (DATA / "sms_spam.tsv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file, delimiter="\t"))) - 1 != 5574


def test_banking77():
    rows = read_rows(DATA / "banking77" / "train.csv")
    assert len(rows) == 10003
    lines = (DATA / "banking77" / "train.csv").read_text(encoding="utf-8").split("\n")
    for row in rows:
        line = lines[int(row.where.removeprefix("train.csv:")) - 1]
        assert line.lstrip('"').startswith(row.cells["text"].split("\n")[0].split('"')[0])


def broken(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_rows(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.csv", "p,c\n1,2\n1,2,3\n", ["a.csv:3", "3 cells", "header has 2: p, c"]),
        ("a.csv", 'p,c\n"x\ny",2\n1\n', ["a.csv:4", "1 cells"]),
        ("a.csv", 'p,c\n1,2\n"never closed,2\n1,2\n', ["a.csv:3", "closing quote"]),
        ("a.csv", 'p,c\n"a"b,2\n', ["a.csv:2", "expected after"]),
        ("a.csv", "p,p\n1,2\n", ["a.csv:1", "'p' more than once"]),
        ("a.csv", f"p,c\n{'x' * 140_000},2\n", ["a.csv:2", "limit", ".jsonl"]),
        ("a.csv", "p,c\n", ["holds no rows"]),
        ("a.csv", "", ["is empty"]),
        ("a.csv", " \n\n", ["is empty"]),
        ("a.csv", "p,c\n1,caf\u00e9\n".encode("latin-1"), ["a.csv:2", "not UTF-8", "0xe9", "iconv"]),
        ("a.csv", "p,c\n".encode("utf-16"), ["a.csv:1", "UTF-16"]),
        ("a.tsv", "p\tc\n1\n", ["a.tsv:2", "1 cells"]),
        ("a.jsonl", '{"a": 1}\n\n{"a": \n', ["a.jsonl:3", "bad JSON", "column"]),
        ("a.jsonl", '{"a": 1}\n[1]\n', ["a.jsonl:2", "not an array"]),
        ("a.jsonl", '[\n{"a": 1}\n]\n', ["a.jsonl:1", "name the file .json"]),
        ("a.json", '{"a": 1}\n{"a": 2}\n', ["a.json:2", "name the file .jsonl"]),
        ("a.json", '{"a": 1}', ["array of objects", "not an object"]),
        ("a.json", "[]", ["holds no rows"]),
        ("a.json", "[1]", ["a.json[0]", "not a number"]),
        ("a.json", "[" * 100_000, ["a.json:1", "nested too deeply"]),
        ("a.json", '[{"a": ' + "9" * 5000 + "}]", ["a.json:1", "more digits"]),
        ("a.jsonl", '{"a": 1}\n{"a": ' + "9" * 5000 + "}\n", ["a.jsonl:2", "more digits"]),
        ("a.parquet", "PAR1 no", ["a.parquet", "not a whole Parquet file"]),
        ("a.csv.gz", "p,c\n", ["a.csv.gz", "gzip"]),
        ("a.xlsx", "x", ["cannot tell", ".jsonl", ".parquet"]),
        ("a", "x", ["cannot tell"]),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, name, content, parts):
    message = broken(tmp_path, name, content)
    for part in parts:
        assert part in message


def test_a_missing_file_names_what_is_near(tmp_path):
    (tmp_path / "train.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"did you mean 'train.csv'.*Data files in"):
        read_rows(tmp_path / "trian.csv")
    with pytest.raises(DataError, match="there is no folder"):
        read_rows(tmp_path / "no" / "train.csv")
    with pytest.raises(DataError, match=r"is a folder.*train\.csv"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ({"train": []}, "pick one of its parts: 'train'"),
        (DatasetDict(train=Dataset.from_list(ROWS)), "pick one of its parts: 'train'"),
        (["text"], '{"text": ...}'),
        ([{"a": 1}, 5], r"rows[1]"),
        (5, "cannot read rows from 5"),
        (b"x", "cannot read rows"),
        ([], "holds no rows"),
    ],
)
def test_values_that_are_not_rows(source, part):
    with pytest.raises(DataError) as caught:
        read_rows(source)
    assert part in str(caught.value)


cells = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",), exclude_characters="\r\x00"), max_size=20)
tables_of_two = st.lists(st.tuples(cells.filter(str.strip), cells), min_size=1, max_size=8)


@settings(deadline=None)
@given(tables_of_two, st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.sampled_from(["\n", "\r\n"]))
def test_what_a_csv_writer_wrote_is_read_back(pairs, quoting, ending):
    for delimiter, read in ((",", read_csv), ("\t", read_tsv)):
        file = io.StringIO(newline="")
        csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=ending).writerows([("a", "b"), *pairs])
        assert [tuple(row.cells.values()) for row in read(file.getvalue(), "x")] == pairs


raw_cells = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",), exclude_characters="\r\n\t"), max_size=20)


@settings(deadline=None)
@given(st.lists(st.tuples(raw_cells, raw_cells), max_size=8))
def test_tab_separated_text_is_read_as_it_is(pairs):
    pairs.append(('5" disk', "x"))  # a quote within a cell: nothing is quoted here
    text = "\n".join("\t".join(pair) for pair in [("a", "b"), *pairs])
    assert [tuple(row.cells.values()) for row in read_tsv(text, "x")] == pairs


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers() | st.none()), max_size=6))
def test_json_lines_are_read_back_with_their_lines(rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in rows)
    read = read_json_lines(text, "x")
    assert [row.cells for row in read] == rows
    assert [row.where for row in read] == [f"x:{2 * index + 1}" for index in range(len(rows))]


def test_the_test_of_proper_quoting_is_linear():
    assert not tables._PROPERLY_QUOTED.fullmatch('"' + 'a""' * 200_000 + "\n")


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_table_with_another_separator_is_not_taken_for_one_of_a_single_column(tmp_path, separator):
    path = tmp_path / "rows.csv"
    path.write_text(f"prompt{separator}completion\nwhere{separator}here\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows.csv:1: one column.*separated by"):
        read_rows(path)
