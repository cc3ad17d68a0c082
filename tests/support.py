"""What the tests share: real parts, small enough to make anew."""

import ast
import hashlib
import io
import json
import tokenize
from pathlib import Path

import torch

from adapterkit import Adapter
from adapterkit.artifact.manifest import Manifest
from adapterkit.config import build_config
from adapterkit.registry import default_registry
from adapterkit.resident import build_layers, flatten
from adapterkit.testing import tiny_gpt2, tiny_llama

ROOT = Path(__file__).parent.parent
EXAMPLE_BASE = ROOT / "examples" / "base"
DATA = ROOT / "examples" / "data"
_NOTHING = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
FAMILIES = {"llama": tiny_llama, "gpt2": tiny_gpt2}


def make_adapter(base, *, method="lora", seed=0, scale=0.2, **options):
    """An adapter that was never trained but changes the base's answers plainly."""
    registry = default_registry()
    chosen = registry.method(method)
    config = build_config(chosen.config, options, what="options")
    config = registry.call("configure", chosen, config=config, sites=base.sites)
    layers = build_layers(registry, chosen, config, base.sites)
    stream = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(tensor.shape, generator=stream) * scale for name, tensor in flatten(layers).items()}
    return Adapter(method, config, tensors, Manifest(base=base.reference, plugin="adapterkit test"))


def losses_of(folder):
    """The training losses that a run has logged."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def state_digest(model):
    """One digest over the names, types and bits of every parameter and buffer, aliases and non-persistent buffers included."""
    total = hashlib.sha256()
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(flat.view(torch.uint8).numpy().tobytes())
    total.update(" ".join(model.state_dict()).encode())
    return total.hexdigest()


def code_lines(source):
    """How many lines have code on them: blank lines, comments and docstrings are not counted."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for one in tokens if one.type not in _NOTHING for line in range(one.start[0], one.end[0] + 1)}
    texts = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr)]
    texts = [node for node in texts if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)]
    return len(lines - {line for node in texts for line in range(node.lineno, node.end_lineno + 1)})
