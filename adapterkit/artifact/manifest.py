"""The manifest: what an adapter is, where it comes from and what proves it; ``adapterkit.json`` on disk."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.config import canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = [
    "SCHEMA",
    "BaseReference",
    "Manifest",
    "content_digest",
    "identity",
    "json_digest",
    "tensors_digest",
    "versions",
]

SCHEMA = 1


@attrs.frozen(kw_only=True)
class BaseReference:
    """Which base an adapter was made for.

    Attributes:
        name: What the user called it: a folder, a Hub id, or a class name for a model object.
        revision: The Hub commit, where there is one.
        fingerprint: What :func:`adapterkit.fingerprint.fingerprint` says of the base; empty when it is not known.
    """

    name: str = ""
    revision: str = ""
    fingerprint: str = ""


@attrs.frozen(kw_only=True)
class Manifest:
    """What is known of an adapter beside its tensors. Nothing in it depends on when or where it is saved.

    Attributes:
        base: The base that it was made for.
        plugin: The distribution and version that provide its method, such as ``"adapterkit 0.1.0"``.
        training: The options, the data's digest and the outcome of the run; empty for an adapter from elsewhere.
        evaluation: Scores beside the bare base's, and what the adapter has forgotten: see :mod:`adapterkit.artifact.evaluated`.
        versions: The libraries that it was made with.
        lineage: How it was made of other adapters or of two models: ``kind``, ``parents`` by digest, the options, what was lost;
            empty for one that was trained.
    """

    base: BaseReference = attrs.field(factory=BaseReference)
    plugin: str = ""
    training: dict[str, Any] = attrs.field(factory=dict)
    evaluation: dict[str, Any] = attrs.field(factory=dict)
    versions: dict[str, str] = attrs.field(factory=dict)
    lineage: dict[str, Any] = attrs.field(factory=dict)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of names, types, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def content_digest(method: str, config: dict[str, Any], base: str, tensors: Mapping[str, Tensor]) -> str:
    """An adapter's identity: the sha256 of its method, configuration, base fingerprint and tensors."""
    return identity(method, config, base, tensors_digest(tensors))


def identity(method: str, config: dict[str, Any], base: str, tensors: str) -> str:
    """The same, of the tensors' digest.

    Options that say nothing (None, false, empty) are left out: a later version of a method may have more of them, and an
    adapter that does not use them stays the adapter that it is.
    """
    said = {name: value for name, value in config.items() if not _says_nothing(value)}
    return json_digest({"base": base, "config": said, "method": method, "tensors": tensors})


def versions() -> dict[str, str]:
    """The libraries that an adapter is made with now."""
    libraries = {name: metadata.version(name) for name in ("adapterkit", "torch", "transformers")}
    return {"python": platform.python_version(), **libraries}


def json_digest(value: Any) -> str:
    """The sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _says_nothing(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})
