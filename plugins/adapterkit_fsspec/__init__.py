"""Folders and buckets as places where adapters are published: whatever fsspec can write to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import Remote, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["adapterkit_remotes"]

SCHEMES = {
    "file": ("", "a folder, on this machine or mounted"),
    "memory": ("", "this process, for tests"),
    "s3": ("s3fs", "Amazon S3, and what speaks as it does"),
    "gs": ("gcsfs", "Google Cloud Storage"),
    "gcs": ("gcsfs", "the same"),
    "az": ("adlfs", "Azure Blob Storage"),
    "abfs": ("adlfs", "the same"),
    "oss": ("ossfs", "Alibaba Cloud OSS"),
    "hdfs": ("pyarrow", "Hadoop"),
    "sftp": ("paramiko", "a machine that is reached through SSH"),
    "smb": ("smbprotocol", "a Windows share"),
}
"""The package that each scheme needs beside fsspec, and what it is."""


@hookimpl
def adapterkit_remotes() -> Iterator[Remote]:
    """One for each scheme."""
    from .repository import FsspecRepository

    for scheme, (package, summary) in SCHEMES.items():
        yield Remote(name=scheme, open=FsspecRepository, requires=package, summary=summary)
