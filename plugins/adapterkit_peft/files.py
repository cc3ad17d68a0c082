"""PEFT's files: ``adapter_config.json`` from options and back, and the names of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from adapterkit import SHARED, build_config

from .options import fields_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["from_disk", "read", "to_disk", "written"]

MODEL = "base_model.model."
"""What PEFT puts before the name of a tensor of a layer."""
TUNER = "base_model."
"""What PEFT puts before the name of a tensor that all layers share."""

DESCRIPTIVE = {
    *(
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "peft_type",
        "peft_version",
        "revision",
        "task_type",
    ),
    *("fan_in_fan_out", "megatron_core", "num_attention_heads", "num_layers", "qalora_group_size", "runtime_config"),
    *("progressbar", "tokenizer_kwargs", "tokenizer_name_or_path"),
}
"""Fields that say nothing about what the trained tensors do."""


def written(peft_type: str, config: Any, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """PEFT's fields for a configuration."""
    told = {name: field["default"] for name, field in fields_of(peft_type).items() if "nested" not in field["types"]}
    return {**told, **fixed, **{name: getattr(config, name) for name in _options(type(config))}}


def read(peft_type: str, options: type, values: Mapping[str, Any], fixed: Mapping[str, Any]) -> Any:
    """The configuration that PEFT's fields mean.

    Raises:
        ValueError: A field asks for what is not done here, or has a value that does not fit.
    """
    known = fields_of(peft_type)
    for name, value in values.items():
        expected = fixed.get(name, known.get(name, {}).get("default"))
        if name in _options(options) or name in DESCRIPTIVE or _says_nothing(value) or value == expected:
            continue
        raise ValueError(f"{name}={value!r:.200} is not done here")
    wrong = [name for name, value in fixed.items() if values.get(name, value) != value]
    if wrong:
        raise ValueError(f"{wrong[0]}={values[wrong[0]]!r:.200} is not done here; {fixed[wrong[0]]!r} is")
    given = {name: values[name] for name in _options(options) if name in values and values[name] is not None}
    told = {name: _in_order(value) for name, value in given.items()}
    return build_config(options, told, what="fields of adapter_config.json")


def to_disk(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by PEFT's names."""
    return {TUNER + name[len(SHARED) + 1 :] if _is_shared(name) else MODEL + name: one for name, one in tensors.items()}


def from_disk(tensors: Mapping[str, Tensor], *, repeated: bool) -> dict[str, Tensor]:
    """The inverse of :func:`to_disk`; with ``repeated``, what is shared may stand there once more for each layer.

    Raises:
        ValueError: A tensor is not named as PEFT does, or what is shared differs from layer to layer.
    """
    shared = {
        key.removeprefix(TUNER): one
        for key, one in tensors.items()
        if key.startswith(TUNER) and not key.startswith(MODEL)
    }
    own = {key.removeprefix(MODEL): one for key, one in tensors.items() if key.startswith(MODEL)}
    if len(shared) + len(own) < len(tensors):
        strange = sorted(key for key in tensors if not key.startswith(TUNER))
        raise ValueError(f"tensor {strange[0]!r:.200} is not named as PEFT does: {MODEL}<layer>.<part>")
    for name in list(own) if repeated else ():
        last = name.rpartition(".")[2]
        if last in shared and not torch.equal(own.pop(name), shared[last]):
            raise ValueError(f"tensor {name!r:.200} is not the one that all layers share")
    return own | {f"{SHARED}.{name}": one for name, one in shared.items()}


def _is_shared(name: str) -> bool:
    return name.startswith(f"{SHARED}.")


def _options(options: type) -> set[str]:
    return {field.name for field in options.__attrs_attrs__}  # type: ignore[attr-defined]


def _says_nothing(value: Any) -> bool:
    # by kind, not by truth: 0 says a good deal
    return value is None or value is False or value in ("", [], {}, "none")


def _in_order(value: Any) -> Any:
    # PEFT writes sets, in an order that differs from process to process: the same adapter must be the same here
    return sorted(value, key=str) if isinstance(value, list) else value
