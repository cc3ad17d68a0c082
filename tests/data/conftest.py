"""Fixtures of the data tests."""

import pytest

import adapterkit_formats
from adapterkit import Registry
from tests.sample_tokenizers import CHAT_TOKENIZERS, example_tokenizer


@pytest.fixture(params=CHAT_TOKENIZERS)
def any_tokenizer(request):
    return CHAT_TOKENIZERS[request.param]()


@pytest.fixture(scope="session")
def tokenizer():
    return example_tokenizer()


@pytest.fixture
def registry():
    one = Registry(found=[])
    one.add(adapterkit_formats)
    return one
