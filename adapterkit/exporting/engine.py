"""Exports: an adapter is written whole in another program's form, or not at all."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from adapterkit.artifact.layout import WEIGHTS
from adapterkit.artifact.replacing import check_apart, replacing
from adapterkit.compose import Blend
from adapterkit.cures import for_missing
from adapterkit.errors import ArtifactError, ConfigError, SelectionError, UnknownNameError
from adapterkit.merging import merge
from adapterkit.registry import default_registry

from .job import Export
from .refusing import updates_of

if TYPE_CHECKING:
    from adapterkit.adapter import Adapter
    from adapterkit.compose import Acting
    from adapterkit.contracts import Exporter
    from adapterkit.registry import Registry

__all__ = ["Exported", "export"]

WORDS = re.compile(r"\w[\w.-]*")


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
        folder: A new or empty folder. One that holds an adapter is replaced where what is written is an adapter too, as with
            ``"portable"`` and ``"vllm"``.
        to: The name of an exporter: ``"portable"``, ``"vllm"``, ``"gguf"``, ``"mlx"`` or a plugin's.
        base: The folder of the base, for forms that need its architecture; only its configuration is read.
        registry: Where exporters and methods are looked up.

    Raises:
        UnknownNameError: No such exporter.
        ConfigError: The exporter needs a package that is not installed, or a base.
        SelectionError: The form cannot hold what the adapter does; says what. Or the folder is the base's, or holds an adapter,
            which another form does not replace.
        ArtifactError: The folder holds something else, or cannot be written.
    """
    registry = registry or default_registry()
    exporter = _find(registry, to)
    _check_installed(exporter)
    check_apart(folder, () if base is None else (base,))
    adapter = _as_one(acting, registry) if isinstance(acting, Blend) else acting
    parents = acting.parts if isinstance(acting, Blend) else ((acting, 1.0),)
    try:
        with replacing(folder) as staging:
            job = Export(adapter, parents, staging, registry, None if base is None else Path(base))
            use = exporter.export(job)
            files = tuple(sorted(path.name for path in staging.iterdir()))
            _check_kind(Path(folder), exporter, files)
    except OSError as error:
        raise ArtifactError(f"the adapter is not exported to {str(folder)!r}: {error}") from error
    return Exported(Path(os.path.realpath(folder)), files, use)


def _find(registry: Registry, name: str) -> Exporter:
    """The exporter of a name; where there is none, the only one whose summary has the word is named, as for ``"ollama"``.

    Raises:
        UnknownNameError: There is none.
    """
    try:
        return registry.exporter(name)
    except UnknownNameError:
        near = [one for one in registry.exporters() if name.casefold() in WORDS.findall(one.summary.casefold())]
        if len(near) != 1:
            raise
        reason = f"did you mean {near[0].name!r}, {near[0].summary}?"
        raise UnknownNameError("exporter", name, (), reason=reason) from None


def _as_one(blend: Blend, registry: Registry) -> Adapter:
    """One adapter that does what several do; where there is none, the one that stands in the way is named first."""
    try:
        return merge(blend, registry=registry)
    except SelectionError:
        for one in blend.adapters:
            updates_of(registry, one)
        raise


def _check_kind(folder: Path, exporter: Exporter, files: tuple[str, ...]) -> None:
    """Refuse to put something else in an adapter's place.

    Raises:
        SelectionError: An adapter is there.
    """
    if WEIGHTS not in files and folder.is_dir() and any(folder.iterdir()):
        raise SelectionError(
            f"{str(folder)!r} holds an adapter, which {exporter.name!r} does not replace: give an empty folder or a new name"
        )


def _check_installed(exporter: Exporter) -> None:
    if exporter.requires and find_spec(exporter.requires.partition(".")[0]) is None:
        raise ConfigError(
            "options of export do not fit",
            [f"to: {exporter.name!r} needs {exporter.requires}: {for_missing(exporter.requires)}"],
        )
