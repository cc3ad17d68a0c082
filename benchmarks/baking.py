"""Baking an adapter into a checkpoint of 8 billion weights: the time, and the most memory that it takes.

The checkpoint has the shapes of Llama 3.1 8B and random weights in bfloat16, in files of 5 GB; the adapter is a LoRA of rank 16 on
all linear layers. Both, and the baked model, lie in a folder of --folder, which needs twice 16 GB, and are gone when it ends.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from figures import report
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from adapterkit import Adapter, Base
from adapterkit.artifact.manifest import Manifest
from adapterkit.baking.shards import Shard, Stored, parse_size, plan_shards, write_index, write_shard
from adapterkit.registry import default_registry
from adapterkit.resident import expected_tensors
from adapterkit.sites import find_sites
from adapterkit_lora import LoraConfig

BAR = 4 << 30
SHAPES = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
PIECE = 1 << 24
SITE = "model.layers.0.mlp.down_proj"


def make_base(folder: Path, config: LlamaConfig) -> int:
    """Write random weights, a piece at a time; how many bytes they have."""
    with torch.device("meta"):
        shapes = {name: tuple(one.shape) for name, one in LlamaForCausalLM(config).named_parameters()}
    tensors = {name: Stored("BF16", shape, 2 * torch.Size(shape).numel()) for name, shape in shapes.items()}
    shards = plan_shards(tensors, parse_size("5GB"))
    config.save_pretrained(folder)
    stream = torch.Generator().manual_seed(0)
    numbers = (torch.randn(PIECE, generator=stream) * 0.02).to(torch.bfloat16)

    def pieces(shard: Shard) -> Iterator[torch.Tensor]:
        for one in shard.tensors.values():
            for left in range(one.size // 2, 0, -PIECE):
                shift = int(torch.randint(PIECE, (), generator=stream))
                yield numbers.roll(shift)[:left]

    for shard in shards:
        write_shard(folder / shard.name, shard, pieces(shard))
    write_index(folder, shards)
    return sum(one.size for one in tensors.values())


def make_adapter(config: LlamaConfig) -> Adapter:
    """A LoRA whose update is about a hundredth of the weights, as one that was trained."""
    with torch.device("meta"):
        sites = find_sites(LlamaForCausalLM(config))
    registry = default_registry()
    method = registry.method("lora")
    options = method.configure(LoraConfig(rank=16), sites)
    stream = torch.Generator().manual_seed(1)
    shapes = expected_tensors(registry, method, options, sites)
    return Adapter(
        "lora", options, {k: torch.randn(v, generator=stream) * 0.005 for k, v in shapes.items()}, Manifest()
    )


def bake(folder: Path) -> None:
    """The process that is measured."""
    start = time.perf_counter()
    made = Base(folder / "base").bake(Adapter.load(folder / "adapter"), folder / "baked")
    seconds = time.perf_counter() - start
    # what getrusage says begins with the peak of the process that started this one
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "survived": made.survived}))


def read(folder: Path, name: str) -> torch.Tensor:
    """One tensor of a model's folder."""
    index = folder / "model.safetensors.index.json"
    file = json.loads(index.read_text())["weight_map"][name] if index.is_file() else "model.safetensors"
    with safe_open(folder / file, "pt") as opened:
        return opened.get_tensor(name)


def is_right(folder: Path) -> bool:
    """Whether one layer is the sum in float32, cast once, and one that no adapter changes is as it was."""
    down, up = (Adapter.load(folder / "adapter").tensors[f"{SITE}.lora_{one}.weight"] for one in "AB")
    want = (read(folder / "base", f"{SITE}.weight").float() + 2.0 * (up @ down)).to(torch.bfloat16)
    got = read(folder / "baked", f"{SITE}.weight")
    # the order of the sums in a product is the library's: a number between two others may go to either
    differing = (want != got).float().mean()
    untouched = torch.equal(read(folder / "base", "lm_head.weight"), read(folder / "baked", "lm_head.weight"))
    return untouched and bool(differing < 1e-3) and torch.allclose(want.float(), got.float(), atol=1e-3, rtol=1e-2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="where to; the folder for temporary files by default")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--only-bake", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_bake:
        bake(options.only_bake)
        return
    config = LlamaConfig(**SHAPES, num_hidden_layers=options.layers, tie_word_embeddings=False, dtype="bfloat16")
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="baking-") as name:
        folder = Path(name)
        size = make_base(folder / "base", config)
        make_adapter(config).save(folder / "adapter")
        command = [sys.executable, __file__, "--only-bake", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        right = is_right(folder)
        report(
            f"peak memory of baking {size / 1e9:.1f} GB of weights, {found['seconds']:.0f} s, "
            + (f"{found['survived']:.1%} of the update survived" if right else "WRONG WEIGHTS"),
            f"{found['peak'] / 2**30:.2f} GiB",
            "",
            f"{found['peak'] / size:.0%} of the weights",
            "4 GiB",
            met=right and found["peak"] < BAR,
        )


if __name__ == "__main__":
    main()
