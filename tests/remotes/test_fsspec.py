"""Repositories in folders and buckets: what is published is there whole, for ever, and once."""

import os
import random
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from adapterkit import ConfigError, ConflictError, RemoteError, UnknownNameError
from tests.remotes.places import NAMES, fetched, files, new_url, push, repository


@pytest.fixture(params=["file", "memory", *os.environ.get("ADAPTERKIT_TEST_SCHEMES", "").split()])
def url(request, tmp_path):
    return new_url(request.param, tmp_path)


@pytest.fixture
def place(url):
    return repository(url)


# -- publishing and reading -------------------------------------------------------------------------------------------


def test_what_is_published_is_fetched(place, tmp_path):
    held = files(tmp_path, "one")
    version = push(place, held, message="the first")
    assert fetched(place, version, tmp_path) == {name: path.read_text() for name, path in held.items()}
    (only,) = place.revisions()
    assert (only.id, only.parent, only.tags, only.message) == (version, "", (), "the first")
    assert only.published
    assert place.resolve() == place.resolve(version) == version


def test_another_process_of_the_same_url_sees_the_same(url, place, tmp_path):
    version = push(place, files(tmp_path, "one"))
    assert repository(url).resolve() == version
    second = push(repository(url + "/"), files(tmp_path, "two"), parent=version)
    assert place.resolve() == second


def test_the_layout_is_the_documented_one(tmp_path):
    url = new_url("file", tmp_path)
    place = repository(url)
    version = push(place, files(tmp_path, "one"))
    place.tag("v1", version)
    root = Path(url.removeprefix("file://"))
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert found == {"log/00000001.json", "tags/v1.json", *(f"versions/{version}/{name}" for name in NAMES)}
    assert not stat.S_IMODE((root / "log/00000001.json").stat().st_mode) & 0o111


def test_versions_are_listed_newest_first(place, tmp_path):
    first = push(place, files(tmp_path, "one"))
    second = push(place, files(tmp_path, "two"), parent=first)
    third = push(place, files(tmp_path, "three"), parent=second)
    place.tag("v1", first)
    place.tag("stable", first)
    assert [(one.id, one.parent, one.tags) for one in place.revisions()] == [
        (third, second, ()),
        (second, first, ()),
        (first, "", ("stable", "v1")),
    ]


def test_the_same_files_are_the_same_version_wherever_they_are_published(place, tmp_path):
    other = repository(new_url("memory", tmp_path))
    assert push(place, files(tmp_path, "one")) == push(other, files(tmp_path, "one"))
    assert push(place, files(tmp_path, "two"), parent=place.resolve()) != other.resolve()


def test_publishing_again_what_is_newest_changes_nothing(place, tmp_path):
    version = push(place, files(tmp_path, "one"))
    assert push(place, files(tmp_path, "one"), parent=version) == version
    assert push(place, files(tmp_path, "one")) == version  # as one does who was not told that it had worked
    assert len(place.revisions()) == 1


def test_an_earlier_version_can_be_published_again(place, tmp_path):
    first = push(place, files(tmp_path, "one"))
    second = push(place, files(tmp_path, "two"), parent=first)
    assert push(place, files(tmp_path, "one"), parent=second) == first
    assert place.resolve() == first
    assert [one.id for one in place.revisions()] == [first, second]


def test_files_that_are_not_replaced_stay(place, tmp_path):
    first = push(place, files(tmp_path, "one", (*NAMES, "README.md", "model.sig")))
    second = push(place, files(tmp_path, "two"), parent=first, replaces=["model.*", "adapter*"])
    assert fetched(place, second, tmp_path, ["README.md"]) == {"README.md": "README.md: one"}
    assert set(place.sizes(second, [*NAMES, "README.md", "model.sig"])) == {*NAMES, "README.md"}
    assert set(place.sizes(first, [*NAMES, "README.md", "model.sig"])) == {*NAMES, "README.md", "model.sig"}


def test_sizes_are_of_the_files_that_are_there(place, tmp_path):
    held = files(tmp_path, "one")
    version = push(place, held)
    assert place.sizes(version, [NAMES[0], "README.md"]) == {NAMES[0]: held[NAMES[0]].stat().st_size}


