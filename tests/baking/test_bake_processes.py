"""A bake in a process of its own: killed while it writes, with a full disk, and measured."""

import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from adapterkit import Adapter, Base
from adapterkit.artifact.manifest import Manifest
from adapterkit.baking.shards import Stored, plan_shards, write_index
from adapterkit.errors import ArtifactError
from adapterkit.registry import default_registry
from adapterkit.resident import expected_tensors
from adapterkit.sites import find_sites
from adapterkit.testing import tiny_llama
from adapterkit_lora import LoraConfig
from tests.support import ROOT, make_adapter


def run(how, base, adapter, output):
    command = [sys.executable, "-m", "tests.baking.bake_killing", how, base, adapter, output]
    return subprocess.run([str(one) for one in command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def place(tmp_path):
    """A base of several files, an adapter, and a folder for what is made of them."""
    return furnished(tmp_path)


def furnished(folder):
    tiny_llama().save_pretrained(folder / "base", max_shard_size="20KB")
    make_adapter(Base(tiny_llama()), rank=2).save(folder / "adapter")
    (folder / "out").mkdir()
    return folder


def test_a_killed_bake_leaves_no_folder_and_the_next_one_clears_up_after_it(place):
    died = run("killed", place / "base", place / "adapter", place / "out" / "model")
    assert died.returncode == -signal.SIGKILL
    (left,) = (place / "out").iterdir()
    assert left.name.startswith(".adapterkit-")  # hidden, and no model
    assert not (left / "config.json").exists()
    base = Base(place / "base")
    base.bake(Adapter.load(place / "adapter"), place / "out" / "other")
    assert [path.name for path in (place / "out").iterdir()] == ["other"]


def test_what_another_process_is_writing_is_left_alone(place):
    fcntl = pytest.importorskip("fcntl")
    busy, foreign = place / "out" / ".adapterkit-0123456789abcdef", place / "out" / ".adapterkit-fedcba9876543210"
    for folder in (busy, foreign):
        folder.mkdir()
    (busy / "adapterkit-bake.json").write_text("{}")
    (foreign / "adapter_model.safetensors").touch()  # an adapter that is being saved
    code = f"import fcntl, os, time; fcntl.flock(os.open({str(busy)!r}, 0), fcntl.LOCK_EX); print(1, flush=True); time.sleep(60)"
    assert fcntl
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        base = Base(place / "base")
        base.bake(Adapter.load(place / "adapter"), place / "out" / "model")
        assert busy.is_dir()
        assert foreign.is_dir()
        writer.kill()


def test_a_disk_that_fills_up_is_said_and_leaves_nothing(place, monkeypatch):
    failed = run("full", place / "base", place / "adapter", place / "out" / "model")
    assert f"refused: '{place}/out/model' cannot be written: File too large" in failed.stderr
    assert not any((place / "out").iterdir())
    usage = namedtuple("usage", "total used free")(1, 1, 100_000)  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ArtifactError, match=r"the model takes 0.0 GB, and 0.0 GB are free there"):
        Base(place / "base").bake(Adapter.load(place / "adapter"), place / "out" / "model")
    assert not any((place / "out").iterdir())


def without_weights(config):
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def write_random(folder, config):
    """A checkpoint of 32 MB files, written one by one; its size in bytes."""
    shapes = {name: one.shape for name, one in without_weights(config).named_parameters()}
    shards = plan_shards(
        {name: Stored("BF16", tuple(one), one.numel() * 2) for name, one in shapes.items()}, 32 * 10**6
    )
    numbers = torch.randn(4096 * 1024).to(torch.bfloat16) * 0.02
    for shard in shards:
        save_file(
            {name: numbers[: one.size // 2].view(one.shape).clone() for name, one in shard.tensors.items()},
            folder / shard.name,
        )
    write_index(folder, shards)
    return sum(one.size for shard in shards for one in shard.tensors.values())


def adapter_for(config):
    sites, method = find_sites(without_weights(config)), default_registry().method("lora")
    config = method.configure(LoraConfig(rank=16), sites)
    shapes = expected_tensors(default_registry(), method, config, sites)
    return Adapter("lora", config, {name: torch.randn(shape) * 0.01 for name, shape in shapes.items()}, Manifest())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_is_that_of_a_layer_and_not_of_the_model(tmp_path):
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 12, "vocab_size": 1024}
    config = LlamaConfig(**sizes, num_attention_heads=8, dtype="bfloat16", tie_word_embeddings=True)
    base = tmp_path / "base"
    config.save_pretrained(base)
    size = write_random(base, config)
    assert size > 380e6
    adapter_for(config).save(tmp_path / "adapter")
    (tmp_path / "small").mkdir()
    (furnished(tmp_path / "small") / "out").rmdir()
    done = run("measured", base, tmp_path / "adapter", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout)
    assert 0 < grown < size / 4, f"{grown / 1e6:.0f} MB for a model of {size / 1e6:.0f} MB"
