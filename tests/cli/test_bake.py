"""`adapterkit bake`."""

import json

import pytest
import torch

from adapterkit import Base, Blend
from adapterkit.cli import main
from tests.support import EXAMPLE_BASE, make_adapter


@pytest.fixture(scope="module")
def base():
    return Base(EXAMPLE_BASE)


def test_bake_writes_a_model_and_prints_its_folder(base, tmp_path, capsys):
    adapter = make_adapter(base, rank=2, scale=0.05)
    folder = adapter.save(tmp_path / "adapter")
    assert main(["bake", str(EXAMPLE_BASE), str(folder), str(tmp_path / "whole"), "--dtype", "float32"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "whole")
    assert said.err == "56 parameters changed; 100.0% of the update survives the cast to float32\n"
    ids = torch.tensor([[5, 6, 7]])
    baked = Base(tmp_path / "whole", dtype="float32")
    torch.testing.assert_close(baked.logits(ids), base.logits(ids, adapter=adapter), atol=1e-4, rtol=0)


def test_a_folder_that_holds_something_is_left_alone(base, tmp_path, capsys):
    folder = make_adapter(base, rank=2).save(tmp_path / "adapter")
    other = make_adapter(base, rank=2, seed=1).save(tmp_path / "other")
    before = sorted(path.name for path in other.iterdir())
    assert main(["bake", str(EXAMPLE_BASE), str(folder), str(other)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert sorted(path.name for path in other.iterdir()) == before


@pytest.mark.parametrize(("output", "how"), [("adapter", "is"), ("adapter/whole", "lies in"), (".", "holds")])
def test_no_input_is_written_over(output, how, base, tmp_path, capsys):
    folder = make_adapter(base, rank=2).save(tmp_path / "adapter")
    before = sorted(path.name for path in folder.iterdir())
    assert main(["bake", str(EXAMPLE_BASE), f"{folder}*0.5", str(tmp_path / output)]) == 2
    assert f"{how} the input '{folder}'" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--max-shard-size", "big"], "\n  - --max-shard-size: 'big' is no size"),
        (["--min-survived", "2"], "\n  - --min-survived: must be from 0 to 1"),
        (["--dtype", "int8"], "error: --dtype 'int8' is not one of auto, "),
    ],
)
def test_options_are_named_as_they_are_written(words, why, base, tmp_path, capsys):
    folder = make_adapter(base, rank=2).save(tmp_path / "adapter")
    assert main(["bake", str(EXAMPLE_BASE), str(folder), str(tmp_path / "whole"), *words]) != 0
    assert why in capsys.readouterr().err


def test_several_adapters_are_baked_with_their_weights(base, tmp_path, capsys):
    one, other = (make_adapter(base, rank=2, scale=0.05, seed=seed) for seed in (0, 1))
    folders = [str(adapter.save(tmp_path / name)) for name, adapter in (("one", one), ("other", other))]
    text = f"{folders[0]}*0.7+{folders[1]}*-0.3"
    options = ["--dtype", "float32", "--max-shard-size", "5MB", "--json"]
    assert main(["bake", str(EXAMPLE_BASE), text, str(tmp_path / "whole"), *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(part["digest"], part["weight"]) for part in said["adapters"]] == [(one.digest, 0.7), (other.digest, -0.3)]
    assert len(list((tmp_path / "whole").glob("model-*.safetensors"))) > 4
    blend = Blend({one: 0.7, other: -0.3})
    file = blend.save(tmp_path / "blend.json", {one: folders[0], other: folders[1]})
    assert main(["bake", str(EXAMPLE_BASE), str(file), str(tmp_path / "same"), *options]) == 0
    assert json.loads(capsys.readouterr().out) == said
    for path in (tmp_path / "whole").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "same" / path.name).read_bytes()


def test_what_is_rounded_away_is_refused_unless_told(base, tmp_path, capsys):
    folder = make_adapter(base, rank=2, scale=0.001).save(tmp_path / "adapter")
    command = ["bake", str(EXAMPLE_BASE), str(folder), str(tmp_path / "whole")]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "% of the update survives the cast to bfloat16, and 50% are asked for" in said
    assert "a base with --dtype float32 keeps it all; --min-survived 0 writes it as it is" in said
    assert not (tmp_path / "whole").exists()
    assert main([*command, "--min-survived", "0"]) == 0
    assert "; least at model.layers." in capsys.readouterr().err


def test_an_adapter_that_is_not_there_is_said_before_anything_is_read(tmp_path, capsys):
    assert main(["bake", "org/none", f"{tmp_path}/none*2", str(tmp_path / "whole")]) == 2
    assert "ADAPTER does not fit" in capsys.readouterr().err
