"""What is read from a bucket is a stranger's: nothing of it is believed, and nothing is written but what was asked for."""

import json
import os
from pathlib import Path

import pytest

from adapterkit import ConfigError, RemoteError, UnknownNameError
from tests.remotes.places import NAMES, fetched, files, new_url, push, record, repository


@pytest.fixture
def held(tmp_path):
    return files(tmp_path, "one")


@pytest.fixture
def place(tmp_path, held):
    made = repository(new_url("file", tmp_path))
    push(made, held)
    return made


def root(place):
    return Path(place._place.url.removeprefix("file://"))


def rewrite(place, values, number=1):
    text = values if isinstance(values, (str, bytes)) else json.dumps(values)
    (root(place) / f"log/{number:08}.json").write_bytes(text.encode() if isinstance(text, str) else text)


BAD_NAMES = [
    "../escaped",
    "/etc/passwd",
    "a/../../b",
    "a//b",
    "a/./b",
    "C:\\x",
    "a\\b",
    "nul",
    "COM1.txt",
    "a\0b",
    "name.",
    "..",
    "",
    "x" * 201,
    "a\nb",
    "ünï",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_record_with_a_name_that_could_lead_anywhere_is_refused(place, held, tmp_path, name):
    values = record(held)
    values["files"][name] = values["files"][NAMES[0]]
    rewrite(place, values)
    for ask in (place.resolve, place.revisions, lambda: place.sizes("0" * 64, [name])):
        with pytest.raises(RemoteError, match=r"log/00000001.json is refused"):
            ask()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_files_of_such_names_are_not_published_either(place, held, name):
    before = sorted(root(place).rglob("*"))
    with pytest.raises(ConfigError, match="cannot be a file's name everywhere"):
        push(place, held | {name: held[NAMES[0]]}, parent=place.resolve())
    assert sorted(root(place).rglob("*")) == before


def test_names_that_differ_by_case_alone_are_refused(place, held):
    values = record(held)
    values["files"][NAMES[0].upper()] = values["files"][NAMES[0]]
    rewrite(place, values)
    with pytest.raises(RemoteError, match="differ by case alone"):
        place.resolve()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "update adapterkit"),
        ({"extra": 1}, "its fields are"),
        ({"id": "0" * 64}, "not that of the files"),
        ({"id": "../../etc"}, "not that of the files"),
        ({"id": None}, "not that of the files"),
        ({"parent": "../x"}, "its parent"),
        ({"parent": 3}, "its parent"),
        ({"message": 3}, "its message"),
        ({"message": "x" * 10_001}, "its message"),
        ({"files": {}}, "does not list"),
        ({"files": []}, "does not list"),
        ({"files": {"a": {}}}, "not described"),
        ({"files": {"a": {"sha256": "x", "bytes": 1}}}, "sha256 or size"),
        ({"files": {"a": {"sha256": "0" * 64, "bytes": -1}}}, "sha256 or size"),
        ({"files": {"a": {"sha256": "0" * 64, "bytes": True}}}, "sha256 or size"),
        ({"files": {"a": {"sha256": "0" * 64, "bytes": 1e9}}}, "sha256 or size"),
        ({"files": {"a": {"sha256": "0" * 64, "bytes": 1 << 60}}}, "sha256 or size"),
    ],
)
def test_a_record_that_is_not_ours_is_refused(place, held, changes, said):
    rewrite(place, record(held, **changes))
    with pytest.raises(RemoteError, match=said):
        place.resolve()


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{", '{"schema": 1, "schema": 1}', "\xff", "[" * 100_000, '{"a":' * 5000, "9" * 5000],
    ids=["empty", "null", "list", "cut off", "twice", "not UTF-8", "deep list", "deep object", "number"],
)
def test_a_record_that_is_no_object_is_refused(place, text):
    rewrite(place, text.encode("latin-1"))
    with pytest.raises(RemoteError, match="is refused"):
        place.revisions()


def test_a_huge_record_is_not_read(place):
    with (root(place) / "log/00000001.json").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk, and would take all memory
    with pytest.raises(RemoteError, match="1,099,511,627,776 bytes"):
        place.resolve()


def test_a_log_with_a_gap_is_refused(place, held):
    rewrite(place, record(held), number=3)
    with pytest.raises(RemoteError, match=r"log/00000002.json is not there"):
        place.resolve()


def test_what_else_lies_beside_the_records_is_passed_over(place):
    for name in ("x.json", "1.json", "00000002.json.tmp", "-0000002.json"):
        (root(place) / "log" / name).write_text("{}")
    (root(place) / "log" / "00000002.json").mkdir()
    (root(place) / "tags").mkdir()
    (root(place) / "tags" / "not a tag!.json").write_text("{}")
    assert len(place.revisions()) == 1


def test_a_log_of_a_million_entries_is_not_read(place, monkeypatch):
    monkeypatch.setattr(type(place._place), "entries", lambda *_: dict.fromkeys(map(str, range(100_001)), 1))
    with pytest.raises(RemoteError, match="100,001 files"):
        place.revisions()


def test_messages_cannot_write_on_a_terminal(place, held):
    rewrite(place, record(held, message="\x1b[2Jall is well\x07\u202e\nsecond line"))
    (only,) = place.revisions()
    assert only.message == "�[2Jall is well��\nsecond line"


def test_a_time_that_is_none_is_left_out(place, held):
    for odd in ("\x1b[2J", 3, None, "yesterday"):
        rewrite(place, record(held, published=odd))
        assert place.revisions()[0].published == ""


@pytest.mark.parametrize(
    "text", ['{"id": "../../../etc/passwd"}', '{"id": 3}', "{}", "[]", "", '{"id": "%s", "x": 1}' % ("0" * 64)]
)
def test_a_tag_that_names_no_id_is_refused(place, text):
    (root(place) / "tags").mkdir()
    (root(place) / "tags/v1.json").write_text(text)
    with pytest.raises(RemoteError, match=r"tags/v1.json is refused"):
        place.resolve("v1")
    with pytest.raises(RemoteError, match=r"tags/v1.json is refused"):
        place.revisions()


def test_a_tag_of_what_is_not_in_the_log_resolves_to_nothing(place):
    (root(place) / "tags").mkdir()
    (root(place) / "tags/v1.json").write_text(json.dumps({"id": "0" * 64}))
    with pytest.raises(UnknownNameError, match="no version of that id"):
        place.resolve("v1")


@pytest.mark.parametrize("revision", ["../../etc/passwd", "a/b", "v1\0", "*", "v" * 200, "00000001", "log"])
def test_a_revision_is_never_a_path(place, revision):
    with pytest.raises(UnknownNameError):
        place.resolve(revision)


# -- files that are not what they were --------------------------------------------------------------------------------


def damage(place, change):
    path = root(place) / "versions" / place.resolve() / NAMES[1]
    change(path)
    return path


def refused(place, tmp_path, said):
    with pytest.raises(RemoteError, match=said):
        fetched(place, place.resolve(), tmp_path)


def test_a_file_of_other_bytes_is_refused(place, tmp_path):
    damage(place, lambda path: path.write_text(path.read_text()[::-1]))
    refused(place, tmp_path, "its sha256 is another")


def test_a_file_that_is_cut_off_or_longer_is_refused_before_it_is_read(place, tmp_path):
    damage(place, lambda path: path.write_text(path.read_text()[:-1]))
    refused(place, tmp_path, r"has \d+ bytes")
    damage(place, lambda path: os.truncate(path, 1 << 40))
    refused(place, tmp_path, "has 1,099,511,627,776 bytes")


def test_a_file_that_is_longer_than_it_says_fills_no_disk(place, tmp_path, monkeypatch):
    size = type(place._place).size
    held = damage(place, lambda path: os.truncate(path, 1 << 40)).stat().st_size
    published = place.sizes(place.resolve(), NAMES)[NAMES[1]]
    monkeypatch.setattr(
        type(place._place), "size", lambda self, name: published if size(self, name) == held else size(self, name)
    )
    refused(place, tmp_path, "its sha256 is another")
    assert (
        sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size < 1 << 40)
        < 10_000
    )


