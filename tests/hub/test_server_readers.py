"""Stock PEFT and transformers load straight from the test Hub by the repository's name."""

import os
import subprocess
import sys

import pytest
import torch

from adapterkit import Base
from adapterkit.testing import tiny_llama
from adapterkit.testing.hub import Hub
from tests.support import make_adapter

pytest.importorskip("peft")
READER = """
import sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("org/base")
plain = base(input_ids=torch.arange(12).reshape(2, 6)).logits
model = PeftModel.from_pretrained(base, "org/adapter", revision="v1")
adapted = model(input_ids=torch.arange(12).reshape(2, 6)).logits
torch.save([plain.detach(), adapted.detach()], sys.argv[1])
"""


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("xet", [pytest.param(True, id="xet"), pytest.param(False, id="lfs", marks=pytest.mark.slow)])
def test_peft_and_transformers_load_by_name(tmp_path, xet):
    base = tiny_llama()
    original = make_adapter(Base(tiny_llama())).save(tmp_path / "adapter")
    base.save_pretrained(tmp_path / "base")
    with Hub(xet=xet) as hub:
        hub.put("org/base", contents(tmp_path / "base"))
        hub.put("org/adapter", contents(original), private=True)
        hub.repository("org/adapter").add_ref("tag", "v1", "main")
        hub.put("org/adapter", {"adapter_config.json": b"later, and no adapter"})
        command = [sys.executable, "-c", READER, str(tmp_path / "logits.pt")]
        environ = {**os.environ, **hub.environment(), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        asked = [seen.path for seen in hub.requests]
        assert any("/xet-read-token/" in path for path in asked) == xet
    plain, adapted = torch.load(tmp_path / "logits.pt")
    with torch.no_grad():
        torch.testing.assert_close(plain, base(input_ids=torch.arange(12).reshape(2, 6)).logits)
    assert (adapted - plain).abs().max() > 1e-3
