"""``adapterkit.json``: the manifest as it lies on disk, with a digest of everything beside it and of itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.config import canonical_json, from_dict, to_dict
from adapterkit.errors import ArtifactError, ConfigError

from .layout import MANIFEST
from .manifest import SCHEMA, BaseReference, Manifest, identity, json_digest
from .strict_json import parse_object

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FileRecord", "Record", "from_values", "to_values"]


@attrs.frozen
class FileRecord:
    """A file of the folder."""

    sha256: str
    bytes: int


@attrs.frozen(kw_only=True)
class Record:
    """The content of ``adapterkit.json``.

    Attributes:
        method: The method's name.
        config: Its configuration as JSON values.
        manifest: What is known of the adapter beside.
        tensors: The digest of the tensors, whatever file they lie in.
        files: The files that prove themselves; the card is for people, who may edit it.
        engines: For which inference engines the adapter fits.
    """

    method: str
    config: dict[str, Any]
    manifest: Manifest
    tensors: str
    files: Mapping[str, FileRecord]
    engines: Mapping[str, Mapping[str, str]]

    @property
    def digest(self) -> str:
        """The adapter's identity."""
        return identity(self.method, self.config, self.manifest.base.fingerprint, self.tensors)


@attrs.frozen(kw_only=True)
class _Layout:
    """The fields of the file; all but the last are required, and there are no others."""

    schema: int
    checksum: str
    digest: str
    method: str
    plugin: str
    config: dict[str, Any]
    base: dict[str, str]
    training: dict[str, Any]
    evaluation: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, dict[str, Any]]
    digests: dict[str, str]
    engines: dict[str, dict[str, str]]
    lineage: dict[str, Any] = attrs.field(factory=dict)


def to_values(record: Record) -> dict[str, Any]:
    """The record as JSON values with sorted keys; numbers that are not finite become texts, as JSON has none.

    Raises:
        ArtifactError: The manifest holds something that JSON cannot say, or that would be refused when it is read.
    """
    try:
        values = _values(record)
        text = canonical_json({**values, "checksum": json_digest(values)})
    except RecursionError:
        raise ArtifactError("the manifest cannot be written as JSON: it is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"the manifest cannot be written as JSON: {error}") from None
    return parse_object(text.encode(), MANIFEST)


def _values(record: Record) -> dict[str, Any]:
    """All but the checksum."""
    manifest = record.manifest
    return {
        "schema": SCHEMA,
        "digest": record.digest,
        "method": record.method,
        "plugin": manifest.plugin,
        "config": record.config,
        "base": to_dict(manifest.base),
        "training": _plain(manifest.training),
        "evaluation": _plain(manifest.evaluation),
        "versions": dict(manifest.versions),
        **({"lineage": _plain(manifest.lineage)} if manifest.lineage else {}),
        "files": {name: to_dict(file) for name, file in record.files.items()},
        "digests": {"config": json_digest(record.config), "tensors": record.tensors},
        "engines": record.engines,
    }


def from_values(values: dict[str, Any]) -> Record:
    """The inverse of :func:`to_values`.

    Raises:
        ArtifactError: Another schema, another field, or a value that its digest does not fit.
    """
    schema = values.get("schema")
    if schema != SCHEMA:
        raise ArtifactError(f"{MANIFEST} has schema {schema!r:.50}; {SCHEMA} is known here: update adapterkit")
    try:
        layout = from_dict(_Layout, values, what=f"fields of {MANIFEST}")
        record = _record(layout)
    except ConfigError as error:
        raise ArtifactError(str(error)) from None
    _check(layout, record, values)
    return record


def _record(layout: _Layout) -> Record:
    base = from_dict(BaseReference, dict(layout.base), what=f"fields of {MANIFEST}: base")
    manifest = Manifest(
        base=base,
        plugin=layout.plugin,
        training=layout.training,
        evaluation=layout.evaluation,
        versions=layout.versions,
        lineage=layout.lineage,
    )
    what = f"fields of {MANIFEST}"
    files = {name: from_dict(FileRecord, file, what=f"{what}: {name:.100}") for name, file in layout.files.items()}
    return Record(
        method=layout.method,
        config=layout.config,
        manifest=manifest,
        tensors=layout.digests.get("tensors", ""),
        files=files,
        engines=layout.engines,
    )


def _check(layout: _Layout, record: Record, values: Mapping[str, Any]) -> None:
    """Each digest shows what was changed; the checksum, over all of them, is last."""
    config = json_digest(record.config)
    if layout.digests != {"config": config, "tensors": record.tensors}:
        raise ArtifactError(f"{MANIFEST}: the configuration is not the one that its digest was taken of")
    if layout.digest != record.digest:
        raise ArtifactError(f"{MANIFEST}: the digest is not that of this method, configuration, base and tensors")
    checksum = json_digest({name: value for name, value in values.items() if name != "checksum"})
    if layout.checksum != checksum:
        raise ArtifactError(f"{MANIFEST} was changed after it was written: its checksum does not fit")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
