"""Collection: what an alias, a lease, a grace or the name needs stays; the rest goes, and is said to be gone."""

import contextlib
import datetime as dt
import os
import shutil
import time

import attrs
import pytest

from adapterkit import (
    ArtifactError,
    ConfigError,
    ConflictError,
    RemoteError,
    SelectionError,
    StoreError,
    UnknownNameError,
)
from adapterkit.artifact.replacing import lock

NOW = dt.timedelta(0)


HOUR = dt.timedelta(hours=1)


@pytest.fixture
def old(store, adapters, monkeypatch):
    """A store whose versions were added and promoted long ago."""
    with monkeypatch.context() as patch:
        patch.setattr("adapterkit.store.journal.now", lambda: "2001-01-01T00:00:00.000000Z")
        for adapter in adapters:
            store.promote(store.add(adapter, "cards"), "head")
        store.unalias("cards@head")
    return store


def present(store):
    return [str(one) for one in store.versions()]


def collected(store, grace=NOW, **options):
    return [str(one) for one in store.collect(grace, **options).versions]


def blobs(store):
    return {path.name for path in (store.folder / "blobs").rglob("*") if path.is_file()}


def grown(store, adapter, count):
    """Versions of chain, each promoted to head in turn."""
    for number in range(count):
        other = attrs.evolve(adapter, tensors={name: one + number for name, one in adapter.tensors.items()})
        store.promote(store.add(other, "chain"), "head")


def test_what_nothing_needs_goes_after_its_grace(filled):
    filled.unalias("cards@production")
    held = blobs(filled)
    assert collected(filled, dt.timedelta(days=1)) == []
    assert blobs(filled) == held
    made = filled.collect(NOW, who="ann")
    assert [str(one) for one in made.versions] == ["cards@1", "cards@2"]
    assert made.blobs == len(held) - len(blobs(filled)) > 0
    assert made.bytes > 0
    assert present(filled) == ["cards@3"]
    with pytest.raises(UnknownNameError, match=r"it was collected at 20.* by ann"):
        filled.load("cards@1")
    assert filled.verify().orphans == 0


def test_a_dry_run_says_what_would_go_and_deletes_nothing(filled):
    filled.unalias("cards@production")
    held, rows = blobs(filled), filled.history()
    said = filled.collect(NOW, dry_run=True)
    assert (blobs(filled), filled.history(), len(filled.versions())) == (held, rows, 3)
    done = filled.collect(NOW)
    assert [str(one) for one in said.versions] == [str(one) for one in done.versions]
    assert (said.blobs, said.bytes) == (done.blobs, done.bytes)


def test_what_aliases_point_at_or_can_be_rolled_back_to_stays(store, adapters):
    grown(store, adapters[0], 5)
    assert collected(store, keep=2) == ["chain@1", "chain@2"]
    assert collected(store, keep=0) == ["chain@3", "chain@4"]
    with pytest.raises(SelectionError, match=r"chain@4 was collected at .*; promote another"):
        store.rollback("chain@head")


def test_a_version_stays_for_the_grace_after_an_alias_has_moved_off(old):
    old.promote("cards@2", "head")
    old.promote("cards@3", "head")
    assert collected(old, HOUR, keep=0) == ["cards@1"]
    assert collected(old, keep=0) == ["cards@2"]


def test_a_leased_version_stays_and_begins_its_grace_when_the_lease_ends(old):
    with old.lease("cards@1", holder="server 7") as lease:
        assert collected(old) == ["cards@2"]
        with pytest.raises(SelectionError, match="server 7 has leased it until"):
            old.remove("cards@1")
        until = lease.until
        lease.renew()
        assert lease.until > until
        assert old.load(lease.version).digest == lease.version.digest
    assert collected(old, HOUR) == []
    assert collected(old) == ["cards@1"]


def test_a_lease_ends_with_its_time_though_its_holder_is_dead(old):
    holder = old.lease("cards@1", seconds=600)
    lease = holder.__enter__()
    assert collected(old) == ["cards@2"]
    with old._index.writing() as db:
        db.execute("UPDATE leases SET until = '2001-01-01T00:10:00.000000Z'")
    assert collected(old, HOUR) == ["cards@1"]
    with pytest.raises(ConflictError, match=r"the lease of cards@1 ended at .*, and the version is gone"):
        lease.renew()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 10**9])
def test_a_lease_has_an_end(filled, seconds):
    with pytest.raises(ConfigError, match="a lease is for up to"), filled.lease("cards", seconds=seconds):
        pass


def test_a_removed_versions_blobs_go_with_the_next_collection(filled):
    held = blobs(filled)
    filled.remove("cards@3")
    assert blobs(filled) == held
    assert filled.check().orphans > 0
    made = filled.collect(NOW)
    assert (made.versions, made.blobs > 0) == ((), True)
    assert filled.verify().orphans == 0


def test_a_blob_that_is_needed_again_begins_its_grace_anew(filled, adapters):
    filled.remove("cards@3")
    old = time.time() - 3600
    for path in (filled.folder / "blobs").rglob("*"):
        os.utime(path, (old, old))
    filled.add(adapters[2], "tone")
    filled.remove("tone")
    assert filled.collect(dt.timedelta(minutes=30)).blobs == 0


