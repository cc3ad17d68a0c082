"""Tars of adapters: written byte by byte the same, and read as a stranger's.

Python's own reader follows long names, sparse maps and chains of extended headers wherever they lead. This one knows plain
headers and nothing else: each names a regular file that may be there, how long it is, and is followed by so many bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import tarfile
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

from adapterkit.artifact.layout import KEPT, MOST_JSON_BYTES, MOST_WEIGHT_BYTES, WEIGHTS
from adapterkit.errors import ArtifactError, StoreError

from .listing import LISTING, MOST_LISTING_BYTES, MOST_VERSIONS
from .names import NAME, NUMBER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["end", "header", "padding", "scan", "unpack"]

BLOCK = 512
CHUNK = 1 << 20
MEMBER = re.compile(rf"{NAME.pattern}/{NUMBER.pattern}/({'|'.join(map(re.escape, KEPT))})")
FOLDER = re.compile(rf"({NAME.pattern}/({NUMBER.pattern}/)?)?")
MOST_MEMBERS = MOST_VERSIONS * len(KEPT) + 1
MOST_RATIO = 200
"""How many times its size a compressed tar may unfold to; numbers that were trained hardly get smaller."""
SLACK = 64 << 20
KINDS = {
    "1": "a hard link",
    "2": "a symbolic link",
    "3": "a device",
    "4": "a device",
    "6": "a FIFO",
    "S": "a sparse file",
}
REGULAR = ("0", "\0")
OCTAL = 8**11
"""From this size on, GNU's binary form stands in the header, which every reader knows."""


def header(name: str, size: int) -> bytes:
    """The header of a regular file; nothing in it depends on when or by whom it is written."""
    info = tarfile.TarInfo(name)
    info.size = size if size < OCTAL else 0
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    if size >= OCTAL:
        block[124:136] = b"\x80" + size.to_bytes(11, "big")
        block[148:156] = b"%06o\0 " % _checksum(block)
    return bytes(block)


def padding(size: int) -> bytes:
    """What follows a file of so many bytes."""
    return bytes(-size % BLOCK)


def end() -> bytes:
    """What an archive ends with."""
    return bytes(2 * BLOCK)


def scan(path: Path, max_bytes: int) -> tuple[bytes, dict[str, int]]:
    """Read a tar, which may be compressed with gzip, and write nothing: its list, and the sizes of its other files by name.

    Raises:
        ArtifactError: It is no tar; a member is no regular file, or called as nothing in an export is, or comes twice; or there
            are more members or bytes than may be; or there is no list.
    """
    sizes: dict[str, int] = {}
    listing = None
    with _opened(path, max_bytes) as reader:
        for name, size in _members(reader):
            if name in sizes or (name == LISTING and listing is not None):
                raise ArtifactError(f"its member {name!r} comes twice")
            if name == LISTING:
                listing = reader.read(size)
            else:
                sizes[name] = size
                reader.skip(size)
            if len(sizes) > MOST_MEMBERS:
                raise ArtifactError(f"it has more than {MOST_MEMBERS:,} members")
    if listing is None:
        raise ArtifactError(f"{LISTING} is missing")
    return listing, sizes


def unpack(path: Path, folder: Path, max_bytes: int) -> None:
    """Write the files of a tar that was scanned into a folder.

    Raises:
        ArtifactError: It has changed since.
        StoreError: The disk is full, or the folder cannot be written.
    """
    with _opened(path, max_bytes) as reader:
        for name, size in _members(reader):
            target = folder / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as out:
                    for count in _chunks(size):
                        out.write(reader.read(count))
            except FileExistsError:
                raise ArtifactError(f"its member {name!r} comes twice") from None
            except OSError as error:
                raise StoreError(f"{name} cannot be written to {str(folder)!r}: {error.strerror}") from error


class _Reader:
    """Reads exactly so many bytes, until there were more than ``most`` says."""

    def __init__(self, stream: BinaryIO, most: Callable[[], int], *, seeks: bool) -> None:
        self._stream = stream
        self._most = most
        self._seeks = seeks
        self._got = 0

    def read(self, count: int) -> bytes:
        try:
            data = self._stream.read(count)
        except (OSError, EOFError, zlib.error) as error:
            raise ArtifactError(f"it cannot be unpacked: {error}") from None
        if len(data) < count:
            raise ArtifactError("it is cut off, or no tar")
        self._count(count)
        return data

    def skip(self, count: int) -> None:
        """Pass over so many bytes."""
        if self._seeks:
            self._stream.seek(count, os.SEEK_CUR)
            self._count(count)
            return
        for part in _chunks(count):
            self.read(part)

    def _count(self, count: int) -> None:
        self._got += count
        if self._got > (most := self._most()):
            raise ArtifactError(
                f"it unfolds to more than {most:,} bytes, which is more than an export of its size holds"
            )


@contextlib.contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[_Reader]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            yield _Reader(file, lambda: max_bytes, seeks=True)
            return
        with gzip.GzipFile(fileobj=file) as stream:
            most = lambda: min(max_bytes, MOST_RATIO * file.tell() + SLACK)  # noqa: E731 - it is asked as the file is read
            yield _Reader(cast("BinaryIO", stream), most, seeks=False)


def _members(reader: _Reader) -> Iterator[tuple[str, int]]:
    """Name and size of each file; whoever asks for the next one has read so many bytes."""
    while any(block := reader.read(BLOCK)):
        name, kind, size = _parsed(block)
        if kind == "5" and not size and FOLDER.fullmatch(name):
            continue  # folders are made as they are needed
        if kind not in REGULAR:
            raise ArtifactError(
                f"its member {name!r:.200} is {KINDS.get(kind, f'of the kind {kind!r}')}, not a plain file"
            )
        _check_member(name, size)
        yield name, size
        reader.skip(-size % BLOCK)


def _chunks(size: int) -> Iterator[int]:
    for start in range(0, size, CHUNK):
        yield min(CHUNK, size - start)


def _parsed(block: bytes) -> tuple[str, str, int]:
    """Name, kind and size of a member."""
    if block[257:262] != b"ustar" or _octal(block[148:156]) != _checksum(block):
        raise ArtifactError("it is no tar, or damaged")
    # where GNU writes "ustar ", the place of the prefix has another use
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    name = _text(block[:100])
    name = f"{prefix}/{name}" if prefix else name
    size = int.from_bytes(block[125:136], "big") if block[124] == 0x80 else _octal(block[124:136])
    return name.removeprefix("./"), chr(block[156]), size


def _check_member(name: str, size: int) -> None:
    match = MEMBER.fullmatch(name)
    if not match and name != LISTING:
        raise ArtifactError(
            f"its member {name!r:.200} is no file of an export; tar the export's folder and nothing else"
        )
    most = MOST_LISTING_BYTES if not match else MOST_WEIGHT_BYTES if match[1] == WEIGHTS else MOST_JSON_BYTES
    if size > most:
        raise ArtifactError(f"its member {name!r} has {size:,} bytes; at most {most:,} are read")


def _checksum(block: bytes | bytearray) -> int:
    """The sum of the header's bytes, its own place taken as spaces."""
    return sum(block[:148]) + sum(b" " * 8) + sum(block[156:])


def _octal(field: bytes) -> int:
    text = field.strip(b" \0")
    if not text or text.strip(b"01234567"):
        raise ArtifactError("it is no tar, or damaged: a number in a header is none")
    return int(text, 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")
