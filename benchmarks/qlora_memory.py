"""Peak memory of QLoRA on a base of the shape of Llama 3.1 8B, rank 16 on all linear layers, every token trained.

The base has random weights and is made in 4 bits layer by layer: never are more than one layer's weights there in 16 bits, so
that what is measured is training. `--tiny` runs the same on a CPU, where there is nothing to measure, to see that it runs.
"""

import argparse
import json
import sys
from typing import Any

import torch
from figures import report
from transformers import AutoTokenizer, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from adapterkit import Base

LLAMA_8B = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
TINY = {
    "vocab_size": 8192,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SHAPES = {(4, 2048): 8.0, (1, 512): 6.5}
"""Rows of a batch and tokens of a row, and the GiB that the peak of a run may have as `qlora` is by default."""
OTHERS = (
    {"activation_offload": True},
    {"tokens_per_pass": None},
    {"tokens_per_pass": None, "activation_offload": True},
)
GIB = 2**30


def four_bit_llama(shape: dict[str, int], device: torch.device) -> Any:
    """A Llama in NF4 with double quantization; embeddings, norms and head in bfloat16."""
    config = LlamaConfig(
        **shape, max_position_embeddings=8192, rope_parameters={"rope_type": "default", "rope_theta": 5e5}
    )
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    settings.bnb_4bit_compute_dtype = torch.bfloat16
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model = replace_with_bnb_linear(model, modules_to_not_convert=["lm_head"], quantization_config=settings)
    model.config.quantization_config = settings
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, materialise(parameter, module, device))
    with device:
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


def materialise(parameter: torch.nn.Parameter, module: torch.nn.Module, device: torch.device) -> torch.nn.Parameter:
    """Random weights, of a size at which activations neither grow nor vanish; in 4 bits at once where the layer is."""
    kind = type(parameter)
    shape = (module.out_features, module.in_features) if kind.__name__ == "Params4bit" else parameter.shape
    weight = torch.ones(shape, dtype=torch.bfloat16, device=device)
    if parameter.dim() > 1:
        weight.normal_(std=0.02)
    if kind is torch.nn.Parameter:
        return kind(weight, requires_grad=False)
    return kind(weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=module).to(device)


def rows_of(tokenizer: Any, count: int, length: int) -> list[dict[str, str]]:
    """Texts that fill ``length`` tokens; what is longer is cut."""
    text = " ".join(f"{number}" for number in range(length))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: length - 1]
    return [{"text": tokenizer.decode(ids)}] * count


def measure(base: Base, rows: int, length: int, **options: Any) -> dict[str, float]:
    """The peak of three steps, with all that a run does before and after them."""
    on_gpu = base.device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    adapter = base.train(
        rows_of(base.tokenizer, 3 * rows, length),
        method="qlora",
        rank=16,
        batch_size=rows,
        max_length=length,
        max_steps=3,
        **options,
    )
    base.unload(adapter)
    data = adapter.manifest.training["data"]
    return {
        "tokens_in_a_step": data["tokens"] // 3,
        "trained_in_a_step": data["trained_tokens"] // 3,
        "allocated": torch.cuda.max_memory_allocated() / GIB if on_gpu else 0.0,
        "reserved": torch.cuda.max_memory_reserved() / GIB if on_gpu else 0.0,
    }


def said(record: dict[str, Any]) -> None:
    """Every figure, beside those that have a bar."""
    print(json.dumps(record), file=sys.stderr, flush=True)


def main() -> None:
    """One line for each shape; the same with other options beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a small base on the CPU")
    parser.add_argument("--tokenizer", default="examples/base", help="any tokenizer: the words do not matter")
    chosen = parser.parse_args()
    device = torch.device("cpu" if chosen.tiny else "cuda")
    base = Base(
        four_bit_llama(TINY if chosen.tiny else LLAMA_8B, device),
        tokenizer=AutoTokenizer.from_pretrained(chosen.tokenizer),
    )
    said({"in": base.quantized, "at_rest": torch.cuda.memory_allocated() / GIB if device.type == "cuda" else 0.0})
    for (rows, length), bar in SHAPES.items():
        length = 64 if chosen.tiny else length  # noqa: PLW2901
        found = measure(base, rows, length)
        report(
            f"QLoRA r16 of an 8B base, {rows} rows of {length} tokens, peak allocated",
            f"{found['allocated']:.2f} GiB (reserved {found['reserved']:.2f})",
            "",
            "",
            f"at most {bar} GiB",
            met=found["allocated"] <= bar,
        )
        said({"rows": rows, "length": length, **found})
        for options in OTHERS:
            said({"rows": rows, "length": length, **options, **measure(base, rows, length, **options)})


if __name__ == "__main__":
    main()