def test_a_missing_file_is_refused(place, tmp_path):
    damage(place, Path.unlink)
    refused(place, tmp_path, "is not there")


def test_what_is_no_file_is_never_opened(place, tmp_path):
    def make_fifo(path):
        path.unlink()
        os.mkfifo(path)  # opening it would wait for ever

    damage(place, make_fifo)
    refused(place, tmp_path, "is not there")


def test_a_link_does_not_lead_to_files_of_this_machine(place, tmp_path):
    secret = tmp_path / "secret"
    published = place.sizes(place.resolve(), NAMES)[NAMES[1]]
    secret.write_text("s" * published)

    def link(path):
        path.unlink()
        path.symlink_to(secret)

    damage(place, link)
    refused(place, tmp_path, "is a link")


def test_nothing_is_fetched_through_a_link_in_the_folder(place, tmp_path):
    target = tmp_path / "elsewhere"
    target.write_text("mine")
    folder = tmp_path / "staged"
    folder.mkdir()
    (folder / NAMES[0]).symlink_to(target)
    with pytest.raises((RemoteError, FileExistsError)):
        place.fetch(place.resolve(), NAMES[:1], folder)
    assert target.read_text() == "mine"


def test_damaged_files_of_a_version_are_sent_again(place, held, tmp_path):
    """A version whose files were damaged before it was published: whoever publishes it repairs it."""
    damage(place, lambda path: path.write_text(path.read_text()[::-1]))
    (root(place) / "log/00000001.json").unlink()
    version = push(place, held)
    assert fetched(place, version, tmp_path)[NAMES[1]] == f"{NAMES[1]}: one"


def test_too_many_files_are_not_published(place, held, tmp_path):
    one = held[NAMES[0]]
    with pytest.raises(ConfigError, match="10,000 files"):
        push(place, {f"f{number}": one for number in range(10_001)}, parent=place.resolve())
