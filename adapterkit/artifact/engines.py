"""For which inference engines an adapter fits, judged by what their loaders are known to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ENGINES", "judge", "room_in_vllm"]

ENGINES = ("vllm", "sglang", "gguf", "mlx")
PLAIN = (".lora_A.weight", ".lora_B.weight")
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What it takes for ``--max-lora-rank``; an adapter may have any rank up to it."""

FITTING = {
    "vllm": "plain LoRA, read as it is; start with --max-lora-rank {rank} or more",
    "sglang": "plain LoRA, read as it is",
    "gguf": "plain LoRA; `adapterkit export --to gguf` makes the file, with the base's config.json",
    "mlx": "plain LoRA; `adapterkit export --to mlx` transposes both factors, as MLX wants them",
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


def room_in_vllm(rank: int) -> int:
    """The smallest ``--max-lora-rank`` of vLLM that holds an adapter of this rank; the largest where none does."""
    return next((one for one in VLLM_RANKS if one >= rank), VLLM_RANKS[-1])


def _judge(engine: str, fields: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, str]:
    obstacle = _obstacle(engine, fields or {}, names)
    if obstacle:
        return {"fits": "no", "reason": obstacle}
    uneven = _uneven(engine, fields or {})
    if uneven and engine in READ_AS_IT_IS:
        return {"fits": "after export", "reason": f"{uneven}; `adapterkit export` writes it plainly"}
    fits = "yes" if engine in READ_AS_IT_IS else "after export"
    return {"fits": fits, "reason": FITTING[engine].format(rank=(fields or {}).get("r"))}


def _uneven(engine: str, fields: Mapping[str, Any]) -> str:
    """What the engine would read otherwise than it is meant, and what an export brings into B."""
    if fields.get("rank_pattern") or fields.get("alpha_pattern"):
        return "ranks or scales differ between layers"
    return (
        "rank-stabilised: it takes the scale for alpha / rank" if fields.get("use_rslora") and engine != "vllm" else ""
    )


def _obstacle(engine: str, fields: Mapping[str, Any], names: tuple[str, ...]) -> str:
    rank = fields.get("r", 0)
    more_than_lora = (
        any(
            fields.get(name) for name in ("use_dora", "modules_to_save", "target_parameters", "trainable_token_indices")
        )
        or fields.get("bias", "none") != "none"
    )
    obstacles = (
        (fields.get("peft_type") != "LORA", "not LoRA: its loader reads nothing else"),
        (more_than_lora, "more than plain LoRA: DoRA, trained biases, tokens or experts, or whole saved modules"),
        (not all(name.endswith(PLAIN) for name in names), "holds tensors besides lora_A and lora_B of linear layers"),
        (engine == "vllm" and rank > VLLM_RANKS[-1], f"rank {rank} is over its limit of {VLLM_RANKS[-1]}"),
    )
    return next((reason for found, reason in obstacles if found), "")
