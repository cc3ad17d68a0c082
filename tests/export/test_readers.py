"""Exports read by the programs that they are for, and their answers beside ours."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

from adapterkit import Base
from adapterkit.testing import tiny_gpt2, tiny_llama, tiny_qwen
from adapterkit.testing.models import SIZES
from tests.support import make_adapter

HERE = Path(__file__).parent
IDS = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38]
pytestmark = pytest.mark.slow


def ours(base, adapter=None):
    return base.logits(torch.tensor([IDS]), adapter=adapter)[0]


# -- llama.cpp --------------------------------------------------------------------------------------------------------


def by_llama_cpp(model, adapter=None):
    """The logits of every token by llama.cpp."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama.cpp: pip install llama-cpp-python builds it")
    lora = None if adapter is None else str(adapter)
    exact = {"type_k": 0, "type_v": 0}  # float32, where the cache would be in half precision
    reader = llama_cpp.Llama(
        str(model), lora_path=lora, logits_all=True, n_ctx=64, n_threads=1, flash_attn=False, verbose=False, **exact
    )
    reader.eval(IDS)
    return torch.tensor(reader.scores[: len(IDS)])


def tiny(name, kind="", **changes):
    """A tiny model of another architecture, with random weights."""
    import transformers

    config = getattr(transformers, f"{kind or name}Config")(**{**SIZES, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, f"{name}ForCausalLM")(config).eval()


FAMILIES = {
    "llama": (tiny_llama, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
    "llama head": (tiny_llama, ["lm_head", "q_proj"]),
    "mistral": (lambda **more: tiny("Mistral", sliding_window=None, **more), ["q_proj", "k_proj", "up_proj"]),
    "qwen3": (lambda **more: tiny("Qwen3", head_dim=16, **more), ["q_proj", "k_proj", "o_proj"]),
    "gemma": (lambda **more: tiny("Gemma", head_dim=16, **more), ["q_proj", "k_proj", "gate_proj"]),
    "gemma2": (
        lambda **more: tiny("Gemma2", head_dim=16, query_pre_attn_scalar=16, **more),
        ["q_proj", "k_proj", "down_proj"],
    ),
    "gemma3": (
        lambda **more: tiny("Gemma3", head_dim=16, query_pre_attn_scalar=16, kind="Gemma3Text", **more),
        ["q_proj", "k_proj", "down_proj"],
    ),
    "phi3": (lambda **more: tiny("Phi3", sliding_window=64, **more), ["qkv_proj", "o_proj", "gate_up_proj"]),
    "qwen": (tiny_qwen, ["q_proj", "k_proj", "down_proj"]),
    "gpt2": (tiny_gpt2, ["c_attn", "c_fc", "c_proj"]),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_answers_as_we_do(family, tmp_path):
    pytest.importorskip("gguf")
    from tests.export.gguf_base import write_base

    make, targets = FAMILIES[family]
    base = Base(make())
    make().save_pretrained(tmp_path / "base")
    write_base(make(), tmp_path / "base.gguf")
    alone = by_llama_cpp(tmp_path / "base.gguf")
    torch.testing.assert_close(alone, ours(base), atol=5e-4, rtol=0)
    adapter = make_adapter(base, rank=6, rank_pattern={targets[0]: 3}, use_rslora=True, target_modules=targets)
    adapter.export(tmp_path / "gguf", "gguf", base=tmp_path / "base")
    adapted = by_llama_cpp(tmp_path / "base.gguf", tmp_path / "gguf" / "adapter.gguf")
    torch.testing.assert_close(adapted, ours(base, adapter), atol=5e-4, rtol=0)
    assert (adapted - alone).abs().max() > 0.02


# -- mlx-lm -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mlx_python(tmp_path_factory):
    """A Python with mlx-lm: the one that ADAPTERKIT_MLX_PYTHON names, or one in an environment made for this."""
    named = os.environ.get("ADAPTERKIT_MLX_PYTHON")
    if named:
        return named
    folder = tmp_path_factory.mktemp("mlx")
    venv.create(folder, symlinks=os.name != "nt")
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    wanted = ["mlx" if sys.platform == "darwin" else "mlx[cpu]", "mlx-lm"]
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    if done.returncode:
        pytest.skip(f"mlx-lm cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen", "qwen3", "gemma", "gemma2", "phi3"])
def test_mlx_answers_as_we_do(family, mlx_python, tmp_path):
    make, targets = FAMILIES[family]
    base = Base(make(num_hidden_layers=3))
    base.model.save_pretrained(tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    rope = config["rope_parameters"]
    config["rope_theta"] = rope.get("full_attention", rope)["rope_theta"]  # where mlx-lm looks for it
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    adapter = make_adapter(
        base, rank=6, alpha=9.0, rank_pattern={targets[0]: 3}, target_modules=targets, layers_to_transform=[1]
    )
    adapter.export(tmp_path / "mlx", "mlx", base=tmp_path / "base")
    command = [mlx_python, HERE / "mlx_reader.py", tmp_path / "base", tmp_path / "mlx"]
    done = subprocess.run(
        list(map(str, command)), input=json.dumps([IDS]), capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    alone, adapted = (torch.tensor(one)[0] for one in json.loads(done.stdout.splitlines()[-1]))
    torch.testing.assert_close(alone, ours(base), atol=5e-4, rtol=0)
    torch.testing.assert_close(adapted, ours(base, adapter), atol=5e-4, rtol=0)
    assert (adapted - alone).abs().max() > 0.02
