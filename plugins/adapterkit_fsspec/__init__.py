"""Folders and buckets as places where adapters are published: whatever fsspec can write to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import Remote, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["adapterkit_remotes"]

SCHEMES = {
    "file": "a folder, on this machine or mounted",
    "memory": "this process, for tests",
    "s3": "Amazon S3, and what speaks as it does",
    "gs": "Google Cloud Storage",
    "gcs": "the same",
    "az": "Azure Blob Storage",
    "abfs": "the same",
    "oss": "Alibaba Cloud OSS",
    "hdfs": "Hadoop",
    "sftp": "a machine that is reached through SSH",
    "smb": "a Windows share",
}
"""What each scheme is."""


@hookimpl
def adapterkit_remotes() -> Iterator[Remote]:
    """One for each scheme."""
    from .repository import FsspecRepository

    for scheme, summary in SCHEMES.items():
        yield Remote(name=scheme, open=FsspecRepository, summary=summary)
