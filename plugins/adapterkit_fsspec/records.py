"""What a repository writes down: a record for each version, a file for each tag. What is read of them is a stranger's."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ID", "TAG", "File", "Record", "check_name", "hash_file", "read_tag", "version_id", "write_tag"]

ID = re.compile(r"[0-9a-f]{64}")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
SCHEMA = 1
FIELDS = {"schema", "id", "parent", "message", "published", "files"}
MOST_FILES = 10_000
MOST_MESSAGE = 10_000
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=-]*(?<!\.)|\.[A-Za-z0-9_][A-Za-z0-9._+=-]*(?<!\.)")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for itself, whatever folder they are in."""


@attrs.frozen
class File:
    """A file of a version."""

    sha256: str
    bytes: int


@attrs.frozen(kw_only=True)
class Record:
    """One version, as the log has it.

    Attributes:
        id: The sha256 of the names and sha256s of its files: two versions of the same files are the same one.
        parent: The id of the version that was the newest before.
        message: What its publisher said.
        published: When, in ISO 8601, by the publisher's clock.
        files: By their names.
    """

    id: str
    parent: str
    message: str
    published: str
    files: Mapping[str, File]

    def write(self) -> bytes:
        """The record's file."""
        files = {name: attrs.asdict(file) for name, file in self.files.items()}
        values = {**attrs.asdict(self, recurse=False), "files": files, "schema": SCHEMA}
        return (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def read(cls, data: bytes) -> Record:
        """The record that a file holds.

        Raises:
            ValueError: It is not what this wrote.
        """
        values = _object(data)
        if values.get("schema") != SCHEMA:
            raise ValueError(
                f"it has schema {values.get('schema')!r:.50}, and {SCHEMA} is known here: update adapterkit"
            )
        if set(values) != FIELDS:
            raise ValueError(f"its fields are {', '.join(sorted(values))[:200]}")
        if not isinstance(values["files"], dict) or not 0 < len(values["files"]) <= MOST_FILES:
            raise ValueError(f"it does not list 1 to {MOST_FILES:,} files")
        files = {check_name(name): _file(values["files"][name]) for name in sorted(values["files"])}
        if len({name.casefold() for name in files}) < len(files):
            raise ValueError("two of its files have names that differ by case alone")
        if values["id"] != version_id(files):
            raise ValueError("its id is not that of the files that it lists")
        parent, message = values["parent"], values["message"]
        if not isinstance(parent, str) or (parent and not ID.fullmatch(parent)):
            raise ValueError("its parent is no version's id")
        if not isinstance(message, str) or len(message) > MOST_MESSAGE:
            raise ValueError("its message is no text that anybody would write")
        return cls(
            id=values["id"],
            parent=parent,
            message=_printable(message),
            published=_time(values["published"]),
            files=files,
        )


def version_id(files: Mapping[str, File]) -> str:
    """The id of a version that has these files."""
    named = json.dumps([[name, files[name].sha256] for name in sorted(files)], separators=(",", ":"))
    return hashlib.sha256(named.encode()).hexdigest()


def write_tag(version: str) -> bytes:
    """The file of a tag."""
    return (json.dumps({"id": version}) + "\n").encode()


def read_tag(data: bytes) -> str:
    """The id that a tag's file holds.

    Raises:
        ValueError: It holds none.
    """
    values = _object(data)
    version = values.get("id")
    if set(values) != {"id"} or not isinstance(version, str) or not ID.fullmatch(version):
        raise ValueError("it names no version's id")
    return version


def check_name(name: str) -> str:
    """A file's name, once it is seen to be a path inside any folder of any system.

    Raises:
        ValueError: It is not.
    """
    parts = name.split("/")
    if len(name) > 200 or any(not _PART.fullmatch(part) or _DEVICE.fullmatch(part) for part in parts):
        raise ValueError(f"{name!r:.100} cannot be a file's name everywhere")
    return name


def hash_file(stream: Any, most: int = -1) -> File:
    """The sha256 and the size of what a stream holds, of which one byte more than ``most`` is read at most."""
    total, size = hashlib.sha256(), 0
    while chunk := stream.read(1 << 20):
        total.update(chunk)
        size += len(chunk)
        if 0 <= most < size:
            break
    return File(total.hexdigest(), size)


def _object(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - of what was read, not of an argument
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key comes twice")
    return values


def _file(values: Any) -> File:
    if not isinstance(values, dict) or set(values) != {"sha256", "bytes"}:
        raise ValueError("a file is not described by sha256 and bytes")
    sha256, size = values["sha256"], values["bytes"]
    if not isinstance(sha256, str) or not ID.fullmatch(sha256) or type(size) is not int or not 0 <= size < 1 << 50:
        raise ValueError("a file's sha256 or size is none")
    return File(sha256, size)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text)


def _time(value: Any) -> str:
    try:
        return datetime.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        return ""
