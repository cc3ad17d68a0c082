"""Writes an adapter folder: PEFT's files, a manifest that proves them and a card; the same adapter, the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from safetensors import SafetensorError
from safetensors.torch import save_file

from adapterkit.config import to_dict
from adapterkit.errors import ArtifactError

from .card import render
from .engines import judge
from .files import Folder, find_folder, locate, read_bytes
from .layout import CARD, MANIFEST, MOST_JSON_BYTES, PEFT_CONFIG, WEIGHTS
from .manifest import tensors_digest
from .peft_form import peft_values
from .record import FileRecord, Record, from_values, to_values
from .replacing import replacing
from .strict_json import parse_object
from .tensors import check_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from adapterkit.contracts import Method

    from .manifest import Manifest

__all__ = ["replace_manifest", "write_artifact", "write_card"]


def write_artifact(
    folder: str | os.PathLike[str],
    *,
    method: Method,
    config: Any,
    tensors: Mapping[str, Tensor],
    manifest: Manifest,
    digest: str,
) -> Path:
    """Write an adapter, all or nothing; what is written is what the loader takes.

    Args:
        folder: Where to; an existing folder is replaced when it is empty or holds an adapter and nothing else.
        method: The adapter's method.
        config: The method's configuration.
        tensors: By ``"<site>.<name in the layer>"``.
        manifest: What is known of the adapter beside.
        digest: The adapter's identity, see :func:`~adapterkit.artifact.manifest.content_digest`.

    Returns:
        The folder's true path.

    Raises:
        ArtifactError: The adapter is none that could be read again, or the folder cannot be written; it is as it was.
    """
    try:
        check_tensors(tensors)
        with replacing(folder) as staging:
            fields = peft_values(method, config, manifest.base)
            if fields is not None:
                _write_json(staging / PEFT_CONFIG, fields)
            _write_weights(staging / WEIGHTS, method.to_file(config, tensors))
            record = Record(
                method=method.name,
                config=to_dict(config),
                manifest=manifest,
                tensors=tensors_digest(tensors),
                files={path.name: _file_record(path) for path in sorted(staging.iterdir())},
                engines=judge(fields, tensors),
            )
            _write_proof(staging, record, digest)
    except (ValueError, TypeError, OSError) as error:
        raise ArtifactError(f"the adapter is not saved to {str(folder)!r}: {error}") from error
    return Path(os.path.realpath(folder))


def replace_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> bool:
    """Say something else beside an adapter that is saved: its weights stay as they are, and are not written again.

    A card that somebody has edited stays as well; a signature, which would not fit any more, goes.

    Args:
        folder: An adapter's, with a manifest.
        manifest: What is known of it now.

    Returns:
        Whether the card was edited.

    Raises:
        ArtifactError: It is none, or cannot be written; it is as it was.
    """
    try:
        source = find_folder(folder)
        before = parse_object(read_bytes(source, MANIFEST, MOST_JSON_BYTES), MANIFEST)
        record = from_values(before)
        with replacing(folder) as staging:
            for name in record.files:
                _bring(locate(source, name), staging / name)
            _write_proof(staging, attrs.evolve(record, manifest=manifest), record.digest)
            edited = _is_edited(source, before)
            if edited:
                shutil.copy2(locate(source, CARD), staging / CARD)
    except (ValueError, TypeError, OSError) as error:
        raise ArtifactError(f"the manifest in {str(folder)!r} is not replaced: {error}") from error
    return edited


def write_card(folder: Path) -> None:
    """Write the card of a folder, from its manifest."""
    values = parse_object(read_bytes(folder, MANIFEST, MOST_JSON_BYTES), MANIFEST)
    _write_text(folder / CARD, render(values))


def _bring(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the disk has no such links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _is_edited(folder: Path, values: Mapping[str, Any]) -> bool:
    if not Folder(folder).has(CARD):
        return False
    return read_bytes(folder, CARD, MOST_JSON_BYTES) != render(values).encode("utf-8")


def _write_proof(folder: Path, record: Record, digest: str) -> None:
    if record.digest != digest:
        raise ArtifactError(f"the digest {digest:.12}… is not that of these tensors and this configuration")
    values = to_values(record)
    _write_json(folder / MANIFEST, values)
    _write_text(folder / CARD, render(values))


def _write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    # one metadata key: with two, safetensors' bytes would differ from save to save
    whole = {key: tensors[key].detach().cpu().contiguous() for key in sorted(tensors)}
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(whole, path, metadata={"format": "pt"})
    except SafetensorError as error:  # what it says when the disk is full
        raise OSError(str(error)) from None
    path.chmod(mode)  # safetensors writes for the owner alone; an adapter is as public as its folder


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    size = len(text.encode())
    if size > MOST_JSON_BYTES:
        raise ArtifactError(f"{path.name} would have {size:,} bytes; at most {MOST_JSON_BYTES:,} are read")
    _write_text(path, text)


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))


def _file_record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
