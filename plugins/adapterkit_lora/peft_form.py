"""PEFT's LoRA configuration, written and read as data: known fields only, and nothing that would act otherwise here than there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit import build_config

from .config import LoraConfig, contradictions

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read", "written"]

TRANSLATED = {
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "target_modules",
    "exclude_modules": "exclude_modules",
    "layers_to_transform": "layers_to_transform",
    "layers_pattern": "layers_pattern",
    "use_rslora": "use_rslora",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
    "use_dora": "use_dora",
    "bias": "bias",
    "modules_to_save": "modules_to_save",
    "trainable_token_indices": "trainable_token_indices",
    "target_parameters": "target_parameters",
    "ensure_weight_tying": "ensure_weight_tying",
    "fan_in_fan_out": "fan_in_fan_out",
}
PEFT_DEFAULTS = {"r": 8, "lora_alpha": 8}
# Fields that say nothing about what the trained tensors do.
DESCRIPTIVE = {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
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
    known = {*TRANSLATED, *DESCRIPTIVE}
    asked = sorted(name for name, value in values.items() if name not in known and not _says_nothing(value))
    if asked:
        raise ValueError(f"{asked[0]}={values[asked[0]]!r} is not what LoRA does here")
    told = {**PEFT_DEFAULTS, **{name: value for name, value in values.items() if value is not None}}
    options = {ours: told[theirs] for theirs, ours in TRANSLATED.items() if theirs in told}
    config = build_config(LoraConfig, _in_order(options), what="fields of adapter_config.json")
    wrong = contradictions(config)
    if wrong:
        raise ValueError("; ".join(wrong))
    return config


def written(config: LoraConfig) -> dict[str, Any]:
    """PEFT's fields for a configuration."""
    ours = {theirs: getattr(config, name) for theirs, name in TRANSLATED.items()}
    plain = {name: list(value) or None for name, value in ours.items() if isinstance(value, tuple)}
    return {
        **ours,
        **plain,
        "lora_alpha": _whole(config.alpha or 2.0 * config.rank),
        "alpha_pattern": {name: _whole(alpha) for name, alpha in config.alpha_pattern.items()},
        "rank_pattern": dict(config.rank_pattern),
        "target_modules": plain.get("target_modules", ours["target_modules"]) or [],
        "bias": config.bias or "none",
        "init_lora_weights": True,
    }


def _whole(alpha: float) -> int | float:
    # readers such as Ollama and llama.cpp expect a whole alpha to be written as one
    return int(alpha) if alpha == int(alpha) else alpha


def _in_order(options: dict[str, Any]) -> dict[str, Any]:
    # PEFT writes sets, in an order that differs from process to process: the same adapter must be the same here
    sets = ("target_modules", "exclude_modules", "modules_to_save", "target_parameters")
    return {
        name: sorted(value, key=str) if name in sets and isinstance(value, list) else value
        for name, value in options.items()
    }


def _says_nothing(value: Any) -> bool:
    # by kind, not by truth: layers_to_transform=0 says a good deal
    return value is None or value is False or value in ("", [], {})
