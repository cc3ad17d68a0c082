"""Export and import: plain folders out, all or nothing in."""

import datetime as dt
import json
import tarfile

import pytest

from adapterkit import Adapter, ArtifactError, ConfigError, SelectionError, Store, TrustError, UnknownNameError
from adapterkit.store import archive, checkout, exporting


@pytest.fixture
def other(tmp_path):
    return Store(tmp_path / "other")


def exported(store, tmp_path, form):
    """An export as a folder, a tar, or a tar that somebody else has packed."""
    if form == "folder":
        store.export(tmp_path / "export")
        return tmp_path / "export"
    path = tmp_path / "export.tar"
    if form == "tar":
        store.export(path)
        return path
    store.export(tmp_path / "folder")
    path = path.with_suffix(".tar.gz") if form == "packed" else path
    kinds = {"packed": ("w:gz", tarfile.GNU_FORMAT), "repacked": ("w", tarfile.USTAR_FORMAT)}
    mode, kind = kinds[form]
    with tarfile.open(path, mode, format=kind) as tar:
        tar.add(tmp_path / "folder", arcname=".")
    return path


@pytest.mark.parametrize("form", ["folder", "tar", "packed", "repacked"])
def test_what_is_exported_is_imported(filled, adapters, other, tmp_path, form):
    filled.protect("cards@production")
    path = exported(filled, tmp_path, form)
    brought = other.import_(path, who="ann")
    assert [str(one) for one in brought.added.values()] == ["cards@1", "cards@2", "cards@3"]
    assert [one.digest for one in other.versions()] == [one.digest for one in filled.versions()]
    assert {one.origin for one in other.versions()} == {str(path)}
    assert other.load("cards@production") == adapters[1]
    assert {one.action for one in other.history() if not one.alias} == {"import"}
    assert other.verify().versions == 3
    with pytest.raises(SelectionError, match="is protected"):
        other.promote("cards@3", "production")
    again = other.import_(path)
    assert (again.added, sorted(again.known), again.aliases, again.kept) == (
        {},
        ["cards@1", "cards@2", "cards@3"],
        (),
        (),
    )


def test_an_export_is_plain_adapter_folders_with_a_list(filled, adapters, tmp_path):
    filled.export(tmp_path / "export", ["cards@production", "cards@1", "cards@2"])
    assert Adapter.load(tmp_path / "export" / "cards" / "2") == adapters[1]
    listed = json.loads((tmp_path / "export" / "store.json").read_text())
    assert [(one["name"], one["number"]) for one in listed["versions"]] == [("cards", 1), ("cards", 2)]
    assert listed["aliases"] == [{"name": "cards", "alias": "production", "number": 2, "protected": False}]
    assert [one["action"] for one in listed["journal"]] == ["add"] * 3 + ["promote"] * 2


def test_the_same_export_is_the_same_bytes(filled, tmp_path):
    for name in ("one.tar", "two.tar"):
        filled.export(tmp_path / name)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:  # Python reads it as well
        assert len(tar.getmembers()) == 1 + 3 * 3


