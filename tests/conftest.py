"""Fixtures that the tests share."""

import pytest
import torch
from hypothesis import settings

from adapterkit import Base
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE, FAMILIES

# the same examples each time, so that a change is refused for what it does and not for what was drawn; machines may be slow
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory):
    """No test touches the store of who runs it, or obeys their policy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("ADAPTERKIT_STORE", str(tmp_path_factory.mktemp("home") / "store"))
        yield


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
