"""Saving replaces an adapter's folder as a whole, and nothing else ever."""

import os
from pathlib import Path

import attrs
import pytest

from adapterkit import Adapter, ArtifactError
from adapterkit.artifact import writer
from adapterkit.artifact.replacing import replacing
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


def killed(saving, renames):
    """Save in a process of its own, which dies before a rename."""
    child = os.fork()
    if child == 0:
        rename, done = Path.rename, []

        def die(path, target):
            done.append(path)
            if len(done) == renames:
                os._exit(9)
            return rename(path, target)

        Path.rename = die
        try:
            saving()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process can be forked here")
@pytest.mark.parametrize("renames", [1, 2, 3])
def test_what_a_killed_save_leaves_is_cleared_away_by_the_next_one(saved, other, registry, renames):
    beside = saved.parent / "beside"
    assert killed(lambda: other.save(saved, registry=registry), renames) == 9
    assert len(list(saved.parent.iterdir())) > 1
    assert saved.exists() == (renames != 2)
    other.save(beside, registry=registry)  # what is left of another folder is none of its business
    assert len(list(saved.parent.iterdir())) > 2
    left = min(saved.parent.glob(".adapterkit-*"))
    # their writers died at once, or have just begun
    empty, new = (left.with_name(f"{left.name.removesuffix('-old')}{end}") for end in "01")
    empty.mkdir()
    new.mkdir()
    os.utime(empty, (0, 0))
    other.save(saved, registry=registry)
    new.rmdir()
    assert Adapter.load(saved, registry=registry).manifest.training == {"steps": 1}
    assert sorted(path.name for path in saved.parent.iterdir()) == ["beside", "saved"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process can be forked here")
def test_an_adapter_that_was_moved_aside_by_a_killed_save_is_put_back_first(saved, other, registry, monkeypatch):
    before = contents(saved)
    assert killed(lambda: other.save(saved, registry=registry), 2) == 9
    assert not saved.exists()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_write_weights", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        other.save(saved, registry=registry)
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_what_a_living_process_is_writing_is_left_alone(saved, other, registry):
    pytest.importorskip("fcntl")
    with replacing(saved) as staging:
        (staging / "half").touch()
        (saved / "README.md").unlink()
        other.save(saved, registry=registry)
        assert (staging / "half").exists()
        (staging / "half").unlink()
        (staging / "adapterkit.json").touch()
    assert contents(saved) == {"adapterkit.json": b""}


def test_a_folder_that_another_holds_is_written_into(adapter, registry, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert adapter.save(tmp_path / "adapter", registry=registry).is_dir()
    os.close(held)


def test_an_interrupt_is_passed_on_and_leaves_the_old_adapter(saved, other, registry, monkeypatch):
    before = contents(saved)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_write_proof", interrupt)
    with pytest.raises(KeyboardInterrupt):
        other.save(saved, registry=registry)
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]
