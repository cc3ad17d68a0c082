"""The trusted loader under the trust policy: the one way in for every adapter that is read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from adapterkit.artifact.files import Files, Folder, find_folder
from adapterkit.artifact.layout import (
    MANIFEST,
    MOST_JSON_BYTES,
    MOST_WEIGHT_BYTES,
    PEFT_CONFIG,
    SIGNATURE,
    WEIGHTS,
)
from adapterkit.artifact.loader import Artifact, read_artifact
from adapterkit.errors import ArtifactError, TrustError

from .policy import current_policy
from .signing import MOST_SIGNATURE_BYTES, verify

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from adapterkit.registry import Registry

    from .policy import Policy, Rule

__all__ = ["Admission", "check_trusted", "read_trusted"]

MOST_BYTES = {
    MANIFEST: MOST_JSON_BYTES,
    PEFT_CONFIG: MOST_JSON_BYTES,
    SIGNATURE: MOST_SIGNATURE_BYTES,
    WEIGHTS: MOST_WEIGHT_BYTES,
}
"""The files that make an adapter, and what is read of each at most; the card is for people."""
CHUNK = 1 << 20


def read_trusted(source: str | os.PathLike[str] | Files, registry: Registry, *, origin: str = "") -> Artifact:
    """Read an adapter, if the policy lets it in.

    Where a signature is needed, the adapter's files are copied to a private folder, verified there and read from there: what
    was verified is what is loaded.

    Args:
        source: The adapter's folder, or its files wherever they lie.
        registry: Where its method is looked up.
        origin: Where it comes from, as a URL with its revision or a whole path; links of it are not followed. Without one, a folder
            comes from its own true path, and files that lie elsewhere were made here.

    Raises:
        TrustError: The policy does not let it in.
        ArtifactError: It is refused for what it is.
        ConfigError: The policy cannot be read.
    """
    policy = current_policy()
    if policy is None:
        return read_artifact(source, registry)
    with _refusing(source):
        files, rule = _found(source, policy, origin)
        if not rule.signers:
            return read_artifact(files, registry)
        with _copied(files) as copy:
            verify(copy.folder.path, policy.keys(rule))
            return read_artifact(copy, registry)


@attrs.frozen
class Admission:
    """Why something is let in.

    Attributes:
        policy: The policy's file.
        rule: The source that the rule names.
        signer: Who has signed it; empty where no signature is needed.
    """

    policy: str
    rule: str
    signer: str = ""


def check_trusted(source: str | os.PathLike[str] | Files, *, origin: str = "") -> Admission | None:
    """Hold an adapter to the policy as :func:`read_trusted` does, or a whole model's folder, without reading it.

    What is checked here and read afterwards must be a folder into which nobody else writes.

    Args:
        source: The folder of an adapter or of a model, or an adapter's files wherever they lie.
        origin: Where it comes from, as :func:`read_trusted` takes it.

    Returns:
        What lets it in; None where no policy is in force.

    Raises:
        TrustError: The policy does not let it in.
        ArtifactError: There is nothing that could be let in.
        ConfigError: The policy cannot be read.
    """
    policy = current_policy()
    if policy is None:
        return None
    with _refusing(source, "folder"):
        files, rule = _found(source, policy, origin)
        if not rule.signers:
            return Admission(str(policy.path), str(rule))
        if isinstance(files, Folder):
            return Admission(str(policy.path), str(rule), verify(files.path, policy.keys(rule)))
        with _copied(files) as copy:
            return Admission(str(policy.path), str(rule), verify(copy.folder.path, policy.keys(rule)))


def _found(source: str | os.PathLike[str] | Files, policy: Policy, origin: str) -> tuple[Files, Rule]:
    """The files, whose folder is looked up once, and the rule that lets them in: links are not followed again for it."""
    files = Folder(find_folder(source)) if isinstance(source, (str, os.PathLike)) else source
    return files, policy.check(origin or (files.path if isinstance(files, Folder) else ""), follow=False)


@contextlib.contextmanager
def _refusing(source: str | os.PathLike[str] | Files, what: str = "adapter folder") -> Iterator[None]:
    """Errors of this block say whose they are."""
    said = f"{what} {os.fspath(source)!r}" if isinstance(source, (str, os.PathLike)) else str(source)
    try:
        yield
    except TrustError as error:
        raise TrustError(f"{said} is not let in: {error}") from None
    except ArtifactError as error:
        if str(error).startswith(said):
            raise
        raise ArtifactError(f"{said} is refused: {error}") from error
    except OSError as error:
        raise ArtifactError(f"{said} is refused: {error.strerror or error}") from error


@attrs.frozen
class _Copy:
    """The files of an adapter in a private folder, by the name of where they were."""

    folder: Folder
    said: str

    def has(self, name: str) -> bool:
        return self.folder.has(name)

    def open(self, name: str) -> AbstractContextManager[tuple[io.RawIOBase, int]]:
        return self.folder.open(name)

    def __str__(self) -> str:
        return self.said


@contextlib.contextmanager
def _copied(files: Files) -> Iterator[_Copy]:
    with tempfile.TemporaryDirectory(prefix="adapterkit-verify-") as name:  # for this user alone
        folder = Path(os.path.realpath(name))
        for file, most in MOST_BYTES.items():
            if files.has(file):
                with files.open(file) as (stream, size), (folder / file).open("wb") as copy:
                    if size > most:
                        raise ArtifactError(f"{file} has {size:,} bytes; at most {most:,} are read")
                    _copy(stream, copy, size)
        yield _Copy(Folder(folder), str(files))


def _copy(stream: io.RawIOBase, copy: io.BufferedWriter, size: int) -> None:
    """So many bytes: a file that grows while it is read fills no disk, and is not what was signed."""
    while size > 0 and (chunk := stream.read(min(size, CHUNK))):
        copy.write(chunk)
        size -= len(chunk)
