"""PEFT's ``adapter_config.json``: what a method says of itself in PEFT's words, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from adapterkit.errors import ArtifactError

from .layout import PEFT_CONFIG
from .manifest import BaseReference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.contracts import Method
    from adapterkit.registry import Registry

__all__ = ["base_named", "check_agreement", "config_from_peft", "method_of", "peft_fields", "peft_values"]


def peft_fields(method: Method, config: Any) -> dict[str, Any] | None:
    """What the method writes of ``config``, as JSON with sorted targets; None when PEFT has no such method."""
    fields = method.to_peft(config)
    if fields is None:
        return None
    plain: dict[str, Any] = json.loads(json.dumps({**fields, "peft_type": method.peft_type}, allow_nan=False))
    if isinstance(plain.get("target_modules"), list):
        plain["target_modules"] = sorted(plain["target_modules"])
    return plain


def peft_values(method: Method, config: Any, base: BaseReference) -> dict[str, Any] | None:
    """All of ``adapter_config.json``."""
    fields = peft_fields(method, config)
    if fields is None:
        return None
    return {
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        **fields,
        "base_model_name_or_path": base.name or None,
        "revision": base.revision or None,
    }


def config_from_peft(method: Method, values: Mapping[str, Any]) -> Any:
    """The method's configuration of the values of an ``adapter_config.json``.

    Raises:
        ArtifactError: It asks for something that the method does not do.
    """
    try:
        return method.from_peft(values)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ArtifactError(f"{PEFT_CONFIG} is not what method {method.name!r} can do: {error}") from None


def method_of(values: Mapping[str, Any], registry: Registry) -> Method:
    """The method that answers to the file's ``peft_type``: its namesake where several do, and a bridge only where no other does.

    Raises:
        ArtifactError: None does, or several and none is its namesake.
    """
    wanted = values.get("peft_type")
    if not isinstance(wanted, str) or not wanted:
        raise ArtifactError(f"{PEFT_CONFIG} names no method: peft_type is {wanted!r:.50}")
    every = registry.methods_of_peft(wanted)
    fitting = [method for method in every if ":" not in method.name] or every
    namesakes = [method for method in fitting if method.name == wanted.lower()]
    if len(namesakes or fitting) == 1:
        return (namesakes or fitting)[0]
    if fitting:
        raise ArtifactError(f"peft_type {wanted!r:.50} is answered by {', '.join(method.name for method in fitting)}")
    raise ArtifactError(
        f"no method here reads peft_type {wanted!r:.50}; `adapterkit plugins --check` says what is there"
    )


def base_named(values: Mapping[str, Any]) -> BaseReference:
    """The base that an ``adapter_config.json`` names."""
    name, revision = values.get("base_model_name_or_path") or "", values.get("revision") or ""
    if not isinstance(name, str) or not isinstance(revision, str):
        raise ArtifactError(f"{PEFT_CONFIG}: the base's name and revision are not texts")
    return BaseReference(name=name, revision=revision)


def check_agreement(values: Mapping[str, Any], method: Method, config: Any, base: BaseReference) -> None:
    """Refuse a folder that tells PEFT something else than it tells adapterkit.

    What is compared is what the file means to the method, so that a later version of the method may write more fields.
    """
    theirs = peft_fields(method, config_from_peft(method, values)) or {}
    ours = peft_fields(method, config) or {}
    differing = sorted(name for name in ours if theirs.get(name) != ours[name])
    if values.get("peft_type") != method.peft_type:
        differing.append("peft_type")
    named = base_named(values)
    if (named.name, named.revision) != (base.name, base.revision):
        differing.append("base_model_name_or_path or revision")
    if differing:
        raise ArtifactError(f"{PEFT_CONFIG} and adapterkit.json disagree on {', '.join(differing)}")
