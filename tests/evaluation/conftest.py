import pytest

from adapterkit import Base
from adapterkit.evaluation import compare
from tests.support import EXAMPLE_BASE, make_adapter

ROWS = [
    {"prompt": "How do I locate my card?", "completion": "card arrival"},
    {"prompt": "Hi", "completion": "no"},
    {"prompt": "I still have not received my new card", "completion": "card arrival"},
    {"prompt": "My payment was declined", "completion": "declined, it seems"},
]


@pytest.fixture(scope="session")
def base():
    return Base(EXAMPLE_BASE)


@pytest.fixture(scope="session")
def adapter(base):
    return make_adapter(base, rank=4, scale=0.05)


@pytest.fixture(scope="session")
def other(base):
    return make_adapter(base, rank=4, scale=0.05, seed=1)


@pytest.fixture(scope="session")
def comparison(base, adapter, other):
    return compare(base, ROWS, {"one": adapter, "two": other}, max_new_tokens=6)
