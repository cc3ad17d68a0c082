"""For which inference engines an adapter fits, judged by what their loaders are known to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ENGINES", "judge"]

ENGINES = ("vllm", "sglang", "gguf", "mlx")
PLAIN = (".lora_A.weight", ".lora_B.weight")
VLLM_MOST_RANK = 512

FITTING = {
    "vllm": "plain LoRA, read as it is; start with --max-lora-rank {rank} or more",
    "sglang": "plain LoRA, read as it is",
    "gguf": "plain LoRA; llama.cpp's convert_lora_to_gguf.py makes the file, with the base's config.json",
    "mlx": "plain LoRA; MLX wants adapters.safetensors with both factors transposed",
}
READ_AS_IT_IS = ("vllm", "sglang")


def judge(fields: Mapping[str, Any] | None, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """``{"fits": "yes", "after export" or "no", "reason": …}`` by engine.

    Args:
        fields: What ``adapter_config.json`` says; None when PEFT has no such method.
        names: The names of the adapter's tensors.
    """
    names = tuple(names)
    return {engine: _judge(engine, fields, names) for engine in ENGINES}


def _judge(engine: str, fields: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, str]:
    obstacle = _obstacle(engine, fields or {}, names)
    if obstacle:
        return {"fits": "no", "reason": obstacle}
    fits = "yes" if engine in READ_AS_IT_IS else "after export"
    return {"fits": fits, "reason": FITTING[engine].format(rank=(fields or {}).get("r"))}


def _obstacle(engine: str, fields: Mapping[str, Any], names: tuple[str, ...]) -> str:
    if fields.get("peft_type") != "LORA":
        return "not LoRA: its loader reads nothing else"
    if fields.get("use_dora") or fields.get("modules_to_save") or fields.get("bias", "none") != "none":
        return "more than plain LoRA: DoRA, trained biases or whole saved modules"
    if not all(name.endswith(PLAIN) for name in names):
        return "holds other tensors than lora_A and lora_B of linear layers"
    if fields.get("rank_pattern") or fields.get("alpha_pattern"):
        return "ranks or scales differ between layers: it applies one scale to all"
    if fields.get("use_rslora") and engine != "vllm":
        return "rank-stabilised scale: it takes the scale for alpha / rank"
    if engine == "vllm" and fields.get("r", 0) > VLLM_MOST_RANK:
        return f"rank {fields['r']} is over its limit of {VLLM_MOST_RANK}"
    return ""