def test_files_in_folders_are_published_too(place, tmp_path):
    names = ("config.json", "1_Pooling/config.json")
    version = push(place, files(tmp_path, "one", names))
    assert set(fetched(place, version, tmp_path, names)) == set(names)


def test_what_an_earlier_call_has_fetched_is_kept_where_it_is_right(place, tmp_path):
    version = push(place, files(tmp_path, "one"))
    folder = tmp_path / "staged"
    folder.mkdir()
    place.fetch(version, NAMES[:1], folder)
    (folder / NAMES[1]).write_text("half of i")
    before = (folder / NAMES[0]).stat()
    place.fetch(version, NAMES, folder)
    assert (folder / NAMES[1]).read_text() == f"{NAMES[1]}: one"
    assert (folder / NAMES[0]).stat() == before


def test_an_empty_file_is_a_file(place, tmp_path):
    held = files(tmp_path, "one")
    held["empty.txt"] = tmp_path / "empty.txt"
    held["empty.txt"].touch()
    assert fetched(place, push(place, held), tmp_path, ["empty.txt"]) == {"empty.txt": ""}


# -- tags -------------------------------------------------------------------------------------------------------------


def test_a_tag_points_at_one_version_for_ever(place, tmp_path):
    first = push(place, files(tmp_path, "one"))
    second = push(place, files(tmp_path, "two"), parent=first)
    place.tag("v1", first)
    place.tag("v1", first)
    with pytest.raises(ConflictError, match=f"points at version {first[:12]} already"):
        place.tag("v1", second)
    assert place.resolve("v1") == first


def test_a_tag_can_be_taken_away(place, tmp_path):
    version = push(place, files(tmp_path, "one"))
    place.tag("v1", version)
    place.untag("v1")
    with pytest.raises(UnknownNameError, match=r"no revision of .* 'v1'"):
        place.resolve("v1")
    with pytest.raises(UnknownNameError, match="no tag of"):
        place.untag("v1")


def test_a_tag_of_what_is_not_published_is_refused(place, tmp_path):
    push(place, files(tmp_path, "one"))
    with pytest.raises(UnknownNameError, match="no version of that id"):
        place.tag("v1", "0" * 64)


@pytest.mark.parametrize("name", ["", "../v1", "a/b", "a b", ".hidden", "v" * 97, "0" * 64, "nul\0"])
def test_a_tag_that_is_no_plain_word_is_refused(place, tmp_path, name):
    version = push(place, files(tmp_path, "one"))
    with pytest.raises(ConfigError, match="the tag cannot be used"):
        place.tag(name, version)


# -- what is not there ------------------------------------------------------------------------------------------------


def test_an_empty_place_has_no_revisions_and_resolves_nothing(place):
    assert place.revisions() == []
    with pytest.raises(UnknownNameError, match="nothing is published there"):
        place.resolve()
    with pytest.raises(UnknownNameError, match="nothing is published there"):
        place.delete()


def test_an_unknown_revision_is_refused_with_a_suggestion(place, tmp_path):
    place.tag("v1.0", push(place, files(tmp_path, "one")))
    with pytest.raises(UnknownNameError, match=r"did you mean 'v1.0'"):
        place.resolve("v1.1")


def test_a_file_that_is_not_in_the_version_cannot_be_fetched(place, tmp_path):
    version = push(place, files(tmp_path, "one"))
    with pytest.raises(RemoteError, match=r"has no file 'README.md'"):
        fetched(place, version, tmp_path, ["README.md"])


def test_files_that_were_uploaded_but_not_published_are_no_version(place, tmp_path):
    """As it is between the upload and the log, and for ever when the publisher dies there."""
    version = push(place, files(tmp_path, "one"))
    place._place.remove("log/00000001.json")
    with pytest.raises(UnknownNameError):
        place.resolve(version)
    assert push(place, files(tmp_path, "one")) == version  # what is there is found


def test_deleting_takes_everything_away_and_nothing_else(tmp_path):
    url = new_url("file", tmp_path)
    place = repository(url)
    first = push(place, files(tmp_path, "one"))
    place.tag("v1", push(place, files(tmp_path, "two"), parent=first))
    root = Path(url.removeprefix("file://"))
    (root / "notes.txt").write_text("mine")
    place.delete()
    assert [path.name for path in root.iterdir()] == ["notes.txt"]
    assert place.revisions() == []
    push(place, files(tmp_path, "one"))


