"""Wherever an adapter may be named: a path, a reference of the store, an address."""

import pytest

from adapterkit import ArtifactError, SelectionError, Stack, UnknownNameError, publish
from adapterkit.cli import main
from tests.publish.conftest import ABOUT


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_base_loads_references_of_the_store(make, tiny, store):
    store.add(make(seed=1), "cards")
    version = store.add(make(seed=2), "cards")
    store.promote("cards@1", "production")
    for text, seed in {"cards": 2, "cards@1": 1, "cards@production": 1, f"sha256:{version.digest[:12]}": 2}.items():
        assert tiny.load(text) == make(seed=seed)
    with pytest.raises(UnknownNameError, match="did you mean 'cards@production'"):
        tiny.load("cards@productoin")


def test_a_word_that_is_nothing_is_taken_for_a_folder(tiny, store, here):
    with pytest.raises(ArtifactError, match="no such folder"):
        tiny.load("cards")
    assert not store.folder.exists()  # looking makes no store


def test_a_path_and_a_name_that_are_alike_are_not_guessed_between(make, tiny, store, here):
    store.add(make(seed=1), "cards")
    make(seed=2).save(here / "cards")
    with pytest.raises(SelectionError, match=r"'\./cards'"):
        tiny.load("cards")
    assert tiny.load("./cards") == make(seed=2)
    assert tiny.load("cards@1") == make(seed=1)


def test_commands_take_references_and_addresses(make, store, here, capsys):
    store.add(make(seed=1), "cards")
    url = f"file://{here}/remote/tone"
    publish(make(seed=2), url, **ABOUT)
    assert main(["merge", "cards@1", f"{url}@v1", "--output", "merged"]) == 0
    assert main(["merge", "cards@2", f"{url}@v1", "--output", "merged"]) == 2
    assert "cards@2" in capsys.readouterr().err


def test_a_blend_of_both_kinds(make, tiny, store, here):
    from adapterkit.cli.acting import open_acting

    store.add(make(seed=1), "cards")
    url = f"file://{here}/remote/tone"
    publish(make(seed=2), url, **ABOUT)
    assert open_acting(tiny, f"cards+{url}@v1") == Stack(make(seed=1), make(seed=2))
