"""Stock PEFT and transformers read what is published, straight from the Hub, by the repository's id."""

import os
import subprocess
import sys

import pytest
import torch

from adapterkit import Base, publish
from tests.publish.conftest import ABOUT, started
from tests.support import EXAMPLE_BASE, make_adapter

pytest.importorskip("peft")
READER = """
import sys
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM

ids = torch.arange(12).reshape(2, 6)
whole = AutoModelForCausalLM.from_pretrained("org/whole", revision="v1", dtype=torch.float32)(input_ids=ids).logits
base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
adapted = PeftModel.from_pretrained(base, "org/cards", revision="v1")(input_ids=ids).logits
found = AutoPeftModelForCausalLM.from_pretrained("org/cards", revision="v1", dtype=torch.float32)(input_ids=ids).logits
torch.save([whole.detach(), adapted.detach(), found.detach()], sys.argv[2])
"""


def test_what_is_published_answers_the_same_elsewhere(monkeypatch, tmp_path):
    base = Base(EXAMPLE_BASE, dtype="float32")
    adapter = make_adapter(base, rank=2, scale=0.05)
    whole = base.bake(adapter, tmp_path / "whole", max_shard_size="10MB").folder
    with started(monkeypatch, xet=True) as hub:
        hub.put("org/tiny", {path.name: path.read_bytes() for path in EXAMPLE_BASE.iterdir() if path.is_file()})
        publish(adapter, "hf://org/cards", **ABOUT, unevaluated=True)
        publish(whole, "hf://org/whole", **ABOUT)
        command = [sys.executable, "-c", READER, str(EXAMPLE_BASE), str(tmp_path / "logits.pt")]
        environ = {**os.environ, **hub.environment(), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environ, timeout=300, check=True)
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        here = base.logits(ids, adapter=adapter)
    for logits in torch.load(tmp_path / "logits.pt"):
        torch.testing.assert_close(logits, here, rtol=1e-4, atol=1e-4)