def test_a_deletion_that_was_cut_off_shows_whole_versions_only_and_can_be_made_again(place, tmp_path, monkeypatch):
    remove = type(place._place).remove
    for moment in range(2 * (1 + len(NAMES)) + 3):
        first = push(place, files(tmp_path, "one"))
        place.tag("v1", push(place, files(tmp_path, "two"), parent=first))
        left = [moment]

        def cut_off(self, name, left=left):
            if not left[0]:
                raise RemoteError("the line is cut")
            left[0] -= 1
            remove(self, name)

        with monkeypatch.context() as patch:
            patch.setattr(type(place._place), "remove", cut_off)
            with pytest.raises(RemoteError, match="the line is cut"):
                place.delete()
        listed = [one.id for one in place.revisions()]
        assert (first in listed) is (moment < 2)
        for version in listed:
            assert set(fetched(place, version, tmp_path)) == set(NAMES)
        place.delete()
        assert place._place.names("") == []
        with pytest.raises(UnknownNameError):
            place.delete()


def test_a_damaged_repository_can_be_deleted(place, tmp_path):
    second = push(place, files(tmp_path, "two"), parent=push(place, files(tmp_path, "one")))
    place._place.remove("log/00000001.json")
    with pytest.raises(RemoteError, match="the log is damaged"):
        place.resolve(second)
    place.delete()
    assert place.revisions() == []


def test_a_parent_that_is_no_id_is_a_conflict_like_any_other(place, tmp_path):
    push(place, files(tmp_path, "one"))
    with pytest.raises(ConflictError):
        push(place, files(tmp_path, "two"), parent="main")


# -- at the same time -------------------------------------------------------------------------------------------------


def test_a_publisher_who_comes_second_is_told_and_nothing_is_lost(place, tmp_path):
    first = push(place, files(tmp_path, "one"))
    theirs = push(place, files(tmp_path, "theirs"), parent=first)
    with pytest.raises(ConflictError, match=f"to follow version {first[:12]}, and the newest is {theirs[:12]}"):
        push(place, files(tmp_path, "mine"), parent=first)
    with pytest.raises(ConflictError, match="to follow nothing"):
        push(place, files(tmp_path, "mine"))
    assert [one.id for one in place.revisions()] == [theirs, first]


def test_a_publisher_who_is_overtaken_while_uploading_is_told(place, tmp_path, monkeypatch):
    """The log is looked at before the files are sent: the record's creation has to decide."""
    upload = type(place)._upload
    theirs = []

    def overtaken(self, *arguments):
        upload(self, *arguments)
        if not theirs:
            theirs.append("")
            theirs.append(push(place, files(tmp_path, "theirs")))

    monkeypatch.setattr(type(place), "_upload", overtaken)
    with pytest.raises(ConflictError):
        push(place, files(tmp_path, "mine"))
    assert [one.id for one in place.revisions()] == theirs[1:]


def test_threads_that_publish_to_memory_at_once_lose_nothing(tmp_path, monkeypatch):
    exists = MemoryFileSystem.exists

    def slow(self, path, **options):
        found = exists(self, path, **options)
        time.sleep(random.random() * 0.004)  # between the look and the writing, as long as others need for all of it
        return found

    monkeypatch.setattr(MemoryFileSystem, "exists", slow)
    url = new_url("memory", tmp_path)
    outcomes = []

    def publish(number):
        place = repository(url)
        for again in range(5):
            held = files(tmp_path, f"{number} {again}")
            parent = next((one.id for one in place.revisions()), "")
            try:
                outcomes.append(push(place, held, parent=parent))
            except ConflictError:
                outcomes.append(None)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    published = [one for one in outcomes if one]
    assert len(outcomes) == 30
    assert sorted(published) == sorted(one.id for one in repository(url).revisions())


