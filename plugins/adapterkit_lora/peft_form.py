"""Reads PEFT's LoRA configuration as data: known fields only, and nothing that would act otherwise here than there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit import build_config

from .config import LoraConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read"]

TRANSLATED = {
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "target_modules",
    "exclude_modules": "exclude_modules",
    "use_rslora": "use_rslora",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
}
PEFT_DEFAULTS = {"r": 8, "lora_alpha": 8}
# Fields that say nothing about what the trained tensors do.
DESCRIPTIVE = {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
}
# Initialisations after which the base's own weights are as they were; PiSSA, OLoRA, CorDA and LoftQ change them.
HARMLESS_INITIALISATIONS = (True, False, None, "gaussian", "eva", "orthogonal")


def read(values: Mapping[str, Any]) -> LoraConfig:
    """The same configuration here.

    Raises:
        ValueError: A field asks for what this method does not do, or has a value that does not fit.
    """
    if values.get("init_lora_weights", True) not in HARMLESS_INITIALISATIONS:
        raise ValueError(f"init_lora_weights={values['init_lora_weights']!r} changes the base's own weights")
    if values.get("bias", "none") != "none":
        raise ValueError(f"bias={values['bias']!r}: trained biases are not read")
    known = {*TRANSLATED, *DESCRIPTIVE, "init_lora_weights", "bias"}
    asked = sorted(name for name, value in values.items() if name not in known and not _says_nothing(value))
    if asked:
        raise ValueError(f"{asked[0]}={values[asked[0]]!r} is not what plain LoRA does")
    told = {**PEFT_DEFAULTS, **{name: value for name, value in values.items() if value is not None}}
    options = {ours: told[theirs] for theirs, ours in TRANSLATED.items() if theirs in told}
    return build_config(LoraConfig, _in_order(options), what="fields of adapter_config.json")


def _in_order(options: dict[str, Any]) -> dict[str, Any]:
    # PEFT writes sets, in an order that differs from process to process: the same adapter must be the same here
    return {name: sorted(value, key=str) if isinstance(value, list) else value for name, value in options.items()}


def _says_nothing(value: Any) -> bool:
    # by kind, not by truth: layers_to_transform=0 says a good deal
    return value is None or value is False or value in ("", [], {})
