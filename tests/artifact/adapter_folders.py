"""Makes adapter folders, honest ones and hostile ones."""

import json
import struct

import torch

from adapterkit import Adapter
from adapterkit.artifact.copies import check_copies
from adapterkit.artifact.fit import check_base, check_tensors
from adapterkit.artifact.manifest import BaseReference, Manifest
from adapterkit.fingerprint import fingerprint
from adapterkit.resident import expected_tensors
from adapterkit.sites import find_sites
from adapterkit_lora.config import LoraConfig

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."


def make_adapter(model, *, rank=4, **changes):
    """A LoRA with random factors on every q_proj and v_proj."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for site in find_sites(model):
        if site.name.endswith(("q_proj", "v_proj")):
            tensors[f"{site.name}.lora_A.weight"] = torch.randn(rank, site.in_features, generator=generator)
            tensors[f"{site.name}.lora_B.weight"] = torch.randn(site.out_features, rank, generator=generator)
    config = LoraConfig(rank=rank, alpha=8.0, target_modules=("v_proj", "q_proj"), **changes)
    manifest = Manifest(
        base=BaseReference(name="org/tiny", revision="abc123", fingerprint=fingerprint(model)),
        plugin="adapterkit 0.1.0",
        training={"data": {"digest": "f" * 64, "rows": 200}, "steps": 25, "loss": 0.25, "options": {"seed": 42}},
        evaluation={"results": [{"name": "test.csv", "scores": {"accuracy": 0.5}, "base": {"accuracy": 0.25}}]},
        versions={"torch": "2.13.0"},
    )
    return Adapter("lora", config, tensors, manifest)


def take(folder, model, registry):
    """What a base does before it takes an adapter from a folder."""
    adapter = Adapter.load(folder, registry=registry)
    method = registry.method(adapter.method)
    expected = expected_tensors(registry, method, adapter.config, find_sites(model))
    check_base(adapter.manifest, fingerprint(model))
    check_copies(adapter.copies, dict(model.named_parameters(remove_duplicate=False)))
    check_tensors(adapter.tensors, expected)
    return adapter


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -- the parts of a weights file --------------------------------------------------------------------------------------


def split(folder):
    """Header, as JSON, and data."""
    raw = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def join(folder, header, data):
    """Write a weights file; ``header`` may be JSON values or the very text."""
    text = header if isinstance(header, (bytes, str)) else json.dumps(header)
    raw = text.encode() if isinstance(text, str) else text
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def first(header):
    return next(name for name in header if name != "__metadata__")


def edit_header(change):
    """A step that changes the header's values and leaves the data alone."""

    def step(folder):
        header, data = split(folder)
        change(header)
        join(folder, header, data)

    return step


def add_tensor(name, *, dtype="F32", shape=(2,), data=None):
    """A step that adds a tensor to the file."""

    def step(folder):
        header, old = split(folder)
        new = bytes(4 * shape[0]) if data is None else data
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(old), len(old) + len(new)]}
        join(folder, header, old + new)

    return step


def rename_tensor(change):
    def step(header):
        name = first(header)
        header[change(name)] = header.pop(name)

    return edit_header(step)


def edit_config(**changes):
    """A step that changes values in PEFT's configuration."""

    def step(folder):
        path = folder / CONFIG
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return step


def write_config(text):
    def step(folder):
        (folder / CONFIG).write_text(text)

    return step
