import shutil

import pytest

from adapterkit import Base, Store
from adapterkit.testing import tiny_llama
from tests.support import make_adapter


@pytest.fixture(scope="session")
def base():
    return Base(tiny_llama())


@pytest.fixture(scope="session")
def adapters(base):
    """Three adapters of a kind."""
    return [make_adapter(base, seed=seed) for seed in range(3)]


@pytest.fixture(scope="session")
def large(base):
    """An adapter with tensors that are blobs of their own, and smaller ones between them."""
    return make_adapter(base, rank=600, target_modules=["q_proj", "o_proj"])


@pytest.fixture(scope="session")
def made(adapters, tmp_path_factory):
    """A folder with a store that has three versions of cards, the second in production, and an export of the first."""
    folder = tmp_path_factory.mktemp("made")
    store = Store(folder / "store")
    for adapter in adapters:
        store.add(adapter, "cards")
    store.promote("cards@1", "production")
    store.promote("cards@2", "production")
    store.export(folder / "export", ["cards@1"])
    store._index.close()
    return folder


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def filled(made, tmp_path):
    """A store with three versions of cards, the second of which is in production."""
    shutil.copytree(made / "store", tmp_path / "store")
    return Store(tmp_path / "store")
