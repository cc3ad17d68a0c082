"""`adapterkit export`."""

import json

import pytest
import torch

from adapterkit import Adapter, Base
from adapterkit.cli import main
from adapterkit.testing import tiny_llama
from tests.support import make_adapter

IDS = torch.tensor([[5, 6, 7]])


@pytest.fixture(scope="module")
def base():
    return Base(tiny_llama())


def test_it_writes_a_folder_prints_it_and_says_how_to_use_it(base, tmp_path, capsys):
    folder = make_adapter(base, rank=3).save(tmp_path / "adapter")
    assert main(["export", str(folder), str(tmp_path / "out"), "--to", "vllm"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "out")
    assert "--max-lora-rank 8" in said.err


def test_a_blend_is_exported_as_one(base, tmp_path, capsys):
    one, other = make_adapter(base, rank=3), make_adapter(base, rank=2, seed=1)
    text = f"{one.save(tmp_path / 'one')}*0.5+{other.save(tmp_path / 'other')}"
    assert main(["export", text, str(tmp_path / "out"), "--json"]) == 0
    assert "adapter_model.safetensors" in json.loads(capsys.readouterr().out)["files"]
    from adapterkit import Blend

    both = base.logits(IDS, adapter=Blend({one: 0.5, other: 1.0}))
    torch.testing.assert_close(base.logits(IDS, adapter=Adapter.load(tmp_path / "out")), both, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--to", "mlx"], "base: this form needs the folder of the base"),
        (["--to", "ggu"], "did you mean 'gguf'"),
    ],
)
def test_misuse_exits_2_and_leaves_nothing(words, why, base, tmp_path, capsys):
    folder = make_adapter(base, rank=3).save(tmp_path / "adapter")
    assert main(["export", str(folder), str(tmp_path / "out"), *words]) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_is_not_there_is_misuse(tmp_path, capsys):
    assert main(["export", str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert "no adapter" in capsys.readouterr().err
