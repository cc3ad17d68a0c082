"""Rows as LLaMA-Factory, Axolotl and TRL document them load with no option or with ``columns``, and train the answers."""

import json
import re
from pathlib import Path

import pytest

from adapterkit import DataError
from adapterkit.data.dataset import encode_rows
from adapterkit.data.rendering import Renderer
from tests.data.test_rendering import trained_texts
from tests.sample_tokenizers import TOOL_TOKENIZERS

FOLDER = Path(__file__).parent / "layouts"
DOCUMENTED = [
    pytest.param(layout, id=f"{file}: {name}")
    for file in ("llama_factory", "trl", "axolotl")
    for name, layout in json.loads((FOLDER / f"{file}.json").read_text(encoding="utf-8")).items()
]
CLOSINGS = ("<|im_end|>", "<|endoftext|>")


@pytest.fixture(scope="module")
def chatml():
    return TOOL_TOKENIZERS["chatml"]()


def trained(tokenizer, encoded):
    """What is trained of each row, turn by turn, without the tokens that end turns."""
    found = [trained_texts(tokenizer, example) for example in encoded.examples]
    for texts in found:
        assert all(text.endswith(CLOSINGS) for text in texts) or "<|endoftext|>" in texts[0]
    return [[re.sub(r"(<\|im_end\|>|<\|endoftext\|>)$", "", text) for text in texts] for texts in found]


@pytest.mark.parametrize("layout", DOCUMENTED)
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_documented_layouts(tmp_path, registry, chatml, layout, kind):
    path = tmp_path / f"rows.{kind}"
    rows = layout["rows"]
    path.write_text("\n".join(map(json.dumps, rows)) if kind == "jsonl" else json.dumps(rows), encoding="utf-8")
    renderer = Renderer(chatml, 2048)
    if "refused" in layout:
        with pytest.raises(DataError) as caught:
            encode_rows(path, renderer, registry)
        assert layout["refused"] in str(caught.value)
        return
    encoded = encode_rows(path, renderer, registry, columns=layout.get("columns"))
    assert trained(chatml, encoded) == layout["trained"]
    assert len(encoded.report.unusable) == len(rows) - len(layout["trained"])
    whole = chatml.decode(encoded.examples[0].input_ids)
    assert "system" not in rows[0] or rows[0]["system"] in whole
    assert "whole" not in layout or whole == layout["whole"]


def read(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith("json") else [json.loads(line) for line in text.splitlines()]


def said(row, roles):
    turns = row.get("conversations") or row.get("messages")
    return [one.get("value", one.get("content")) for one in turns if one.get("from", one.get("role")) in roles]


ANSWERS = {
    "llama_factory_alpaca.json": lambda row: [row["output"]],
    "llama_factory_identity.json": lambda row: [row["output"]],
    "llama_factory_dpo.json": lambda row: [row["chosen"]["value"]],
    "llama_factory_c4.jsonl": lambda row: [row["text"]],
    "llama_factory_kto.json": lambda row: said(row, ["assistant"]) if row["label"] else [],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_real_files(registry, chatml, name):
    encoded = encode_rows(FOLDER / name, Renderer(chatml, 4096), registry)
    assert trained(chatml, encoded) == [answer for row in read(name) if (answer := ANSWERS[name](row))]


def test_a_real_file_with_tools(registry, chatml):
    encoded = encode_rows(FOLDER / "llama_factory_toolcall.json", Renderer(chatml, 4096), registry)
    rows = read("llama_factory_toolcall.json")
    for row, texts in zip(rows, trained(chatml, encoded), strict=True):
        expected = said(row, ["gpt", "function_call"])
        assert len(texts) == len(expected)
        for text, answer in zip(texts, expected, strict=True):
            call = re.fullmatch(r"<tool_call>\n(.*)\n</tool_call>", text, re.DOTALL)
            assert (json.loads(call.group(1)) == json.loads(answer)) if call else text == answer
    wholes = [chatml.decode(one.input_ids) for one in encoded.examples]
    assert "calculate_discount" in wholes[0]
    assert all(observed in wholes[0] for observed in said(rows[0], ["observation"]))
    assert "# Tools" not in wholes[2]


def test_judged_rows_that_are_left_out_are_listed(registry, chatml):
    encoded = encode_rows(FOLDER / "llama_factory_kto.json", Renderer(chatml, 4096), registry)
    (row,) = encoded.report.unusable
    assert row.where == "llama_factory_kto.json[1]"
    assert "undesirable" in row.reason


def test_a_label_that_columns_do_not_name_is_a_column_like_any_other(registry, chatml):
    rows = [{"text": "q", "category": "a", "label": value} for value in (True, False)]
    columns = {"prompt": "text", "completion": "category"}
    assert len(encode_rows(rows, Renderer(chatml, 64), registry, columns=columns).examples) == 2
    assert len(encode_rows(rows, Renderer(chatml, 64), registry, columns={**columns, "label": "label"}).examples) == 1
    judged = [{"prompt": "q", "completion": "a", "label": False}, {"prompt": "q", "completion": "a", "label": True}]
    assert len(encode_rows(judged, Renderer(chatml, 64), registry, format="prompt-completion").examples) == 2