def test_an_export_writes_over_nothing_and_leaves_nothing_half(filled, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("mine")
    (tmp_path / "file.tar").write_text("mine")
    for taken in ("mine", "file.tar"):
        with pytest.raises(ConfigError, match="something is there already"):
            filled.export(tmp_path / taken)
    with pytest.raises(UnknownNameError):
        filled.export(tmp_path / "new", ["cards@9"])
    with pytest.raises(SelectionError, match="lies in"):
        filled.export(filled.folder / "export")
    piece = filled.files("cards@3").files["adapter_model.safetensors"].pieces[0]
    filled._blobs.path(piece.sha256).unlink()
    for name in ("new", "new.tar"):
        with pytest.raises(ArtifactError, match="the export is not written to"):
            filled.export(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.tar", "mine", "store"]


def test_a_number_that_was_given_here_is_another_one(filled, adapters, other, tmp_path):
    other.add(adapters[2], "cards")  # cards@3 there
    other.add(adapters[0], "cards")
    other.remove("cards@2")
    filled.export(tmp_path / "export")
    brought = other.import_(tmp_path / "export")
    assert {there: str(here) for there, here in brought.added.items()} == {"cards@1": "cards@3", "cards@2": "cards@4"}
    assert {there: str(here) for there, here in brought.known.items()} == {"cards@3": "cards@1"}
    assert str(other.resolve("cards@production")) == "cards@4"


def test_an_export_of_nothing_is_imported(store, other, tmp_path):
    store.export(tmp_path / "export.tar")
    made = other.import_(tmp_path / "export.tar")
    assert (made.added, made.known) == ({}, {})
    assert other.verify().versions == 0


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_an_export_beside_a_collection_says_what_was_collected(filled, tmp_path, monkeypatch, form):
    target = tmp_path / f"out.{form}"
    started = exporting.archive.header if form == "tar" else exporting._each

    def late(*arguments):
        if "cards@1" in filled:
            filled.remove("cards@1", who="ann")
            filled.collect(dt.timedelta(0))
        return started(*arguments)

    monkeypatch.setattr(*((exporting.archive, "header") if form == "tar" else (exporting, "_each")), late)
    with pytest.raises(UnknownNameError, match=r"no version 'cards@1': it was removed at .* by ann"):
        filled.export(target)
    assert not target.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_a_checkout_beside_a_collection_says_so_too(filled, tmp_path, monkeypatch):
    write = checkout.write

    def late(*arguments):
        filled.remove("cards@1", who="ann")
        filled.collect(dt.timedelta(0))
        return write(*arguments)

    monkeypatch.setattr(checkout, "write", late)
    with pytest.raises(UnknownNameError, match="it was removed at"):
        filled.checkout("cards@1", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_came_back_comes_back(store, adapters, other, tmp_path):
    for adapter in (adapters[0], adapters[1], adapters[0]):
        store.add(adapter, "cards")
    store.export(tmp_path / "export")
    for _ in range(2):
        other.import_(tmp_path / "export")
        assert [one.digest for one in other.versions()] == [one.digest for one in store.versions()]


def test_aliases_that_point_elsewhere_stay_unless_asked(filled, adapters, other, tmp_path):
    other.add(adapters[2], "cards")
    other.promote("cards@1", "production")
    filled.export(tmp_path / "export")
    assert other.import_(tmp_path / "export").kept == ("cards@production",)
    assert str(other.resolve("cards@production")) == "cards@1"
    other.protect("cards@production")
    assert other.import_(tmp_path / "export", move_aliases=True).kept == ("cards@production",)
    other.unprotect("cards@production")
    assert other.import_(tmp_path / "export", move_aliases=True).aliases == ("cards@production",)
    assert other.load("cards@production") == adapters[1]


def test_an_import_obeys_the_trust_policy_whatever_the_export_says(filled, adapters, other, tmp_path, monkeypatch):
    filled.add(adapters[0], "cards", origin="hf://org/cards@0123abc")
    filled.export(tmp_path / "export.tar")
    policy = tmp_path / "trust.toml"
    policy.write_text('[[allow]]\nsource = "hf://org/"\n')
    monkeypatch.setenv("ADAPTERKIT_TRUST", str(policy))
    with pytest.raises(TrustError, match=r"import of .* is refused"):
        other.import_(tmp_path / "export.tar")
    assert other.names() == []


def test_a_large_file_has_a_header_that_others_read():
    block = archive.header("cards/1/adapter_model.safetensors", 20 << 30)
    assert tarfile.TarInfo.frombuf(block, "utf-8", "strict").size == 20 << 30
    assert archive._parsed(block) == ("cards/1/adapter_model.safetensors", "0", 20 << 30)
