"""`adapterkit bake`."""

import pytest
import torch

from adapterkit import Base
from adapterkit.cli import main
from tests.support import EXAMPLE_BASE, make_adapter


@pytest.fixture(scope="module")
def base():
    return Base(EXAMPLE_BASE)


def test_bake_writes_a_model_and_prints_its_folder(base, tmp_path, capsys):
    adapter = make_adapter(base, rank=2, scale=0.05)
    folder = adapter.save(tmp_path / "adapter")
    assert main(["bake", str(EXAMPLE_BASE), str(folder), str(tmp_path / "whole"), "--dtype", "float32"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "whole")
    ids = torch.tensor([[5, 6, 7]])
    baked = Base(tmp_path / "whole", dtype="float32")
    torch.testing.assert_close(baked.logits(ids), base.logits(ids, adapter=adapter), atol=1e-4, rtol=0)


def test_a_folder_that_holds_something_is_left_alone(base, tmp_path, capsys):
    folder = make_adapter(base, rank=2).save(tmp_path / "adapter")
    before = sorted(path.name for path in folder.iterdir())
    assert main(["bake", str(EXAMPLE_BASE), str(folder), str(folder)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == before