def test_what_dead_writers_have_left_goes(filled):
    left = filled.folder / "staging" / "0123456789abcdef"
    left.mkdir()
    (left / "half").write_bytes(b"x" * 100)
    with filled._blobs.staging() as mine:
        (mine / "piece").write_bytes(b"x")
        assert filled.collect(NOW).staging == 1
        assert mine.exists()
    assert not left.exists()


def test_a_download_that_nobody_went_on_with_goes_after_the_grace(filled):
    part = filled.folder / "downloads" / "0123" / "part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x")
    assert filled.collect(HOUR).staging == 0
    os.utime(part.parent, (1, 1))
    assert filled.collect(HOUR).staging == 1
    assert not part.exists()


CARDS = "hf://org/cards@1"


def downloads(store):
    return sorted((store.folder / "downloads").iterdir())


def cut_off(store, error=RemoteError):
    """A download that was begun and ended by an error; its folder."""
    with contextlib.suppress(error), store.downloading(CARDS) as folder:
        (folder / "part").write_text("half")
        os.utime(folder, (1, 1))  # long ago
        raise error
    return folder


@pytest.mark.parametrize("error", [RemoteError, KeyboardInterrupt])
def test_who_was_cut_off_goes_on_in_the_same_folder(store, error):
    folder = cut_off(store, error)
    with store.downloading("hf://org/tone@1") as other:
        assert other != folder
        assert not any(other.iterdir())
    with store.downloading(CARDS) as again:
        assert again == folder
        assert (again / "part").read_text() == "half"
    assert downloads(store) == []


def test_what_was_refused_is_not_kept(store):
    cut_off(store, ArtifactError)
    assert downloads(store) == []


def test_who_asks_for_the_same_at_once_gets_another_folder_and_neither_is_collected(filled):
    with filled.downloading(CARDS) as first:
        (first / "part").write_text("half")
        with filled.downloading(CARDS) as second:
            (second / "part").write_text("mine")
            assert first != second
            assert filled.collect(NOW).staging == 0
            assert filled.collect(NOW, dry_run=True).staging == 0
            assert downloads(filled) == sorted([first, second])
        cut_off(filled)
        assert downloads(filled) == [first], "nobody would come back for another"
    assert downloads(filled) == []


def test_the_grace_of_a_download_begins_when_it_is_cut_off(filled):
    folder = cut_off(filled)
    assert filled.collect(HOUR).staging == 0
    assert filled.collect(NOW, dry_run=True).staging == 1
    assert downloads(filled) == [folder]
    assert filled.collect(NOW).staging == 1
    assert downloads(filled) == []


def test_a_download_is_not_taken_up_while_it_is_collected(filled, monkeypatch):
    folder = cut_off(filled)
    delete = shutil.rmtree
    taken = []

    def late(path, **options):
        if path == folder and not taken:
            with filled.downloading(CARDS) as mine:
                taken.append(mine)
        delete(path, **options)

    monkeypatch.setattr(shutil, "rmtree", late)
    filled.collect(NOW)
    assert taken
    assert taken[0] != folder


def test_a_folder_that_became_anothers_before_it_was_held_is_not_given(store, monkeypatch):
    first = []

    def late(folder):
        held = lock(folder)
        if not first:  # it is collected between its opening and its locking, and another one begins
            first.append(folder)
            folder.rename(folder.with_name("aside"))
            folder.mkdir()
        return held

    monkeypatch.setattr("adapterkit.store.blobs.lock", late)
    with store.downloading(CARDS) as folder:
        assert folder.is_dir()
        assert folder not in first
    assert first


@pytest.mark.parametrize("which", ["folder", "downloads"])
def test_a_link_where_a_download_belongs_is_refused(filled, tmp_path, which):
    folder = cut_off(filled)
    place = folder if which == "folder" else folder.parent
    shutil.rmtree(place)
    victim = tmp_path / "victim"
    victim.mkdir()
    place.symlink_to(victim)
    with pytest.raises(StoreError, match=r"is a link, .*: remove it"), filled.downloading(CARDS):
        pass
    assert filled.collect(NOW).staging == 0
    assert place.is_symlink()
    assert list(victim.iterdir()) == []


def test_a_link_among_what_was_fetched_is_not_gone_on_with(store, tmp_path):
    outside = tmp_path / "bashrc"
    outside.write_text("mine")
    folder = cut_off(store)
    (folder / "deep").mkdir()
    (folder / "deep" / "adapter_model.safetensors").symlink_to(outside)
    with store.downloading(CARDS) as again:
        assert again == folder
        assert not any(again.iterdir())
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("options", [{"grace": -dt.timedelta(1)}, {"keep": -1}])
def test_a_collection_that_cannot_be_meant_is_refused(filled, options):
    with pytest.raises(ConfigError, match="neither may be below 0"):
        filled.collect(**options)


def test_a_blob_that_is_asked_for_while_it_is_looked_at_stays(filled, monkeypatch):
    def listed(blobs, until):
        found = [blob for blob in blobs.all() if blob.used < until.timestamp()]
        for blob in found:
            os.utime(blobs.path(blob.sha256), (blob.used + 1, blob.used + 1))  # by one who is about to add it
        return found

    filled.remove("cards@3")
    monkeypatch.setattr("adapterkit.store.collecting._old", listed)
    assert filled.collect(NOW).blobs == 0
