"""What cannot be extracted is refused by name: folders, weights and options."""

import functools

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapterkit import ConfigError, SelectionError, extract
from adapterkit.errors import BaseLoadError
from adapterkit.lowrank import of_rank
from adapterkit.testing import tiny_llama, tiny_qwen

V = "model.layers.0.self_attn.v_proj.weight"


def restore(folder, dtype):
    """Store a weight that was not tuned in another type."""
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, V: tensors[V].to(dtype)}, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("which", [0, 1])
def test_weights_that_are_stored_in_what_is_not_computed_with_are_refused_by_name(dtype, which, pair):
    restore(pair[which], dtype)
    stored = rf"{V}' is stored in {str(dtype).removeprefix('torch.')} in '.*{pair[which].name}': give the model"
    with pytest.raises(SelectionError, match=stored):
        extract(*pair)


def test_weights_that_are_the_same_may_be_stored_in_anything(pair):
    for folder in pair:
        restore(folder, torch.float8_e4m3fn)
    assert extract(*pair, rank=3).manifest.lineage["error"] < 1e-5


def test_the_same_model_twice_has_nothing_in_it(pair):
    with pytest.raises(SelectionError, match="no weight of a target differs"):
        extract(pair[0], pair[0])


def test_another_architecture_is_refused(pair, saved):
    with pytest.raises(SelectionError, match="the base is a llama and what was tuned a qwen2"):
        extract(pair[0], saved(tiny_qwen(), "other"))


def test_another_vocabulary_is_refused_by_name(pair, saved):
    with pytest.raises(SelectionError, match=r"'model.embed_tokens.weight' is \(97, 32\) in the base and \(99, 32\)"):
        extract(pair[0], saved(tiny_llama(vocab_size=99), "other"))


def test_a_missing_layer_is_refused_by_name(pair, saved):
    with pytest.raises(
        SelectionError, match=r"other' lacks 9 of the weights that .*: model.layers.1.self_attn.q_proj.weight"
    ):
        extract(pair[0], saved(tiny_llama(num_hidden_layers=1), "other"))


def test_numbers_that_are_not_finite_are_refused_by_name(pair, saved, tuned):
    model = tuned(tiny_llama(), "q_proj.weight")
    model.model.layers[1].self_attn.q_proj.weight.data[3, 3] = torch.nan
    with pytest.raises(SelectionError, match=r"layers.1.self_attn.q_proj.weight' holds numbers that are not finite"):
        extract(pair[0], saved(model, "broken"))


def test_folders_that_hold_no_model_are_refused(pair, tmp_path):
    with pytest.raises(BaseLoadError, match="has no config"):
        extract(tmp_path, pair[1])
    (pair[1] / "model.safetensors").rename(pair[1] / "pytorch_model.bin")
    with pytest.raises(BaseLoadError, match="in safetensors"):
        extract(*pair)


def test_a_file_that_is_cut_short_is_refused(pair):
    file = pair[1] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BaseLoadError, match="cannot be read"):
        extract(*pair)


def test_an_error_that_no_number_can_tell_is_refused():
    with pytest.raises(
        ConfigError, match="max_error: must be between 1e-06, below which float32 rounds, and 1, not 1e-08"
    ):
        extract("nowhere", "nowhere", max_error=1e-8)


def test_an_error_that_is_not_met_is_said(pair, caplog, monkeypatch):
    extract(*pair, max_error=1e-6)
    assert not caplog.messages
    monkeypatch.setattr(
        "adapterkit.extracting.engine.within_error", lambda matrix, _, stream: of_rank(matrix, 1, stream)
    )
    worst = max(one["error"] for one in extract(*pair, max_error=0.01).manifest.lineage["sites"].values())
    assert [f"is {worst:.2g} at every rank" in said for said in caplog.messages] == [True]
    assert caplog.messages[0].startswith("max_error=0.01 is not met: the error of model.layers.")


@pytest.mark.parametrize("rank", [33, 10**6, 10**30])
def test_a_rank_that_no_layer_has_is_refused(rank, pair):
    with pytest.raises(ConfigError, match=rf"rank={rank} is over its limit: a weight \(32, 32\) has 32 directions"):
        extract(*pair, rank=rank, target_modules="all-linear")


def test_the_default_rank_is_for_small_layers_too(saved, tuned):
    make = functools.partial(tiny_llama, hidden_size=8, intermediate_size=8)
    base, folder = saved(make(), "base"), saved(tuned(make(), "q_proj.weight"), "tuned")
    assert {one["rank"] for one in extract(base, folder).manifest.lineage["sites"].values()} == {8}


@pytest.mark.parametrize(
    "options",
    [{"seed": "x"}, {"seed": 2**70}, {"seed": -1}, {"seed": True}, {"target_modules": 3}, {"target_modules": [3]}],
)
def test_values_that_are_none_are_refused_by_name(options):
    with pytest.raises(ConfigError, match=rf"- {next(iter(options))}: must be .*not "):
        extract("nowhere", "nowhere", **options)


def test_options_that_contradict_each_other_are_refused_together():
    with pytest.raises(ConfigError) as refused:
        extract("nowhere", "nowhere", rank=0, max_error=1.5)
    assert len(refused.value.problems) == 3
