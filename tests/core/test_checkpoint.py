"""The files of a model, read by themselves: as transformers reads them, and nothing from elsewhere on the machine."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from adapterkit.checkpoint import CONFIG, INDEX, WHOLE, Checkpoint, config_of, model_without_weights
from adapterkit.errors import BaseLoadError
from adapterkit.loading import Source, load_base
from adapterkit.testing import tiny_llama

Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    tiny_llama().save_pretrained(folder / "whole")
    tiny_llama(seed=1).save_pretrained(folder / "sharded", max_shard_size="20KB")
    return folder


@pytest.fixture
def sharded(written, tmp_path):
    return shutil.copytree(written / "sharded", tmp_path / "sharded")


@pytest.fixture
def whole(written, tmp_path):
    return shutil.copytree(written / "whole", tmp_path / "whole")


def indexed(folder):
    return json.loads((folder / INDEX).read_text())


def rewrite(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refusal(call, *args):
    """What a call is refused with: a line, and one of ours."""
    with pytest.raises(BaseLoadError) as refused:
        call(*args)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# -- which files ------------------------------------------------------------------------------------------------------


def test_of_one_file_and_an_index_the_one_counts_that_transformers_reads(sharded, written):
    shutil.copy(written / "whole" / WHOLE, sharded)
    theirs = AutoModelForCausalLM.from_pretrained(sharded).get_parameter(Q)
    assert torch.equal(Checkpoint.open(sharded).read(Q), theirs)
    assert not torch.equal(load_file(sharded / indexed(sharded)["weight_map"][Q])[Q], theirs)


def test_another_file_that_the_configuration_names_is_refused(whole):
    (whole / WHOLE).rename(whole / "mine.safetensors")
    rewrite(whole / CONFIG, transformers_weights="mine.safetensors")
    AutoModelForCausalLM.from_pretrained(whole)  # which reads it
    assert "'mine.safetensors': save the model with save_pretrained" in refusal(Checkpoint.open, whole)


# -- nothing from elsewhere -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["../outside/{}", "{outside}/{}"])
def test_an_index_that_names_a_file_elsewhere_is_refused_by_name(place, sharded, tmp_path):
    shutil.copytree(sharded, tmp_path / "outside")
    places = indexed(sharded)["weight_map"]
    places[Q] = place.format(places[Q], outside=tmp_path / "outside")
    rewrite(sharded / INDEX, weight_map=places)
    said = refusal(Checkpoint.open, sharded)
    assert f"sharded' is refused: {places[Q]!r} leads out of the folder; put the file itself there" in said


@pytest.mark.parametrize("name", [CONFIG, INDEX, "model-00002-of-00005.safetensors"])
def test_a_link_that_leads_elsewhere_is_refused_by_name(name, sharded, tmp_path):
    shutil.move(sharded / name, tmp_path / name)
    (sharded / name).symlink_to(tmp_path / name)
    assert f"{name!r} leads out of the folder" in refusal(Checkpoint.open, sharded)


def test_a_link_to_one_file_of_weights_elsewhere_is_refused(whole, tmp_path):
    shutil.move(whole / WHOLE, tmp_path / WHOLE)
    (whole / WHOLE).symlink_to(tmp_path / WHOLE)
    assert f"{WHOLE!r} leads out of the folder" in refusal(Checkpoint.open, whole)


def test_a_link_within_the_folder_is_read(whole):
    (whole / "files").mkdir()
    shutil.move(whole / WHOLE, whole / "files" / "one")
    (whole / WHOLE).symlink_to("files/one")
    assert Q in Checkpoint.open(whole).files


def test_the_links_of_the_hubs_cache_are_read_and_those_of_another_model_there_are_not(sharded, tmp_path):
    names = sorted(path.name for path in sharded.iterdir())
    snapshot, blobs = tmp_path / "models--me--mine" / "snapshots" / "abc", tmp_path / "models--me--mine" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, name in enumerate(names):
        shutil.move(sharded / name, blobs / f"{number}")
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    checkpoint = Checkpoint.open(snapshot)
    assert torch.equal(checkpoint.read(Q), tiny_llama(seed=1).get_parameter(Q))
    (tmp_path / "models--me--other").mkdir()
    shutil.move(blobs, tmp_path / "models--me--other")
    for number, name in enumerate(names):
        (snapshot / name).unlink()
        (snapshot / name).symlink_to(f"../../../models--me--other/blobs/{number}")
    assert "leads out of the folder" in refusal(Checkpoint.open, snapshot)


# -- files that are broken on purpose ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "must hold a JSON object, not list"),
        ("{}", "weight_map is no table of file names"),
        ("[" * 100_000, "nested too deeply"),
        ('{"weight_map": ["x"]}', "weight_map is no table of file names"),
        ('{"weight_map": null}', "weight_map is no table of file names"),
        ('{"weight_map": {"a": 3}}', "weight_map is no table of file names"),
        ('{"weight_map": {"a": null}}', "weight_map is no table of file names"),
        ('{"weight_map": {"a": "\\u0000"}}', "null byte"),
        ('{"weight_map": {}}', "has no tensors"),
        ('{"weight_map": {"a": "none.safetensors"}}', "lacks 'none.safetensors'"),
    ],
)
def test_an_index_that_is_none_is_refused_by_its_name(text, why, sharded):
    (sharded / INDEX).write_text(text)
    said = refusal(Checkpoint.open, sharded)
    assert why in said
    assert str(sharded) in said


def test_a_file_without_tensors_is_refused(whole):
    save_file({}, whole / WHOLE, metadata={"format": "pt"})
    assert "has no tensors" in refusal(Checkpoint.open, whole)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"hidden_size": -1}, "hidden size (-1)"),
        ({"hidden_size": "x"}, "expected int, got str"),
        ({"num_key_value_heads": 0}, "by zero"),
        ({"dtype": "float8"}, "no attribute 'float8'"),
        ({"hidden_act": "nope"}, "KeyError"),
        ({"vocab_size": -5}, "negative"),
        ({"model_type": "nope"}, "nope"),
    ],
)
def test_a_configuration_that_no_model_has_is_refused_by_its_file(changes, why, whole):
    rewrite(whole / CONFIG, **changes)
    said = refusal(lambda: model_without_weights(config_of(whole)))
    assert str(whole / CONFIG) in said
    assert why in said
    assert str(whole) in refusal(load_base, Source(location=whole))


@pytest.mark.parametrize("data", [b"[" * 100_000, b"[]", b"\xff\xfe\0", b"{"])
def test_a_configuration_that_is_no_json_object_is_refused_by_its_file(data, whole):
    (whole / CONFIG).write_bytes(data)
    assert str(whole / CONFIG) in refusal(config_of, whole)
