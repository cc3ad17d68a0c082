"""Fixtures that the tests share."""

import pytest
import torch

from adapterkit import Base
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE, FAMILIES


@pytest.fixture(params=FAMILIES)
def base(request):
    """A tiny base of each family."""
    return Base(FAMILIES[request.param]())


@pytest.fixture
def llama():
    return Base(tiny_llama())


@pytest.fixture
def ids():
    return torch.randint(1, 97, (4, 11), generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="session")
def example_base():
    """The small pretrained base of the examples; shared, so tests leave it with no adapter in use."""
    return Base(EXAMPLE_BASE)
