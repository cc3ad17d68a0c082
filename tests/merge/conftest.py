"""A tiny base, and two adapters of it."""

import pytest

from adapterkit import Base
from adapterkit.testing import tiny_llama
from tests.support import make_adapter


@pytest.fixture(scope="module")
def llama():
    return Base(tiny_llama())


@pytest.fixture(scope="module")
def pair(llama):
    return make_adapter(llama, rank=4, seed=1), make_adapter(llama, rank=2, seed=2)
