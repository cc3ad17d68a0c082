"""The only way in for an adapter folder: a stranger's until it is proven, and nothing of it is kept when it is not."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from adapterkit.config import canonical_json, from_dict, to_dict
from adapterkit.errors import ArtifactError, ConfigError, UnknownNameError

from .copies import BaseCopy, set_apart
from .files import Files, Folder, find_folder, read_bytes
from .layout import MANIFEST, MOST_JSON_BYTES, MOST_WEIGHT_BYTES, PEFT_CONFIG, WEIGHTS
from .manifest import Manifest, tensors_digest
from .peft_form import base_named, check_agreement, config_from_peft, method_of
from .record import FileRecord, Record, from_values
from .strict_json import parse_object
from .tensors import check_tensors, read_weights

if TYPE_CHECKING:
    from torch import Tensor

    from adapterkit.contracts import Method
    from adapterkit.registry import Registry

__all__ = ["Artifact", "read_artifact"]

Artifact = tuple[str, Any, dict[str, "Tensor"], Manifest, dict[str, BaseCopy]]
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "adapter_model.ckpt", "adapter_model.pkl")


def read_artifact(
    source: str | os.PathLike[str] | Files, registry: Registry, *, max_bytes: int = MOST_WEIGHT_BYTES
) -> Artifact:
    """Read what adapterkit or PEFT wrote, with everything checked that can be without the base.

    Three files are ever opened, each once: the manifest, PEFT's configuration and the weights. Whether the tensors are
    those that the method expects on a base is for :func:`~adapterkit.artifact.fit.check_tensors` to say.

    Args:
        source: The adapter's folder, of which a snapshot in the Hugging Face cache is one, or its files wherever they lie.
        registry: Where the adapter's method is looked up.
        max_bytes: Larger weights are refused before memory is taken for them.

    Returns:
        The method's name, its configuration, the tensors by ``"<site>.<name in the layer>"``, the manifest, and what the file
        holds of the base's own weights, by what it calls them.

    Raises:
        ArtifactError: The folder is refused; the message says which file and why.
    """
    files: Files | None = None
    try:
        files = Folder(find_folder(source)) if isinstance(source, (str, os.PathLike)) else source
        _check_names(files)
        return _read_ours(files, registry, max_bytes) if files.has(MANIFEST) else _read_peft(files, registry, max_bytes)
    except (ArtifactError, OSError) as error:
        what = f"adapter folder {str(source)!r}" if isinstance(source, (str, os.PathLike)) else str(files)
        raise ArtifactError(f"{what} is refused: {error}") from error


def _check_names(files: Files) -> None:
    if not files.has(MANIFEST) and not files.has(PEFT_CONFIG):
        inside = files.path / "adapter" if isinstance(files, Folder) else None  # where `train` puts it
        hint = f"; did you mean {str(inside)!r}?" if inside and Folder(inside).has(MANIFEST) else ""
        raise ArtifactError(f"it holds no adapter: neither {MANIFEST} nor {PEFT_CONFIG} is there{hint}")
    pickle = next((name for name in PICKLES if files.has(name)), None)
    if pickle and not files.has(WEIGHTS):
        raise ArtifactError(f"{pickle} is a pickle, which can run any code when it is read; save it as {WEIGHTS}")


def _read_ours(files: Files, registry: Registry, max_bytes: int) -> Artifact:
    record = from_values(parse_object(read_bytes(files, MANIFEST, MOST_JSON_BYTES), MANIFEST))
    method = _method(record, registry)
    config = _config(record, method)
    listed = {WEIGHTS, PEFT_CONFIG} if files.has(PEFT_CONFIG) else {WEIGHTS}
    if set(record.files) != listed or (PEFT_CONFIG in listed) != (method.to_peft(config) is not None):
        named, found = ", ".join(sorted(record.files)) or "no files", ", ".join(sorted(listed))
        raise ArtifactError(f"{MANIFEST} lists {named}; the folder holds {found}")
    if PEFT_CONFIG in listed:
        data = read_bytes(files, PEFT_CONFIG, MOST_JSON_BYTES)
        _check_file(record, PEFT_CONFIG, hashlib.sha256(data).hexdigest(), len(data))
        check_agreement(parse_object(data, PEFT_CONFIG), method, config, record.manifest.base)
    weights = read_weights(files, max_bytes)
    _check_file(record, WEIGHTS, weights.sha256, weights.size)
    tensors = _named(method, config, weights.tensors)
    if tensors_digest(tensors) != record.tensors:
        raise ArtifactError(f"{WEIGHTS}: the tensors are not those that the digest in {MANIFEST} was taken of")
    return method.name, config, tensors, record.manifest, {}


def _method(record: Record, registry: Registry) -> Method:
    try:
        return registry.method(record.method)
    except UnknownNameError as error:
        raise ArtifactError(f"it was made by {record.manifest.plugin or 'a plugin'}: {error}") from None


def _config(record: Record, method: Method) -> Any:
    try:
        config: Any = from_dict(method.config, record.config, what=f"the configuration in {MANIFEST}")
    except ConfigError as error:
        raise ArtifactError(str(error)) from None
    # a later version of the method may have more options; those that are written must mean what they say
    kept = {name: value for name, value in to_dict(config).items() if name in record.config}
    if canonical_json(kept) != canonical_json(record.config):
        raise ArtifactError(f"the configuration in {MANIFEST} is not written as method {method.name!r} writes it")
    return config


def _named(method: Method, config: Any, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are called inside the adapter."""
    try:
        tensors = method.from_file(config, stored)
        check_tensors(tensors)
    except (ValueError, LookupError) as error:
        raise ArtifactError(f"{WEIGHTS}: {error}") from None
    return tensors


def _check_file(record: Record, name: str, sha256: str, size: int) -> None:
    if record.files[name] != FileRecord(sha256, size):
        raise ArtifactError(f"{name} is not the file that {MANIFEST} lists: it was changed after it was saved")


def _read_peft(files: Files, registry: Registry, max_bytes: int) -> Artifact:
    values = parse_object(read_bytes(files, PEFT_CONFIG, MOST_JSON_BYTES), PEFT_CONFIG)
    method = method_of(values, registry)
    config = config_from_peft(method, values)
    own, copies = set_apart(read_weights(files, max_bytes).tensors, config)
    manifest = Manifest(base=base_named(values), versions=_versions(values))
    return method.name, config, _named(method, config, own), manifest, copies


def _versions(values: dict[str, Any]) -> dict[str, str]:
    version = values.get("peft_version")
    return {"peft": version} if isinstance(version, str) else {}
