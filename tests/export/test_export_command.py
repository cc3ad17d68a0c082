"""`adapterkit export`."""

import json

import pytest
import torch

from adapterkit import Adapter, Base, Blend
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
    both = base.logits(IDS, adapter=Blend({one: 0.5, other: 1.0}))
    torch.testing.assert_close(base.logits(IDS, adapter=Adapter.load(tmp_path / "out")), both, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--to", "mlx"], "\n  - --base: this form needs the folder of the base"),
        (["--to", "ggu"], "did you mean 'gguf'"),
        (["--to", "ggml"], "did you mean 'gguf', a LoRA for llama.cpp"),
    ],
)
def test_misuse_exits_2_and_leaves_nothing(words, why, base, tmp_path, capsys):
    folder = make_adapter(base, rank=3).save(tmp_path / "adapter")
    assert main(["export", str(folder), str(tmp_path / "out"), *words]) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("one", "is the input"),
        ("other", "is the input"),
        ("other/inside", "lies in the input"),
        ("link", "is the input"),
        ("base", "is the input"),
        ("notes", "holds something that is no adapter"),
    ],
)
def test_no_input_and_nothing_else_is_written_over(output, why, base, tmp_path, capsys):
    one, other = make_adapter(base, rank=3), make_adapter(base, rank=2, seed=1)
    folders = {one: one.save(tmp_path / "one"), other: other.save(tmp_path / "other")}
    Blend({one: 0.5, other: 1.0}).save(tmp_path / "mix.json", folders)
    tiny_llama().config.save_pretrained(tmp_path / "base")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    for acting in (f"{tmp_path}/one+{tmp_path}/other", f"{tmp_path}/mix.json"):
        words = ["export", acting, str(tmp_path / output), "--base", str(tmp_path / "base")]
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "OUTPUT does not fit" in said
        assert why in said
    assert sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()) == before


def test_an_adapter_that_is_not_there_is_misuse(tmp_path, capsys):
    assert main(["export", str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert "no adapter" in capsys.readouterr().err
