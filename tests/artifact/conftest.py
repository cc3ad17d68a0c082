import shutil

import pytest

import adapterkit_lora
from adapterkit.registry import Registry
from adapterkit.testing import tiny_llama
from tests.artifact.adapter_folders import make_adapter


@pytest.fixture(scope="session")
def registry():
    registry = Registry(found=(), environ={})
    registry.add(adapterkit_lora)
    return registry


@pytest.fixture(scope="session")
def model():
    return tiny_llama()


@pytest.fixture(scope="session")
def adapter(model):
    return make_adapter(model)


@pytest.fixture(scope="session")
def original(adapter, registry, tmp_path_factory):
    return adapter.save(tmp_path_factory.mktemp("original") / "adapter", registry=registry)


@pytest.fixture
def saved(original, tmp_path):
    """A folder that adapterkit wrote, free to be damaged."""
    return shutil.copytree(original, tmp_path / "saved")


@pytest.fixture
def stock(saved):
    """The same as PEFT would have written it: nothing in it proves anything."""
    (saved / "adapterkit.json").unlink()
    (saved / "README.md").unlink()
    return saved
