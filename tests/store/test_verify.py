"""Damage is found wherever it is, and named; adding once more heals it."""

import os
import resource
import signal
import sqlite3

import pytest

from adapterkit import ArtifactError, StoreError
from adapterkit.artifact.layout import MANIFEST, WEIGHTS


def blob(store, version, name=WEIGHTS):
    return store._blobs.path(store.files(version).files[name].pieces[0].sha256)


def overwrite(path, data):
    path.chmod(0o644)
    path.write_bytes(data)


def flipped(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    return bytes(data)


def damaged(store):
    with pytest.raises(StoreError) as refused:
        store.verify()
    assert str(refused.value) == f"{store} is damaged:" + "".join(f"\n  - {line}" for line in store.check().problems)
    return "\n".join(store.check().problems)


def sql(store, *statements):
    store._index.close()
    with sqlite3.connect(store.folder / "index.sqlite") as db:
        for statement in statements:
            db.execute(statement)
    db.close()


def test_a_sound_store_says_what_was_read(filled):
    said = filled.verify()
    assert (said.versions, said.problems, said.orphans) == (3, (), 0)
    assert said.files == said.blobs == 3 * 2 + 1  # the configuration is the same in all three
    assert said.entries == len(filled.history())


def test_a_changed_byte_is_found_by_verify_and_by_load(filled):
    path = blob(filled, "cards@2")
    overwrite(path, flipped(path))
    assert damaged(filled) == f"cards@2: {WEIGHTS}: blob {path.name} holds other bytes than it was written with"
    with pytest.raises(ArtifactError, match=r"version cards@2 of store .* is refused: adapter_model\.safetensors"):
        filled.load("cards@2")
    with pytest.raises(ArtifactError, match="is damaged in the store"):
        filled.checkout("cards@2", filled.folder.parent / "out")
    assert not (filled.folder.parent / "out").exists()
    assert filled.load("cards@1")


def test_a_missing_blob_is_found(filled):
    path = blob(filled, "cards@2")
    path.unlink()
    assert damaged(filled) == f"cards@2: {WEIGHTS}: blob {path.name} is missing"
    with pytest.raises(ArtifactError, match=f"its piece {path.name} cannot be read"):
        filled.load("cards@2")


def test_every_damage_is_named(filled, large):
    filled.add(large, "large")
    pieces = filled.files("large").files[WEIGHTS].pieces
    assert len(pieces) > 2
    filled._blobs.path(pieces[0].sha256).unlink()
    overwrite(filled._blobs.path(pieces[2].sha256), b"x")
    blob(filled, "cards@1").unlink()
    said = damaged(filled).splitlines()
    assert len(said) == 3
    assert said[1:] == [
        f"large@1: {WEIGHTS}: blob {pieces[0].sha256} is missing",
        f"large@1: {WEIGHTS}: blob {pieces[2].sha256} has 1 bytes of {pieces[2].size}",
    ]


def test_progress_is_told_to_the_last_byte(filled):
    told = []
    filled.check(lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1] > 0


def test_half_a_blob_is_found(filled):
    path = blob(filled, "cards@1", MANIFEST)
    overwrite(path, path.read_bytes()[:100])
    assert "has 100 bytes of" in damaged(filled)
    with pytest.raises(ArtifactError, match="another size than it was stored with"):
        filled.load("cards@1")


def test_adding_once_more_heals(filled, adapters):
    for version in ("cards@1", "cards@2", "cards@3"):
        path = blob(filled, version)
        overwrite(path, flipped(path))
    blob(filled, "cards@2", MANIFEST).unlink()
    assert len(filled.check().problems) == 4
    for adapter in adapters:
        filled.add(adapter, "again")
    assert filled.verify().problems == ()
    assert filled.load("cards@2") == adapters[1]


def test_what_lies_among_the_blobs_is_named(filled):
    (filled.folder / "blobs" / "sha256" / "ab").mkdir(exist_ok=True)
    (filled.folder / "blobs" / "sha256" / "ab" / "notes.txt").write_text("mine")
    assert damaged(filled) == "'notes.txt' lies among the blobs, and is none"


def test_a_blob_that_nothing_needs_is_no_damage(filled):
    filled.remove("cards@3")
    assert filled.verify().orphans == 2


def test_the_journal_is_never_changed(filled):
    for statement in ("UPDATE journal SET who = 'me'", "DELETE FROM journal", "DELETE FROM journal WHERE seq = 2"):
        with pytest.raises(StoreError, match="the journal is never changed"), filled._index.writing() as db:
            db.execute(statement)
    assert filled.verify().entries == 5


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE journal SET why = 'because' WHERE seq = 2", "row 2 is not what was written"),
        ("UPDATE journal SET chain = 'x' WHERE seq = 2", "row 3 is not what was written, or the row before is not"),
        ("DELETE FROM journal WHERE seq = 2", "row 3 follows row 1; rows between them are missing"),
        ("UPDATE journal SET origin = 'hf://org/cards@0123abc' WHERE seq = 2", "row 2 is not what was written"),
        ("DELETE FROM journal WHERE seq = 5", "cards@production points at 1 by the journal, at 2 by the index"),
        ("DELETE FROM journal WHERE seq < 6", "cards@3 is unknown by the journal, present by the index"),
    ],
)
def test_a_journal_that_somebody_has_changed_is_found(filled, statement, said):
    sql(filled, "DROP TRIGGER journal_stays", "DROP TRIGGER journal_remains", statement)
    assert said in damaged(filled)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE aliases SET number = 1", "cards@production points at 2 by the journal, at 1 by the index"),
        (
            "UPDATE versions SET state = 'removed' WHERE number = 1",
            "cards@1 has no files, or files although it is gone",
        ),
        ("DELETE FROM files WHERE number = 1", "cards@1 has no files"),
        ("DELETE FROM files WHERE number = 1", "belongs to no version"),
        ("DELETE FROM contents WHERE size = (SELECT max(size) FROM contents)", "files belongs to no row of contents"),
        ("DELETE FROM pieces WHERE size = (SELECT max(size) FROM pieces)", "and its pieces 0"),
        ("UPDATE versions SET who = 'mallory' WHERE number = 1", "cards@1: who is '"),
        ("UPDATE versions SET why = 'sic' WHERE number = 1", "cards@1: why is '' by the journal, 'sic' by the index"),
        (
            "UPDATE versions SET origin = 'hf://org/x' WHERE number = 1",
            "cards@1: origin is '' by the journal, 'hf://org/x'",
        ),
        ("UPDATE versions SET created = '2099' WHERE number = 1", "cards@1: created is '20"),
        ("UPDATE versions SET bytes = 1 WHERE number = 1", "cards@1 has 1 bytes, and its files 6"),
        ("UPDATE versions SET ended_by = 'me' WHERE number = 1", "cards@1: ended_by is '' by the journal, 'me'"),
        ("UPDATE aliases SET protected = 1", "whether cards@production is protected is False by the journal, True by"),
        ("DROP TRIGGER journal_stays", "index: trigger journal_stays is missing"),
        ("DROP INDEX pieces_by_blob", "index: index pieces_by_blob is missing"),
        (
            "CREATE TRIGGER mine AFTER INSERT ON journal BEGIN SELECT 1; END",
            "index: trigger mine is not what the store was",
        ),
        ("UPDATE versions SET digest = 'x' WHERE number = 1", "the adapter's digest is another one"),
        ("UPDATE versions SET manifest = 'x' WHERE number = 1", "is not the one that the version was added with"),
        (
            "UPDATE files SET content = (SELECT max(content) FROM files WHERE file GLOB '*rs') WHERE file GLOB '*rs'",
            "it lists another adapter_model.safetensors",
        ),
    ],
)
def test_an_index_that_somebody_has_changed_is_found(filled, statement, said):
    sql(filled, statement)
    assert said in damaged(filled)


