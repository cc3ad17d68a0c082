"""What the tests of the bridge go through: every PEFT type, with options that fit tiny models, and what PEFT makes of them."""

import functools
import tempfile
import warnings
from pathlib import Path

import peft
import torch

from adapterkit import Adapter, Base
from adapterkit.artifact.manifest import Manifest
from adapterkit.config import build_config
from adapterkit.registry import default_registry
from adapterkit.resident import build_layers, flatten
from adapterkit.testing import tiny_gpt2, tiny_llama, tiny_qwen
from adapterkit_peft.catalogue import KINDS, PROMPTS

FAMILIES = {"llama": tiny_llama, "gpt2": tiny_gpt2, "qwen": tiny_qwen}
OPTIONS = {
    "DEFT": {"r": 4},
    "DELORA": {"r": 4},
    "FOURIERFT": {"n_frequency": 20},
    "GLORA": {"r": 4},
    "GRALORA": {"r": 4, "alpha": 8},
    "HIRA": {"r": 4},
    "HRA": {"r": 4},
    "LOHA": {"r": 2},
    "LORA": {"r": 4},
    "MISS": {"r": 4},
    "MULTITASK_PROMPT_TUNING": {"num_virtual_tokens": 3},
    "OFT": {"oft_block_size": 16},
    "PEANUT": {"r": 4},
    "POLY": {"r": 4},
    "PROMPT_TUNING": {"num_virtual_tokens": 3},
    "PVERA": {"r": 8},
    "P_TUNING": {"num_virtual_tokens": 3},
    "RANDLORA": {"r": 4},
    "VBLORA": {"num_vectors": 8},
    "VERA": {"r": 8},
    "WAVEFT": {"n_frequency": 20},
}
ON_LAYERS, SOFT = sorted(KINDS), sorted(PROMPTS)
WORKING = ON_LAYERS + SOFT
MAIN = ("IA3", "VERA", "LOHA", "LOKR", "OFT", "LN_TUNING")
# where PEFT has a layer for GPT-2's Conv1D, and can load what is saved for one
ON_GPT2 = [*(name for name in ON_LAYERS if KINDS[name].conv1d), *SOFT]
ON_BOTH = [*(("llama", name) for name in WORKING), *(("gpt2", name) for name in ON_GPT2)]
CLOSE = {"atol": 1e-5, "rtol": 0}


def name_of(peft_type):
    return f"peft:{peft_type.lower()}"


def method_of(peft_type):
    return default_registry().method(name_of(peft_type))


def configured(peft_type, base, **options):
    method = method_of(peft_type)
    config = build_config(method.config, {**OPTIONS.get(peft_type, {}), **options}, what="options")
    return default_registry().call("configure", method, config=config, sites=base.sites)


def fresh_layers(peft_type, base, **options):
    """Layers as they are before training, and their configuration."""
    config = configured(peft_type, base, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_layers(default_registry(), method_of(peft_type), config, base.sites), config


def moved_layers(peft_type, base, *, noise=0.1, **options):
    """Layers with everything that is trained moved away from where it started."""
    layers, config = fresh_layers(peft_type, base, **options)
    stream = torch.Generator().manual_seed(1)
    for parameter in layers.parameters():
        if parameter.requires_grad:
            parameter.data.add_(noise * torch.randn(parameter.shape, generator=stream))
    return layers.eval(), config


def adapter_of(peft_type, base, **options):
    """An adapter that was never trained but changes the base's answers plainly."""
    layers, config = moved_layers(peft_type, base, **options)
    method = method_of(peft_type)
    config, kept = default_registry().call("finish", method, config=config, layers=dict(layers.items()))
    return Adapter(method.name, config, flatten(kept), Manifest(base=base.reference, plugin="adapterkit test"))


@functools.cache
def saved(peft_type, family):
    """The folder of such an adapter."""
    folder = tempfile.mkdtemp(prefix="adapterkit-bridge-")
    return adapter_of(peft_type, Base(FAMILIES[family]())).save(Path(folder) / "ours")


def loaded_by_peft(folder, family):
    """A model with the adapter in a folder, as PEFT loads it, and what PEFT says of the keys."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(FAMILIES[family](), str(folder)).eval()
        return model, peft.set_peft_model_state_dict(model, peft.load_peft_weights(str(folder)))


@torch.no_grad()
def answers_of_peft(model, ids):
    """PEFT's logits, without those of virtual tokens."""
    kind = next(iter(model.peft_config.values())).peft_type.value
    tasks = {"task_ids": torch.zeros(len(ids), dtype=torch.long)} if kind in ("POLY", "MULTITASK_PROMPT_TUNING") else {}
    return model(input_ids=ids, **tasks).logits[:, -ids.shape[1] :]
