"""Options of PEFT's methods: frozen classes made from the fields of PEFT's configurations."""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from typing import Any, Literal, Union

import attrs
from attrs.validators import le, optional

__all__ = ["fields_of", "options_class"]

MOST = 2**31 - 1
"""No number of PEFT's is larger; Python's may be, and torch's may not."""
MOST_OF = {"boft_block_num": 16_384, "boft_block_size": 16_384, "r": 16_384, "theta_d_length": 1 << 24}
"""What a stranger's file could ask to take memory for."""

TYPES: dict[str, Any] = {
    "any": Any,
    "bool": bool,
    "float": float,
    "int": int,
    "int list": tuple[int, ...],
    "none": None,
    "numbers": dict[str, int | float],
    "str": str,
    "str list": tuple[str, ...],
}


@functools.cache
def _fields() -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = json.loads((files(__package__) / "fields.json").read_text("utf-8"))
    return found


def fields_of(peft_type: str) -> dict[str, dict[str, Any]]:
    """Every field of a PEFT configuration that not all of them have: its ``types``, ``default`` and ``help``, by name."""
    return _fields()[peft_type]


LEFT_OUT = {
    *("alora_invocation_tokens", "bias", "ensure_weight_tying", "fan_in_fan_out", "layer_replication", "lora_bias"),
    *("megatron_config", "megatron_core", "modules_to_save", "progressbar", "qalora_group_size", "runtime_config"),
    *("target_parameters", "trainable_token_indices", "use_qalora"),
    *("num_attention_heads", "num_layers", "num_transformer_submodules", "token_dim", "tokenizer_kwargs"),
    *("prompt_tuning_init_state_dict_path", "prompt_tuning_init_task", "tokenizer_name_or_path"),
}
"""Fields that are no options here: what the base decides, what PEFT alone does, and what reaches beyond layers."""


_TYPES = {"init_lora_weights": ["bool", "none", "str"]}
"""Fields whose values PEFT does not name in full."""


@attrs.frozen
class Changes:
    """Where options differ from PEFT's: other defaults, values that are always the same, and values that are not offered."""

    defaults: dict[str, Any] = attrs.field(factory=dict)
    fixed: dict[str, Any] = attrs.field(factory=dict)
    without: dict[str, tuple[Any, ...]] = attrs.field(factory=dict)


def options_class(peft_type: str, changes: Changes) -> type:
    """A frozen class whose fields are the options of a PEFT type, under PEFT's names."""
    offered = {
        name: field
        for name, field in fields_of(peft_type).items()
        if name not in LEFT_OUT and name not in changes.fixed and _kinds(field) and not name.endswith("_config")
    }
    offered = {name: {**field, "types": _TYPES.get(name, field["types"])} for name, field in offered.items()}
    hints = {
        name: _hint(field, free=changes.defaults.get(name, 0) is None, without=changes.without.get(name, ()))
        for name, field in offered.items()
    }
    body: dict[str, Any] = {
        name: _attribute(field, changes.defaults.get(name, field["default"]), MOST_OF.get(name, MOST))
        for name, field in offered.items()
    }
    about = f"PEFT's options for {peft_type}, under PEFT's names."
    made = type(
        f"{peft_type.title().replace('_', '')}Options",
        (),
        {**body, "__annotations__": hints, "__module__": __name__, "__doc__": about},
    )
    return attrs.frozen(kw_only=True)(made)


def _kinds(field: dict[str, Any]) -> list[Any]:
    return [one for one in field["types"] if one not in ("nested", "none")]


def _hint(field: dict[str, Any], *, free: bool, without: tuple[Any, ...]) -> Any:
    """The annotation of a field; ``free`` adds None, for what is chosen where nothing is given."""
    kinds = [one for one in field["types"] if one != "nested"] + ["none"] * free
    parts = tuple(
        Literal[tuple(value for value in one["one of"] if value not in without)]
        if isinstance(one, dict)
        else TYPES[one]
        for one in kinds
    )
    return Any if Any in parts else Union[parts]  # noqa: UP007 - made at run time


def _attribute(field: dict[str, Any], default: Any, most: int) -> Any:
    default = tuple(default) if isinstance(default, list) else default
    settings: dict[str, Any] = {"factory": dict} if default == {} else {"default": default}
    if "int" in field["types"] and "int list" not in field["types"]:
        settings["validator"] = optional(le(most))
    return attrs.field(**settings, metadata={"help": field["help"]})