PUBLISHER = """
import sys
from pathlib import Path
from adapterkit import ConflictError, UnknownNameError
from adapterkit.registry import Registry
import adapterkit_fsspec
registry = Registry([])
registry.add(adapterkit_fsspec)
url, folder, number = sys.argv[1:]
place = registry.remote("file").open(url)
for again in range(6):
    file = Path(folder) / f"{number}-{again}"
    file.write_text(f"{number} {again}" * 1000)
    while True:
        try:
            parent = place.resolve()
        except UnknownNameError:
            parent = ""
        try:
            version = place.push({"adapter.txt": file}, message=number, parent=parent, private=True, replaces=["*"])
        except ConflictError:
            print("conflict", flush=True)
            continue
        print("published", version, flush=True)
        break
"""


def test_processes_that_publish_to_one_folder_at_once_lose_nothing(tmp_path):
    url = new_url("file", tmp_path)
    command = [sys.executable, "-c", PUBLISHER, url, str(tmp_path)]
    running = [subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True) for number in range(8)]
    said = [process.communicate(timeout=120)[0].splitlines() for process in running]
    assert [process.returncode for process in running] == [0] * 8
    published = [line.split()[1] for lines in said for line in lines if line.startswith("published")]
    log = repository(url).revisions()
    assert len(published) == len(set(published)) == 48
    assert {one.id for one in log} == set(published)
    assert [one.parent for one in log] == [*(one.id for one in log[1:]), ""]
    assert any("conflict" in lines for lines in said), "they never met: the test shows nothing"


def test_a_publisher_that_is_killed_leaves_a_version_or_none(tmp_path):
    url = new_url("file", tmp_path)
    root = Path(url.removeprefix("file://"))
    for moment in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, url, str(tmp_path), str(moment)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        process.stdout.readline()  # its first version is there
        time.sleep(moment * 0.002)
        process.kill()
        process.communicate()
        for one in repository(url).revisions():
            assert len(fetched(repository(url), one.id, tmp_path, ["adapter.txt"])["adapter.txt"]) >= 3000
    for left in (root / ".adapterkit-incoming").glob("*"):
        os.utime(left, (0, 0))
    push(repository(url), files(tmp_path, "after"), parent=repository(url).resolve())
    assert list((root / ".adapterkit-incoming").iterdir()) == []


# -- s3, where test_services.py runs this file ------------------------------------------------------------------------------

on_s3 = pytest.mark.skipif("s3" not in os.environ.get("ADAPTERKIT_TEST_SCHEMES", ""), reason="test_services.py runs it")


@on_s3
def test_a_bucket_that_is_not_there_is_not_made_on_s3(tmp_path):
    place = repository("s3://no-such-bucket/cards")
    assert place.revisions() == []
    with pytest.raises(RemoteError, match="cannot write"):
        push(place, files(tmp_path, "one"))
    assert not place._place.fs.exists("no-such-bucket")


@on_s3
def test_errors_of_s3_hold_no_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSPEC_S3_KEY", "canary-key-id")
    monkeypatch.setenv("FSSPEC_S3_SECRET", "canary-secret-key")
    place = repository("s3://Not_A_Bucket!/cards")
    with pytest.raises(RemoteError) as caught:
        push(place, files(tmp_path, "one"))
    assert "canary" not in str(caught.value)


@on_s3
def test_two_publishers_at_once_on_s3_are_told_apart(tmp_path):
    url = new_url("s3", tmp_path)
    outcomes = []

    def publish(number):
        place = repository(url)
        for again in range(5):
            held = files(tmp_path, f"{number} {again}", ["adapter.txt"])
            try:
                outcomes.append(push(place, held, parent=next((one.id for one in place.revisions()), "")))
            except ConflictError:
                outcomes.append(None)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 20
    assert None in outcomes, "they never met: the test shows nothing"
    assert sorted(filter(None, outcomes)) == sorted(one.id for one in repository(url).revisions())


# -- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "file://",
        "file:///",
        "s3://",
        "s3://bucket//cards",
        "file:///tmp/../etc",
        "file:///tmp/./x",
        "s3://bucket/cards?versionId=3",
        "s3://bucket/cards#1",
        "simplecache::s3://bucket/cards",
        "s3://bucket/simplecache::file:///x",
    ],
)
def test_a_url_that_is_no_plain_place_is_refused(url):
    with pytest.raises(ConfigError, match="the place cannot be used"):
        repository("s3://x/y").__class__(url)


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(ConfigError, match="holds a password") as caught:
        repository("sftp://me:hunter2@host/cards")
    assert "hunter2" not in str(caught.value)


