"""A signed adapter, and who may have signed it."""

import pytest

from adapterkit import Base
from adapterkit.testing import tiny_llama
from adapterkit.trust import sign
from tests.support import make_adapter
from tests.trust.keys import make_keys


@pytest.fixture(scope="session")
def adapters():
    base = Base(tiny_llama())
    return make_adapter(base, rank=2), make_adapter(base, rank=2, seed=1)


@pytest.fixture
def adapter(adapters):
    return adapters[0]


@pytest.fixture
def folder(adapter, tmp_path):
    """An adapter's folder."""
    return adapter.save(tmp_path / "runs" / "cards")


@pytest.fixture
def keys(tmp_path):
    """The private keys of ``release`` and of ``other``; the public ones lie beside them."""
    return {name: make_keys(tmp_path, name)[0] for name in ("release", "other")}


@pytest.fixture
def signed(folder, keys):
    """The same folder, signed by ``release``."""
    sign(folder, keys["release"])
    return folder
