"""Saving replaces an adapter's folder as a whole, and nothing else ever."""

from pathlib import Path

import attrs
import pytest

from adapterkit import Adapter, ArtifactError
from adapterkit.artifact import writer
from tests.artifact.adapter_folders import contents


@pytest.fixture
def other(adapter):
    return attrs.evolve(adapter, manifest=attrs.evolve(adapter.manifest, training={"steps": 1}))


def test_an_adapter_takes_the_place_of_another(saved, other, registry):
    assert other.save(saved, registry=registry) == saved
    assert Adapter.load(saved, registry=registry).manifest.training == {"steps": 1}
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_an_empty_folder_is_filled_and_missing_parents_are_made(adapter, registry, tmp_path):
    (tmp_path / "empty").mkdir()
    assert Adapter.load(adapter.save(tmp_path / "empty", registry=registry), registry=registry) == adapter
    assert Adapter.load(adapter.save(tmp_path / "a" / "b", registry=registry), registry=registry) == adapter


def test_a_link_to_a_folder_stays_a_link(saved, other, registry, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(saved)
    other.save(link, registry=registry)
    assert link.is_symlink()
    assert Adapter.load(saved, registry=registry) == other


@pytest.mark.parametrize("name", ["thesis.txt", "model.safetensors", "config.json", ".git"])
def test_a_folder_of_something_else_is_not_touched(adapter, registry, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ArtifactError, match="something that is no adapter"):
        adapter.save(tmp_path, registry=registry)
    assert contents(tmp_path) == {name: b"mine"}


def test_an_adapter_with_something_else_beside_it_is_not_touched(saved, other, registry):
    (saved / "optimizer.pt").write_text("three days of work")
    before = contents(saved)
    with pytest.raises(ArtifactError, match=r"'optimizer\.pt', which would be lost"):
        other.save(saved, registry=registry)
    assert contents(saved) == before


def test_a_file_in_the_place_of_the_folder_is_not_touched(adapter, registry, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError, match="there is a file of this name"):
        adapter.save(tmp_path / "file", registry=registry)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("step", ["_write_json", "_write_weights", "_write_proof"])
def test_whatever_fails_while_writing_the_old_adapter_is_as_it_was(saved, other, registry, monkeypatch, step):
    before = contents(saved)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, step, full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        other.save(saved, registry=registry)
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_leaves_the_old_adapter(saved, other, registry, monkeypatch, failing):
    before, rename, calls = contents(saved), Path.rename, []

    def fail_once(path, target):
        calls.append(path)
        if len(calls) == failing:
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(ArtifactError, match="Permission denied"):
        other.save(saved, registry=registry)
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_an_interrupt_is_passed_on_and_leaves_the_old_adapter(saved, other, registry, monkeypatch):
    before = contents(saved)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_write_proof", interrupt)
    with pytest.raises(KeyboardInterrupt):
        other.save(saved, registry=registry)
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]