def test_who_removed_a_version_is_known_by_the_journal(filled):
    filled.protect("cards@production")
    filled.remove("cards@1", who="ann")
    filled.unprotect("cards@production")
    filled.unalias("cards@production")
    assert filled.verify().versions == 2
    sql(filled, "UPDATE versions SET ended_by = 'mallory', ended = '2001' WHERE number = 1")
    said = damaged(filled)
    assert "cards@1: ended_by is 'ann' by the journal, 'mallory' by the index" in said
    assert "cards@1: ended is '20" in said


def test_a_version_that_was_made_another_as_a_whole_is_found(filled):
    """Files, manifest and digest fit one another: only the journal knows which adapter cards@1 was."""
    other = "(SELECT {0} FROM versions WHERE number = 2)"
    sql(
        filled,
        f"UPDATE versions SET digest = {other.format('digest')}, manifest = {other.format('manifest')} WHERE number = 1",
        "UPDATE files SET content = (SELECT content FROM files AS f WHERE f.number = 2 AND f.file = files.file)"
        " WHERE number = 1",
        "DELETE FROM contents WHERE sha256 NOT IN (SELECT content FROM files)",
        "DELETE FROM pieces WHERE content NOT IN (SELECT sha256 FROM contents)",
    )
    assert damaged(filled).startswith("journal: cards@1: manifest is '")


