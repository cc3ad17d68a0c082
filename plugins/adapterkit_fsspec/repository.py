"""A repository in a folder or a bucket: versions by their content, a log that says which are there, tags.

::

    versions/<id>/adapter_config.json …    an adapter folder, or a model's; <id> is the sha256 of names and sha256s
    log/00000001.json                      the first version: its id, its parent, its files; made once, and by one publisher
    tags/<tag>.json                        the id that a tag stands for
"""

from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from adapterkit import ConfigError, ConflictError, RemoteError, Revision, UnknownNameError

from .folder import INCOMING
from .place import Place, place_of
from .records import ID, MOST_FILES, TAG, File, Record, check_name, hash_file, read_tag, version_id, write_tag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["FsspecRepository"]

LOG, TAGS, VERSIONS = "log", "tags", "versions"
MOST_RECORD_BYTES = 4 << 20
MOST_TAG_BYTES = 1 << 10
MOST_ENTRIES = 100_000
"""So many versions or tags are read at most."""
_RECORD = re.compile(r"([0-9]{8})\.json")


class FsspecRepository:
    """The :class:`~adapterkit.Repository` of a URL that fsspec opens."""

    def __init__(self, url: str) -> None:
        self._place: Place = place_of(url)

    def revisions(self) -> list[Revision]:
        """Every version, the newest first; one whose files were published again stands where it was last."""
        named: dict[str, Record] = {}
        for record in self._records(self._log()):
            named.setdefault(record.id, record)
        tags: dict[str, list[str]] = {}
        for tag, version in self._tags().items():
            tags.setdefault(version, []).append(tag)
        return [
            Revision(
                id=record.id,
                parent=record.parent,
                tags=tuple(tags.get(record.id, ())),
                message=record.message,
                published=record.published,
            )
            for record in named.values()
        ]

    def resolve(self, revision: str = "") -> str:
        """The id of the newest version, of a tag's, or the id itself where it is published."""
        log = self._log()
        if not log:
            raise UnknownNameError("repository", self._place.url, (), reason="nothing is published there")
        if not revision:
            return self._record(log, len(log)).id
        if ID.fullmatch(revision):
            return self._find(log, revision).id
        if TAG.fullmatch(revision):
            size = self._place.size(f"{TAGS}/{revision}.json")
            if size is not None:
                return self._find(log, self._tag(revision, size)).id
        raise UnknownNameError(f"revision of {self._place.url}", revision, self._tags())

    def sizes(self, revision: str, names: Sequence[str]) -> dict[str, int]:
        """The sizes of those files that the version has, as its record has them."""
        files = self._find(self._log(), revision).files
        return {name: files[name].bytes for name in names if name in files}

    def fetch(self, revision: str, names: Sequence[str], folder: Path) -> None:
        """Write those files of a version into ``folder``; each must be what the version's record says of it.

        What an earlier call has left there is read again, and fetched again where it is not the file.
        """
        files = self._find(self._log(), revision).files
        for name in names:
            if name not in files:
                raise RemoteError(f"{self._place.url}: version {revision:.12} has no file {name!r:.100}")
        for name in names:
            target = folder / check_name(name)
            if target.is_file() and not target.is_symlink():
                if _hashed(name, target) == files[name]:
                    continue
                target.unlink()
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fetch(f"{VERSIONS}/{revision}/{name}", files[name], target)

    def _fetch(self, path: str, file: File, target: Path) -> None:
        found = self._place.size(path)
        if found != file.bytes:
            has = "is not there" if found is None else f"has {found:,} bytes"
            raise RemoteError(f"{self._place.url}: {path} {has}; {file.bytes:,} were published")
        with self._place.stream(path) as stream, target.open("xb") as copy:
            if hash_file(_Written(stream, copy, file.bytes)) != file:
                raise RemoteError(f"{self._place.url}: {path} is not what was published: its sha256 is another")

    def push(
        self, files: Mapping[str, Path], *, message: str, parent: str, private: bool, replaces: Sequence[str] = ()
    ) -> str:
        """Publish one version; who may read it is for the place to say, and ``private`` is nothing to it."""
        del private
        log = self._log()
        newest = self._record(log, len(log)) if log else None
        kept = {
            name: file
            for name, file in (newest.files if newest else {}).items()
            if name not in files and not any(fnmatchcase(name, pattern) for pattern in replaces)
        }
        hashed = _all_hashed(files)
        every = {**kept, **hashed}
        record = Record(
            id=version_id(every),
            parent=parent,
            message=message,
            published=datetime.now(UTC).isoformat(),
            files={name: every[name] for name in sorted(every)},
        )
        if newest and newest.id == record.id and parent in (newest.id, newest.parent):
            return record.id  # as it is; or an earlier call had got so far without being told
        if (newest.id if newest else "") != parent:
            raise self._conflict(parent, newest.id if newest else "")
        data = _written(record)
        self._place.clear_up()
        self._upload(record, {name: (path, hashed[name]) for name, path in files.items()}, newest)
        if not self._place.create(f"{LOG}/{len(log) + 1:08}.json", data):
            raise self._conflict(parent, self.resolve())
        return record.id

    def _upload(self, record: Record, files: Mapping[str, tuple[Path, File]], newest: Record | None) -> None:
        """Bring the files to where the version's are; those that are there, of an earlier call, are left."""
        there = f"{VERSIONS}/{record.id}"
        for name, (path, file) in sorted(files.items()):
            if not self._holds(f"{there}/{name}", file):
                self._place.put(path, f"{there}/{name}")
        for name in sorted(set(record.files) - set(files)):
            if newest and not self._holds(f"{there}/{name}", record.files[name]):
                self._place.copy(f"{VERSIONS}/{newest.id}/{name}", f"{there}/{name}")

    def _holds(self, path: str, file: File) -> bool:
        if self._place.size(path) != file.bytes:
            return False
        with self._place.stream(path) as stream:
            return hash_file(stream, file.bytes) == file

    def _conflict(self, parent: str, newest: str) -> ConflictError:
        after = f"version {parent:.12}" if parent else "nothing"
        return ConflictError(
            f"{self._place.url}: somebody else has published: this was to follow {after}, and the newest is "
            f"{newest[:12] or 'none'}; nothing was published"
        )

    def tag(self, name: str, revision: str) -> None:
        """Let a name point at a version, once and for all."""
        if not TAG.fullmatch(name) or ID.fullmatch(name):
            raise ConfigError(
                "the tag cannot be used", [f"{name!r:.100}: a tag is of letters, digits, '.', '_' and '-', 96 at most"]
            )
        version = self._find(self._log(), revision).id
        path = f"{TAGS}/{name}.json"
        if not self._place.create(path, write_tag(version)):
            other = self._tag(name, self._place.size(path) or 0)
            raise ConflictError(
                f"{self._place.url}: tag {name!r} points at version {other:.12} already; untag it first"
            )

    def untag(self, name: str) -> None:
        """Take a name away."""
        if not TAG.fullmatch(name) or self._place.size(f"{TAGS}/{name}.json") is None:
            raise UnknownNameError(f"tag of {self._place.url}", name, self._tags())
        self._place.remove(f"{TAGS}/{name}.json")

    def delete(self) -> None:
        """Take away every version, tag and record. What else is there stays, in folders of these names too."""
        records = self._to_delete()
        sent = self._place.names(VERSIONS)
        tags = [name for name in sorted(self._entries(TAGS)) if self._is_tag(name)]
        self._place.clear_up(older_than=-math.inf)
        # the newest first, and set aside until all is gone: there are fewer and fewer versions, then none, and a call that is
        # cut off can be made again
        for name in sorted(records, reverse=True):
            if _RECORD.fullmatch(name):
                self._place.copy(f"{LOG}/{name}", f"{LOG}/{_aside(name)}")
                self._place.remove(f"{LOG}/{name}")
        self._delete_files(sent, list(records.values()))
        for path in [f"{TAGS}/{name}" for name in tags] + sorted({f"{LOG}/{_aside(name)}" for name in records}):
            self._place.remove(path)
        for folder in (LOG, TAGS, VERSIONS, INCOMING, ""):
            self._place.remove_folder(folder)

    def _to_delete(self) -> dict[str, Record]:
        """The records of the log, and those that were set aside by a deletion that was cut off, by their files' names.

        Raises:
            UnknownNameError: There is none.
            RemoteError: There are files of such names, but none is a record.
        """
        entries = {name: size for name, size in self._entries(LOG).items() if _RECORD.fullmatch(_plain(name))}
        if not entries:
            raise UnknownNameError("repository", self._place.url, (), reason="nothing is published there")
        records: dict[str, Record] = {}
        refused = ""
        for name, size in sorted(entries.items()):
            try:
                records[name] = self._read_record(f"{LOG}/{name}", size)
            except RemoteError as error:
                refused = refused or str(error)
        if not records:
            raise RemoteError(f"{refused}; nothing was deleted")
        return records

    def _delete_files(self, sent: Sequence[str], records: Sequence[Record]) -> None:
        """Take away the files of versions, and what was sent but never published: under an id, with files of such names only."""
        ids, names = {one.id for one in records}, {name for one in records for name in one.files}
        held: dict[str, set[str]] = {}
        for path in sent:
            version, _, name = path.partition("/")
            held.setdefault(version, set()).add(name)
        ours = [one for one in sorted(held) if one in ids or (ID.fullmatch(one) and held[one] <= names)]
        folders = {f"{VERSIONS}/{one}" for one in self._place.folders(VERSIONS) if ID.fullmatch(one)}
        for version in ours:
            for name in sorted(held[version] & names):
                self._place.remove(f"{VERSIONS}/{version}/{name}")
                folders.update(f"{VERSIONS}/{version}/{parent}" for parent in _parents(name))
        for folder in sorted(folders, reverse=True):  # those within before those around them
            self._place.remove_folder(folder)

    def _is_tag(self, name: str) -> bool:
        tag = name.removesuffix(".json")
        if tag == name or not TAG.fullmatch(tag):
            return False
        try:
            self._tag(tag, self._place.size(f"{TAGS}/{name}") or 0)
        except RemoteError:
            return False
        return True

    # -- reading what may be a stranger's -----------------------------------------------------------------------------

    def _log(self) -> list[int]:
        """The sizes of the records, in their order."""
        entries = self._entries(LOG)
        sizes = {int(found[1]): size for name, size in entries.items() if (found := _RECORD.fullmatch(name))}
        missing = next((number for number in range(1, len(sizes) + 1) if number not in sizes), None)
        if missing is not None:
            raise RemoteError(f"{self._place.url}: the log is damaged: {LOG}/{missing:08}.json is not there")
        return [sizes[number] for number in sorted(sizes)]

    def _entries(self, folder: str) -> dict[str, int]:
        entries = self._place.entries(folder)
        if len(entries) > MOST_ENTRIES:
            raise RemoteError(
                f"{self._place.url}: {folder} has {len(entries):,} files; {MOST_ENTRIES:,} are read at most"
            )
        return entries

    def _record(self, log: Sequence[int], number: int) -> Record:
        return self._read_record(f"{LOG}/{number:08}.json", log[number - 1])

    def _read_record(self, path: str, size: int) -> Record:
        data = self._small(path, size, MOST_RECORD_BYTES)
        try:
            return Record.read(data)
        except ValueError as error:
            raise RemoteError(f"{self._place.url}: {path} is refused: {error}") from None

    def _records(self, log: Sequence[int]) -> list[Record]:
        """All of them, the newest first."""
        with ThreadPoolExecutor(self._place.at_once) as pool:
            return list(pool.map(lambda number: self._record(log, number), range(len(log), 0, -1)))

    def _find(self, log: Sequence[int], version: str) -> Record:
        """The newest record of an id."""
        newest = self._record(log, len(log)) if log else None
        if newest and newest.id == version:
            return newest
        found = next((record for record in self._records(log[:-1]) if record.id == version), None)
        if found is None:
            raise UnknownNameError(
                f"revision of {self._place.url}", version, (), reason="no version of that id is published"
            )
        return found

    def _tags(self) -> dict[str, str]:
        """The ids that tags stand for, by tag, in order."""
        named = {
            name.removesuffix(".json"): size for name, size in self._entries(TAGS).items() if name.endswith(".json")
        }
        return {tag: self._tag(tag, named[tag]) for tag in sorted(named) if TAG.fullmatch(tag)}

    def _tag(self, tag: str, size: int) -> str:
        path = f"{TAGS}/{tag}.json"
        try:
            return read_tag(self._small(path, size, MOST_TAG_BYTES))
        except ValueError as error:
            raise RemoteError(f"{self._place.url}: {path} is refused: {error}") from None

    def _small(self, path: str, size: int, most: int) -> bytes:
        if not 0 < size <= most:
            raise RemoteError(
                f"{self._place.url}: {path} is refused: it has {size:,} bytes, and 1 to {most:,} are read"
            )
        return self._place.read(path, size)


