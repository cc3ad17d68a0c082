"""What is saved is what is loaded, and always the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch

from adapterkit import Adapter, ArtifactError, LayerMethod
from adapterkit.artifact.loader import read_artifact
from adapterkit.artifact.writer import write_artifact
from adapterkit.hooks import hookimpl
from adapterkit.registry import Registry
from tests.artifact.adapter_folders import contents, make_adapter, take

SAVE = """
import sys, adapterkit_lora
from tests.artifact.adapter_folders import make_adapter
from adapterkit.registry import Registry
from adapterkit.testing import tiny_llama
registry = Registry(found=(), environ={})
registry.add(adapterkit_lora)
make_adapter(tiny_llama()).save(sys.argv[1], registry=registry)
"""


def test_a_loaded_adapter_is_the_saved_one(adapter, original, model, registry):
    loaded = take(original, model, registry)
    assert loaded == adapter
    assert loaded.config == adapter.config
    assert loaded.manifest == adapter.manifest
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in adapter.tensors.items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_trained_type_comes_back_bit_by_bit(adapter, registry, tmp_path, dtype):
    other = attrs.evolve(adapter, tensors={name: tensor.to(dtype) for name, tensor in adapter.tensors.items()})
    loaded = Adapter.load(other.save(tmp_path / "a", registry=registry), registry=registry)
    assert {tensor.dtype for tensor in loaded.tensors.values()} == {dtype}
    assert loaded == other


def test_saved_again_from_what_was_loaded_it_is_the_same_bytes(original, registry, tmp_path):
    again = Adapter.load(original, registry=registry).save(tmp_path / "elsewhere", registry=registry)
    assert contents(again) == contents(original)


def test_two_processes_with_other_hash_seeds_write_the_same_bytes(original, tmp_path):
    for seed in ("1", "2"):
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        environ = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        subprocess.run([sys.executable, "-c", SAVE, str(tmp_path / seed)], check=True, env=environ)
        assert contents(tmp_path / seed) == contents(original)


def test_the_folder_holds_four_files_that_all_may_read(original):
    assert set(contents(original)) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "adapterkit.json",
        "README.md",
    }
    assert len({path.stat().st_mode for path in original.iterdir()}) == 1


def test_numbers_that_are_not_finite_in_a_report_do_not_cost_the_adapter(adapter, registry, tmp_path):
    manifest = attrs.evolve(adapter.manifest, evaluation={"perplexity": float("inf"), "loss": float("nan")})
    folder = attrs.evolve(adapter, manifest=manifest).save(tmp_path / "a", registry=registry)
    assert Adapter.load(folder, registry=registry).manifest.evaluation == {"perplexity": "inf", "loss": "nan"}


def test_the_card_is_for_people_and_may_be_edited(saved, adapter, registry):
    (saved / "README.md").write_text("mine")
    assert Adapter.load(saved, registry=registry) == adapter


def test_files_of_others_are_left_unread(saved, adapter, registry):
    (saved / "adapter_model.bin").write_bytes(b"\x80\x04not for us")
    os.mkfifo(saved / "pipe")
    assert Adapter.load(saved, registry=registry) == adapter


def test_an_adapter_that_could_not_be_read_again_is_not_written(adapter, registry, tmp_path):
    name = next(iter(adapter.tensors))
    for bad in (torch.full((4, 32), float("nan")), torch.zeros(4, 32, dtype=torch.int8), torch.zeros(0, 32)):
        broken = attrs.evolve(adapter, tensors={**adapter.tensors, name: bad})
        with pytest.raises(ArtifactError, match="is not saved"):
            broken.save(tmp_path / "a", registry=registry)
    assert not list(tmp_path.iterdir())


def test_a_manifest_that_json_cannot_say_is_not_written(adapter, registry, tmp_path):
    strange = attrs.evolve(adapter, manifest=attrs.evolve(adapter.manifest, training={"data": object()}))
    with pytest.raises(ArtifactError, match="cannot be written as JSON"):
        strange.save(tmp_path / "a", registry=registry)
    assert not list(tmp_path.iterdir())


def test_a_manifest_that_would_not_be_read_again_is_not_written(adapter, registry, tmp_path):
    long = attrs.evolve(adapter, manifest=attrs.evolve(adapter.manifest, training={"log": "x" * 2_000_000}))
    with pytest.raises(ArtifactError, match=r"adapterkit\.json would have 2,00.* at most 1,048,576 are read"):
        long.save(tmp_path / "a", registry=registry)
    assert not list(tmp_path.iterdir())


def test_an_adapter_is_not_written_under_the_digest_of_another(adapter, registry, tmp_path):
    with pytest.raises(ArtifactError, match="the digest 000000000000… is not that of these tensors"):
        write_artifact(
            tmp_path / "a",
            method=registry.method("lora"),
            config=adapter.config,
            tensors=adapter.tensors,
            manifest=adapter.manifest,
            digest="0" * 64,
        )
    assert not list(tmp_path.iterdir())


def test_weights_beyond_the_given_limit_are_refused(original, registry):
    assert read_artifact(original, registry, max_bytes=100_000)
    with pytest.raises(ArtifactError, match=r"at most 1,000 are read \(max_bytes\)"):
        read_artifact(original, registry, max_bytes=1000)


# -- a method that PEFT does not have ---------------------------------------------------------------------------------


@attrs.frozen
class ShiftConfig:
    target_modules: tuple[str, ...] = ("q_proj",)


class Shift(torch.nn.Module):
    def __init__(self, site, config):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(site.out_features))


class ShiftPlugin:
    @hookimpl
    def adapterkit_methods(self):
        yield LayerMethod("shift", ShiftConfig, Shift)


@pytest.fixture
def shifting():
    registry = Registry(found=(), environ={})
    registry.add(ShiftPlugin())
    return registry


def shift_adapter(model):
    names = [f"model.layers.{i}.self_attn.q_proj.shift" for i in range(2)]
    return Adapter("shift", ShiftConfig(), {name: torch.randn(32) for name in names})


def test_a_method_without_a_peft_form_is_saved_without_one(model, shifting, tmp_path):
    adapter = shift_adapter(model)
    folder = adapter.save(tmp_path / "a", registry=shifting)
    assert not (folder / "adapter_config.json").exists()
    assert 'library_name: "adapterkit"' in (folder / "README.md").read_text()
    assert take(folder, model, shifting) == adapter


def test_a_peft_form_slipped_in_beside_it_is_refused(model, shifting, original, tmp_path):
    folder = shift_adapter(model).save(tmp_path / "a", registry=shifting)
    (folder / "adapter_config.json").write_bytes((original / "adapter_config.json").read_bytes())
    with pytest.raises(ArtifactError, match=r"the folder holds adapter_config\.json"):
        Adapter.load(folder, registry=shifting)


def test_an_adapter_of_an_unknown_method_says_who_made_it(original, shifting):
    with pytest.raises(ArtifactError, match=r"made by adapterkit 0\.1\.0: no method 'lora'"):
        Adapter.load(original, registry=shifting)


def test_two_adapters_of_other_content_have_other_digests(adapter, model):
    assert make_adapter(model) == adapter
    assert make_adapter(model, dropout=0.5) != adapter
