"""Xet storage without a storage service: hf-xet's client takes ``local://<folder>`` as the address of one.

Such a folder is locked by the process that has it open, so each client gets one of its own: an empty one to write into, a copy of
the library to read from. What was written is taken over when a commit names its sha256, found in the shard files that hf-xet left.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Cas"]

_FOREVER = 1 << 40
_DATABASE, _SHARDS, _XORBS = "global_dedup_lookup.redb", "shards", "xorbs"
_RECORD, _HEADER, _HASH = 48, 48, 32  # bytes of a shard's records, of its header, and of the hash that starts a record
_END = b"\xff" * _HASH
_VERIFIED, _WITH_SHA256 = 1 << 31, 1 << 30  # flags of a file's first record


class Cas:
    """Content-addressed storage for the Xet protocol, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "library"
        self._folder = folder
        self._hashes: dict[str, str] = {}
        self._written: list[Path] = []
        self._places = 0

    def keep(self, content: bytes) -> str:
        """Keep a content, and give its Xet hash."""
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in self._hashes:
            with _session().new_upload_commit(**_address(self._library)) as upload:
                handle = upload.start_upload_bytes(content, sha256=sha256)
            self._hashes[sha256] = handle.result().xet_info.hash
        return self._hashes[sha256]

    def place_to_write(self) -> str:
        """The address of an empty storage."""
        self._written.append(self._new_place())
        return _url(self._written[-1])

    def place_to_read(self) -> str:
        """The address of a storage with all that was kept until now."""
        place = self._new_place()
        if self._library.exists():
            _copy_storage(self._library, place)
        return _url(place)

    def written(self, sha256: str) -> bytes | None:
        """A content that a client has written; ``None`` if none has."""
        for place in reversed(self._written):
            for found, xet_hash, size in _files(place):
                if found == sha256:
                    copied = self._new_place()  # the client may have its own open still
                    _copy_storage(place, copied)
                    return _download(copied, xet_hash, size)
        return None

    def _new_place(self) -> Path:
        self._places += 1
        place = self._folder / f"place-{self._places}"
        place.mkdir(parents=True)
        return place


def _session() -> Any:
    from hf_xet import XetSession

    return XetSession()


def _url(place: Path) -> str:
    return f"local://{place}"


def _address(place: Path) -> dict[str, Any]:
    return {"endpoint": _url(place), "token": "none", "token_expiry_unix_secs": _FOREVER}


def _parts(place: Path) -> Path:
    return place / "xet" / "xorbs"


def _copy_storage(source: Path, target: Path) -> None:
    for name in (_SHARDS, _XORBS):  # these files never change
        shutil.copytree(_parts(source) / name, _parts(target) / name, copy_function=os.link)
    shutil.copy(_parts(source) / _DATABASE, _parts(target))


def _download(place: Path, xet_hash: str, size: int) -> bytes:
    from hf_xet import XetFileInfo

    target = place / "content"
    with _session().new_file_download_group(**_address(place)) as download:
        download.start_download_file(XetFileInfo(xet_hash, size), str(target))
    return target.read_bytes()


def _files(place: Path) -> Iterator[tuple[str, str, int]]:
    """The sha256, Xet hash and size of each file in a storage.

    A shard starts with the records of files, 48 bytes each: one for the file (its hash, flags and number of segments), one for each
    segment, one more for each if they are verified, and one with the sha256.
    """
    for shard in sorted((_parts(place) / _SHARDS).glob("*.mdb")):
        data = shard.read_bytes()
        at = _HEADER
        while (file := data[at : at + _HASH]) != _END:
            flags, segments = struct.unpack_from("<II", data, at + _HASH)
            first = at + _RECORD
            sizes = (struct.unpack_from("<I", data, first + _RECORD * index + 36)[0] for index in range(segments))
            size = sum(sizes)
            at = first + _RECORD * segments * (2 if flags & _VERIFIED else 1)
            if flags & _WITH_SHA256:
                yield _hex(data[at : at + _HASH]), _hex(file), size
                at += _RECORD


def _hex(digest: bytes) -> str:
    """A hash as hf-xet writes it: four numbers of 64 bits, the first byte of each being its lowest."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))