def test_opening_a_place_touches_nothing():
    for scheme in ("file", "s3", "gs", "gcs", "az", "abfs", "oss", "hdfs", "sftp", "smb"):
        repository(f"{scheme}://nowhere/cards")
    assert not Path("nowhere").exists()


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(RemoteError, match=r"s3fs.*pip install \"adapterkit\[s3\]\""):
        repository("s3://bucket/cards").revisions()


def test_errors_hold_no_keys(monkeypatch, tmp_path):
    place = repository(new_url("memory", tmp_path))
    fs = place._place.fs
    monkeypatch.setitem(fs.storage_options, "secret", "canary-secret")
    monkeypatch.setitem(fs.storage_options, "client_kwargs", {"token": "canary-token"})

    def failing(*_, **__):
        raise PermissionError(
            "denied: canary-secret canary-token at https://host/path?X-Amz-Signature=canary-query&a=b"
        )

    monkeypatch.setattr(type(fs), "ls", failing)
    with pytest.raises(RemoteError, match="cannot list: PermissionError: denied") as caught:
        place.revisions()
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_folder_that_cannot_be_written_is_an_error_and_nothing_is_published(tmp_path):
    (tmp_path / "repository").write_text("a file")
    with pytest.raises(RemoteError, match="cannot"):
        push(repository(new_url("file", tmp_path)), files(tmp_path, "one"))


def test_a_file_system_without_hard_links_says_so(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    place = repository(new_url("file", tmp_path))
    with pytest.raises(RemoteError, match="no hard links"):
        push(place, files(tmp_path, "one"))
    assert place.revisions() == []


class Plain(MemoryFileSystem):
    """A file system that knows no exclusive creation, as many do not: it overwrites."""

    protocol = "smb"
    store = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    before_writing = None

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("smb://", "memory://"))

    def pipe_file(self, path, value, mode="overwrite", **_):
        if mode == "create" and self.exists(path):
            raise FileExistsError(path)
        super().pipe_file(path, value)
        if Plain.before_writing:  # between the look and the end of the writing, somebody else writes too
            meanwhile, Plain.before_writing = Plain.before_writing, None
            super().pipe_file(path, meanwhile)


@pytest.fixture
def plain():
    fsspec.register_implementation("smb", Plain, clobber=True)
    yield repository("smb://host/share/cards")
    fsspec.register_implementation("smb", "fsspec.implementations.smb.SMBFileSystem", clobber=True)
    Plain.store.clear()


def test_where_nothing_can_be_made_exclusively_a_lost_race_is_seen_afterwards(plain, tmp_path):
    first = push(plain, files(tmp_path, "one"))
    theirs = repository(new_url("memory", tmp_path))
    push(theirs, files(tmp_path, "one"))
    push(theirs, files(tmp_path, "theirs"), parent=first)
    record = "log/00000002.json"
    Plain.before_writing = theirs._place.read(record, theirs._place.size(record))
    with pytest.raises(ConflictError):
        push(plain, files(tmp_path, "mine"), parent=first)
    assert plain.resolve() == theirs.resolve()


def test_a_file_system_that_is_not_made_for_it_is_read_by_one_thread_at_a_time(plain, tmp_path, monkeypatch):
    """Two threads on one SFTP connection wait for each other for ever."""
    version = ""
    for number in range(4):
        version = push(plain, files(tmp_path, str(number)), parent=version)
    cat_file = Plain.cat_file
    reading, together = [], []

    def slow(self, path, **options):
        reading.append(path)
        time.sleep(0.01)
        together.append(len(reading))
        reading.remove(path)
        return cat_file(self, path, **options)

    monkeypatch.setattr(Plain, "cat_file", slow)
    assert len(plain.revisions()) == 4
    assert max(together) == 1


def test_a_file_system_that_cannot_copy_is_copied_on_by_way_of_here(plain, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr(Plain, "cp_file", refuse)
    first = push(plain, files(tmp_path, "one", (*NAMES, "notes.txt")))
    second = push(plain, files(tmp_path, "two"), parent=first, replaces=())
    assert fetched(plain, second, tmp_path, ["notes.txt"]) == {"notes.txt": "notes.txt: one"}
