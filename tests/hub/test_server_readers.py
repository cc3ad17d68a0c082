"""Stock PEFT and transformers load straight from the test Hub by the repository's name."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi

from adapterkit import Base
from adapterkit.testing import tiny_llama
from adapterkit.testing.hub import Hub
from tests.support import make_adapter

peft = pytest.importorskip("peft")
IDS = torch.arange(12).reshape(2, 6)
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


@pytest.mark.slow  # tests/publish/test_readers.py does the same with what is published
@pytest.mark.parametrize("xet", [pytest.param(True, id="xet"), pytest.param(False, id="lfs")])
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
        torch.testing.assert_close(plain, base(input_ids=IDS).logits)
        from_disk = peft.PeftModel.from_pretrained(base, original)
        torch.testing.assert_close(adapted, from_disk(input_ids=IDS).logits)
    assert (adapted - plain).abs().max() > 1e-3


@pytest.mark.slow
def test_it_can_be_run_by_hand():
    command = [sys.executable, "-m", "adapterkit.testing.hub"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            printed = [running.stdout.readline() for _ in range(3)]
            set_to = dict(line.removeprefix("export ").strip().split("=", 1) for line in printed)
            api = HfApi(endpoint=set_to["HF_ENDPOINT"], token=set_to["HF_TOKEN"])
            assert api.create_repo("org/name").repo_id == "org/name"
        finally:
            running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
        assert not Path(set_to["HF_HOME"]).exists()
