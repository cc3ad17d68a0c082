"""How few numbers adapters train: the figures that the literature states, counted on layers and bases of the true shapes.

Nothing is trained and no weights are made: the bases are on the meta device, which has shapes alone.
"""

import torch
from figures import report
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from adapterkit import Base, Site
from adapterkit.config import build_config
from adapterkit.registry import Registry, default_registry
from adapterkit.resident import build_layers, expected_tensors, plan_of_layers
from adapterkit.sites import find_sites
from adapterkit.testing import tiny_llama

LLAMA_7B = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}


def count(registry: Registry, method: str, sites: tuple[Site, ...], **options: object) -> int:
    """How many numbers an adapter of these options has."""
    chosen = registry.method(method)
    config = build_config(chosen.config, options, what="options")
    config = registry.call("configure", chosen, config=config, sites=sites)
    shapes = expected_tensors(registry, chosen, config, sites).values()
    return sum(torch.Size(shape).numel() for shape in shapes)


def starts_as_the_base() -> bool:
    """Whether a fresh LoRA on every linear layer changes not one bit of the logits."""
    base = Base(tiny_llama())
    method = base.registry.method("lora")
    ids = torch.arange(1, 40)[None]
    bare = base.model(ids).logits
    layers = build_layers(base.registry, method, method.config(alpha=32.0), base.sites)
    with base.runtime.override(plan_of_layers("lora", layers)):
        return torch.equal(base.model(ids).logits, bare)


def main() -> None:
    """Print one line for each figure."""
    registry = default_registry()
    layer = Site("layer", "linear", 4096, 4096, module=nn.Linear(4096, 4096, bias=False, device="meta"))
    whole, ours = 4096 * 4096, count(registry, "lora", (layer,), rank=16, target_modules=["layer"])
    met = ours == 131_072 and whole // ours == 128
    report(
        "LoRA r16 on a 4096×4096 layer",
        f"{ours:,}",
        f"{whole:,} in full",
        f"1/{whole // ours}",
        "131,072; 1/128",
        met=met,
    )

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA_7B))
    sites, total = find_sites(model), sum(parameter.numel() for parameter in model.parameters())
    for what, targets in (("query and value", ["q_proj", "v_proj"]), ("all linear layers", "all-linear")):
        ours = count(registry, "lora", sites, rank=16, target_modules=targets)
        share = ours / total
        met = 0.001 <= share <= 0.01
        report(f"LoRA r16 on a 7B base, {what}", f"{ours:,}", f"{total:,}", f"{share:.2%}", "0.1% to 1%", met=met)
    ours = count(registry, "prompt_tuning", sites, tokens=20)
    share = ours / total
    report("20 soft tokens on a 7B base", f"{ours:,}", f"{total:,}", f"{share:.4%}", "under 0.01%", met=share < 1e-4)
    met = starts_as_the_base()
    report("a fresh LoRA beside the base", "ΔW = 0" if met else "differs", "", "", "the same to the bit", met=met)


if __name__ == "__main__":
    main()
