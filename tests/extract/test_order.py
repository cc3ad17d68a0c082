"""The base comes first: what a folder says of itself shows where it does not."""

import json
from types import SimpleNamespace

import pytest

from adapterkit import Base, SelectionError, extract
from adapterkit.cli import main
from adapterkit.testing import tiny_llama, tiny_moe
from tests.support import make_adapter

SWAPPED = "the arguments are the other way round; the base comes first"
NO_TOKENIZER = SimpleNamespace(save_pretrained=lambda folder: None)
"""For a folder without one."""


@pytest.fixture
def baked(saved, tmp_path):
    """The folders of a base and of what was baked from it."""
    base = Base(saved(tiny_llama(), "base"), tokenizer=NO_TOKENIZER)
    adapter = make_adapter(base, method="full", scale=0.02, target_modules=["q_proj"])
    return tmp_path / "base", base.bake(adapter, tmp_path / "whole").folder


def test_a_baked_model_is_no_base_of_its_own_base(baked, tmp_path, capsys):
    base, whole = baked
    assert extract(base, whole, rank=2).manifest.lineage["rank"] == 2
    with pytest.raises(SelectionError, match=f"whole' was baked from .*base': {SWAPPED}"):
        extract(whole, base, rank=2)
    assert main(["extract", str(whole), str(base), str(tmp_path / "out")]) == 2
    assert SWAPPED in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_base_is_known_by_its_weights_wherever_it_lies(baked, tmp_path):
    base, whole = baked
    with pytest.raises(SelectionError, match=SWAPPED):
        extract(whole, base.rename(tmp_path / "elsewhere"), rank=2)


def test_the_base_is_known_by_its_place_where_its_weights_say_nothing(baked):
    base, whole = baked
    report = json.loads((whole / "adapterkit-bake.json").read_text())
    report["base"]["fingerprint"] = ""
    (whole / "adapterkit-bake.json").write_text(json.dumps(report))
    with pytest.raises(SelectionError, match=SWAPPED):
        extract(whole, base, rank=2)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"base": 3}', '{"base": {"name": 3}}', '{"base": {"name": ""}}'])
def test_a_report_that_says_nothing_is_no_obstacle(text, baked):
    base, whole = baked
    (whole / "adapterkit-bake.json").write_text(text)
    assert extract(whole, base, rank=2)


def test_what_was_tuned_from_a_baked_model_has_it_for_a_base(baked, saved, tuned):
    _, whole = baked
    model = type(tiny_llama()).from_pretrained(whole)
    assert extract(whole, saved(tuned(model, "k_proj.weight", rank=1), "tuned"), rank=1)


def test_what_was_tuned_from_a_baked_mixture_has_it_for_a_base_and_not_the_other_way_round(saved, tuned, tmp_path):
    base = Base(saved(tiny_moe(), "base"), tokenizer=NO_TOKENIZER)
    whole = base.bake(make_adapter(base, scale=0.1, target_modules=["q_proj"]), tmp_path / "whole").folder
    model = type(tiny_moe()).from_pretrained(whole)
    assert extract(whole, saved(tuned(model, "k_proj.weight", rank=1), "tuned"), rank=1)
    with pytest.raises(SelectionError, match=SWAPPED):
        extract(whole, tmp_path / "base", rank=1)


def test_an_adapter_is_no_base(baked, tmp_path):
    base, _ = baked
    adapter = extract(*baked, rank=2).save(tmp_path / "adapter")
    with pytest.raises(SelectionError, match=f"adapter' is an adapter, and .*base' a model: {SWAPPED}"):
        extract(adapter, base)
    assert extract(base, adapter, rank=1)
