"""Exports: an adapter is written whole in another program's form, or not at all."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from adapterkit.artifact.replacing import replacing
from adapterkit.compose import Blend
from adapterkit.cures import for_missing
from adapterkit.errors import ArtifactError, ConfigError
from adapterkit.merging import merge
from adapterkit.registry import default_registry

from .job import Export

if TYPE_CHECKING:
    from adapterkit.compose import Acting
    from adapterkit.contracts import Exporter
    from adapterkit.registry import Registry

__all__ = ["Exported", "export"]


@attrs.frozen
class Exported:
    """What was written.

    Attributes:
        folder: Its true path.
        files: The names of the files in it.
        use: How they are used, in a line.
    """

    folder: Path
    files: tuple[str, ...]
    use: str


def export(
    acting: Acting,
    folder: str | os.PathLike[str],
    to: str = "portable",
    *,
    base: str | os.PathLike[str] | None = None,
    registry: Registry | None = None,
) -> Exported:
    """Write an adapter in the form that another program reads.

    Args:
        acting: An adapter; or a Stack or a Blend, which becomes one adapter that does the same.
        folder: A new or empty folder, or one that holds an adapter, which is replaced.
        to: The name of an exporter: ``"portable"``, ``"vllm"``, ``"gguf"``, ``"mlx"`` or a plugin's.
        base: The folder of the base, for forms that need its architecture; only its configuration is read.
        registry: Where exporters and methods are looked up.

    Raises:
        UnknownNameError: No such exporter.
        ConfigError: The exporter needs a package that is not installed, or a base.
        SelectionError: The form cannot hold what the adapter does; says what.
        ArtifactError: The folder holds something else, or cannot be written.
    """
    registry = registry or default_registry()
    exporter = registry.exporter(to)
    _check_installed(exporter)
    adapter = merge(acting, registry=registry) if isinstance(acting, Blend) else acting
    parents = acting.parts if isinstance(acting, Blend) else ((acting, 1.0),)
    try:
        with replacing(folder) as staging:
            job = Export(adapter, parents, staging, registry, None if base is None else Path(base))
            use = exporter.export(job)
            files = tuple(sorted(path.name for path in staging.iterdir()))
    except OSError as error:
        raise ArtifactError(f"the adapter is not exported to {str(folder)!r}: {error}") from error
    return Exported(Path(os.path.realpath(folder)), files, use)


def _check_installed(exporter: Exporter) -> None:
    if exporter.requires and find_spec(exporter.requires.partition(".")[0]) is None:
        raise ConfigError(
            "options of export do not fit",
            [f"to: {exporter.name!r} needs {exporter.requires}: {for_missing(exporter.requires)}"],
        )
