"""A Hub of this process, and adapters that are fit to be published."""

import attrs
import pytest
from huggingface_hub import constants

from adapterkit import Base, Store
from adapterkit.testing import tiny_llama
from adapterkit.testing.hub import Hub
from tests.support import make_adapter

EVALUATION = {
    "results": [
        {
            "name": "test.csv",
            "digest": "0" * 64,
            "rows": 200,
            "of": 200,
            "scores": {"accuracy": 0.91, "loss": 0.3},
            "base": {"accuracy": 0.02, "loss": 4.1},
        }
    ]
}
ABOUT = {"license": "apache-2.0", "base_model": "org/tiny", "tag": "v1"}


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    """No test touches the store, the policy or the token of who runs it."""
    monkeypatch.setenv("ADAPTERKIT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ADAPTERKIT_TRUST", raising=False)


def started(monkeypatch, **options):
    """A Hub that the client of this process asks; whether it uses Xet it reads once, when it is imported."""
    hub = Hub(**options)
    for name, value in hub.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", hub.cas is None)
    return hub


@pytest.fixture
def hub(monkeypatch):
    """A Hub without Xet."""
    with started(monkeypatch, xet=False) as hub:
        yield hub


@pytest.fixture(params=["lfs", "xet"])
def either_hub(request, monkeypatch):
    """A Hub that keeps large files in the one way or the other."""
    with started(monkeypatch, xet=request.param == "xet") as hub:
        yield hub


@pytest.fixture(scope="session")
def tiny():
    return Base(tiny_llama())


@pytest.fixture(scope="session")
def make(tiny):
    """Makes an adapter that was evaluated."""

    def made(seed=0, evaluation=EVALUATION, **options):
        adapter = make_adapter(tiny, seed=seed, **options)
        return attrs.evolve(adapter, manifest=attrs.evolve(adapter.manifest, evaluation=evaluation))

    return made


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")