def _aside(name: str) -> str:
    """What a record is called from when its repository is deleted."""
    return f"{_plain(name).removesuffix('.json')}.deleted.json"


def _plain(name: str) -> str:
    """What a record was called before."""
    return name.replace(".deleted.json", ".json")


def _parents(name: str) -> list[str]:
    """The folders that a file's name leads through, by their paths."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


class _Written:
    """A stream that writes what is read of it to a file, and a byte more than ``most`` at most."""

    def __init__(self, stream: object, copy: object, most: int) -> None:
        self._stream, self._copy, self._left = stream, copy, most + 1

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(min(size, self._left))  # type: ignore[attr-defined]
        self._left -= len(data)
        self._copy.write(data)  # type: ignore[attr-defined]
        return data


def _hashed(name: str, path: Path) -> File:
    check_name(name)
    with path.open("rb") as file:
        return hash_file(file)


def _all_hashed(files: Mapping[str, Path]) -> dict[str, File]:
    try:
        return {name: _hashed(name, path) for name, path in files.items()}
    except ValueError as error:
        raise ConfigError("the version cannot be published", [str(error)]) from None


def _written(record: Record) -> bytes:
    """A record's file, which must be one that can be read again."""
    data = record.write()
    try:
        Record.read(data)
    except ValueError as error:
        raise ConfigError("the version cannot be published", [str(error)]) from None
    if len(data) > MOST_RECORD_BYTES or len(record.files) > MOST_FILES:
        raise ConfigError("the version cannot be published", [f"it has {len(record.files):,} files"])
    return data