def plant_fifo(path, _outside):
    os.mkfifo(path)


def plant_link(path, outside):
    path.symlink_to(outside)


@pytest.mark.parametrize("plant", [plant_link, plant_fifo])
def test_what_lies_in_a_blobs_place_is_found_and_healed(filled, adapters, tmp_path, plant):
    path = blob(filled, "cards@1")
    outside = path.rename(tmp_path / "outside")  # where every byte is right
    plant(path, outside)
    assert f"cards@1: {WEIGHTS}: blob {path.name} cannot be read" in damaged(filled)
    with pytest.raises(ArtifactError, match="cannot be read"):
        filled.load("cards@1")
    filled.add(adapters[0], "again")
    assert filled.verify().problems == ()
    assert filled.load("cards@1") == adapters[0]
    assert outside.stat().st_nlink == 1


def test_a_log_without_its_index_is_not_taken_for_another_ones(filled, adapters):
    filled._index.close()
    (filled.folder / "index.sqlite").unlink()
    (filled.folder / "index.sqlite-wal").write_bytes(b"the log of an index that is gone")
    with pytest.raises(
        StoreError, match=r"is gone, and its log is not: put it back, or delete 'index\.sqlite-wal' too"
    ):
        filled.add(adapters[0], "cards")
    (filled.folder / "index.sqlite-wal").unlink()
    assert str(filled.add(adapters[0], "cards")) == "cards@1"


def test_an_index_that_is_none_is_named(filled, tmp_path):
    filled._index.close()
    path = filled.folder / "index.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"index\.sqlite' is damaged: file is not a database"):
        filled.resolve("cards")
    path.unlink()
    sqlite3.connect(path).execute("CREATE TABLE mine (x)")
    with pytest.raises(StoreError, match="is no index of a store"):
        filled.resolve("cards")


def test_an_index_of_a_later_schema_is_left_alone(filled):
    sql(filled, "PRAGMA user_version = 9")
    with pytest.raises(StoreError, match="has schema 9; 1 is known here: update adapterkit"):
        filled.versions()


def test_a_store_that_cannot_be_written_says_so(tmp_path, adapters):
    from adapterkit import Store

    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "file" / "store").add(adapters[0], "cards")


def test_a_full_disk_leaves_the_store_as_it_was(filled, large, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    held = filled.check()
    monkeypatch.setattr("adapterkit.store.blobs.sync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        filled.add(large, "cards")
    monkeypatch.undo()
    assert filled.check() == held


@pytest.fixture
def no_room(monkeypatch):
    """A disk that takes no file of more than 500 bytes, as one that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("what", ["folder", "adapter", "export", "tar"])
def test_a_disk_that_is_full_is_no_fault_of_the_adapter(filled, large, tmp_path, no_room, what):
    folder = large.save(tmp_path / "adapter")
    filled.export(tmp_path / "export")
    filled.export(tmp_path / "tar.tar")
    held = filled.check()
    calls = {
        "folder": lambda: filled.add(folder, "large"),
        "adapter": lambda: filled.add(large, "large"),
        "export": lambda: filled.import_(tmp_path / "export"),
        "tar": lambda: filled.import_(tmp_path / "tar.tar"),
    }
    no_room()
    with pytest.raises(StoreError, match=r"cannot be written to .*File too large"):
        calls[what]()
    assert list((filled.folder / "staging").iterdir()) == []
    assert filled.check() == held
