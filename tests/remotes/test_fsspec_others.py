"""A folder may hold other people's files, and links: publishing and deleting leave them, and what they lead to, as they are."""

import os
from pathlib import Path

import pytest

from adapterkit import RemoteError, UnknownNameError
from tests.remotes.places import NAMES, fetched, files, new_url, push, record, repository


@pytest.fixture
def root(tmp_path):
    return Path(new_url("file", tmp_path).removeprefix("file://"))


@pytest.fixture
def place(root):
    return repository(f"file://{root}")


def write(path, text="somebody else's"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (1, 1))
    return path


def there(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


FOREIGN = (
    "log/syslog",
    "log/1.json",
    "log/00000007.json",
    "log/00000008.deleted.json",
    "tags/list.txt",
    "tags/v9.json",
    "versions/release-1/source.tar",
    f"versions/{'a' * 64}/source.tar",
    f"versions/{'a' * 64}/adapterkit.json",
    "incoming/upload-of-a-customer.zip",
    ".adapterkit-incoming/upload.zip",
    ".adapterkit-incoming/0123456789abcdef.zip",
    "0123456789abcdef",
)


@pytest.mark.parametrize(
    "name", ["log/syslog", "log/00000001.json", "tags/v1.json", f"versions/{'a' * 64}/x", *FOREIGN]
)
def test_a_folder_that_is_no_repository_is_not_deleted(root, place, name):
    write(root / name)
    with pytest.raises((UnknownNameError, RemoteError), match=r"nothing is published there|nothing was deleted"):
        place.delete()
    assert there(root) == {name: "somebody else's"}


def test_deleting_leaves_what_is_not_of_the_repository(root, place, tmp_path):
    version = push(place, files(tmp_path, "one"))
    place.tag("v1", version)
    for name in (*FOREIGN, f"versions/{version}/notes.txt"):
        write(root / name)
    write(root / "log/00000007.json", "{}")
    place.delete()
    assert set(there(root)) == {*FOREIGN, f"versions/{version}/notes.txt"}


def test_deleting_takes_along_what_was_sent_but_never_published(root, place, tmp_path):
    push(place, files(tmp_path, "one"))
    write(root / "versions" / ("b" * 64) / NAMES[0])
    (root / "versions" / ("c" * 64)).mkdir()
    write(root / ".adapterkit-incoming/0123456789abcdef")
    place.delete()
    assert not root.exists()


def test_a_version_with_folders_is_deleted_whole(root, place, tmp_path):
    push(place, files(tmp_path, "one", ("config.json", "1_Pooling/deep/config.json")))
    place.delete()
    assert not root.exists()


def test_publishing_leaves_what_is_not_of_the_repository(root, place, tmp_path):
    foreign = [name for name in FOREIGN if not name.startswith(("log/0", "tags/v"))]
    for name in foreign:
        write(root / name)
    first = push(place, files(tmp_path, "one"))
    place.tag("v1", push(place, files(tmp_path, "two"), parent=first))
    assert {name: text for name, text in there(root).items() if name in foreign} == dict.fromkeys(
        foreign, "somebody else's"
    )
    assert len(place.revisions()) == 2


def test_a_log_of_somebody_else_is_not_published_into(root, place, tmp_path):
    write(root / "log/00000001.json")
    with pytest.raises(RemoteError, match=r"log/00000001.json is refused"):
        push(place, files(tmp_path, "one"))
    assert there(root) == {"log/00000001.json": "somebody else's"}


def test_what_a_killed_publisher_left_is_cleared_up_and_never_behind_a_link(root, place, tmp_path):
    first = push(place, files(tmp_path, "one"))
    left = write(root / ".adapterkit-incoming/0123456789abcdef")
    push(place, files(tmp_path, "two"), parent=first)
    assert not left.exists()
    home = write(tmp_path / "home/0123456789abcdef").parent
    (root / ".adapterkit-incoming").rmdir()
    (root / ".adapterkit-incoming").symlink_to(home)
    with pytest.raises(RemoteError, match="is a link"):
        push(place, files(tmp_path, "three"), parent=place.resolve())
    assert there(home) == {"0123456789abcdef": "somebody else's"}


@pytest.mark.parametrize("folder", ["log", "tags", "versions", "versions/ID"])
def test_nothing_is_written_read_or_deleted_through_a_link(root, place, tmp_path, folder):
    held = files(tmp_path, "one")
    version = record(held)["id"]
    home = tmp_path / "home"
    write(home / "README.md")
    link = root / folder.replace("ID", version)
    link.parent.mkdir(parents=True)
    link.symlink_to(home)

    def publish():
        place.tag("v1", push(place, held))

    with pytest.raises(RemoteError, match="is a link"):
        publish()
    assert there(home) == {"README.md": "somebody else's"}
    link.unlink()
    place.tag("v2", push(place, held))
    kept = link.rename(tmp_path / "kept")
    link.symlink_to(kept)
    before, log = there(kept), place._place.entries("log") if folder != "log" else {}
    with pytest.raises(RemoteError, match="is a link"):
        fetched(place, place.resolve("v2"), tmp_path)
    if folder == "versions/ID":
        place.delete()
        assert link.is_symlink()
    else:
        with pytest.raises(RemoteError, match="is a link"):
            place.delete()
        assert folder == "log" or place._place.entries("log") == log
    assert there(kept) == before


def test_a_link_in_the_place_of_a_file_is_neither_read_nor_written_through(root, place, tmp_path):
    held = files(tmp_path, "one")
    version = push(place, held)
    inside = root / "versions" / version / NAMES[0]
    target = inside.rename(tmp_path / "elsewhere")
    inside.symlink_to(target)
    with pytest.raises(RemoteError, match="is a link"):
        fetched(place, version, tmp_path)
    with pytest.raises(RemoteError, match="is a link"):
        push(place, {"more.txt": held[NAMES[1]]}, parent=version, replaces=())  # the others would be copied on
    (root / "log/00000001.json").unlink()
    with pytest.raises(RemoteError, match="is a link"):
        push(place, held)
    assert target.read_text() == f"{NAMES[0]}: one"


def test_a_link_that_appears_while_a_file_is_written_is_not_followed(root, place, tmp_path, monkeypatch):
    """The folder was looked at and is open: putting a link in its place comes too late."""
    held = files(tmp_path, "one")
    version = record(held)["id"]
    home = tmp_path / "home"
    home.mkdir()
    replace = os.replace

    def swapping(*arguments, **options):
        folder = root / "versions" / version
        if not folder.is_symlink():
            folder.rename(tmp_path / "moved")
            folder.symlink_to(home)
        replace(*arguments, **options)

    monkeypatch.setattr(os, "replace", swapping)
    with pytest.raises(RemoteError, match="is a link"):
        push(place, held)
    assert there(home) == {}


def test_a_repository_that_a_link_leads_to_is_published_to_and_deleted(root, tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    root.symlink_to(real)
    place = repository(f"file://{root}")
    assert set(fetched(place, push(place, files(tmp_path, "one")), tmp_path)) == set(NAMES)
    place.delete()
    assert there(real) == {}


def test_where_folders_cannot_be_opened_links_are_looked_for(root, place, tmp_path, monkeypatch):
    """As on Windows."""
    monkeypatch.setattr("adapterkit_fsspec.folder._FROM_FOLDERS", False)
    test_deleting_leaves_what_is_not_of_the_repository(root, place, tmp_path)
    home = write(tmp_path / "home/x").parent
    other = tmp_path / "other"
    other.mkdir()
    (other / "log").symlink_to(home)
    with pytest.raises(RemoteError, match="is a link"):
        push(repository(f"file://{other}"), files(tmp_path, "one"))
    assert there(home) == {"x": "somebody else's"}
