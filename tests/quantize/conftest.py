"""Small bases on disk, whose layers are large enough for every kernel of bitsandbytes."""

import pytest
from transformers import AutoTokenizer

from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.support import EXAMPLE_BASE

pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(EXAMPLE_BASE)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory, tokenizer):
    """A Llama whose layers bitsandbytes would pack for inference: at least 64 features in and a multiple of 32 out."""
    folder = tmp_path_factory.mktemp("llama")
    model = tiny_llama(vocab_size=8192, hidden_size=128, intermediate_size=192, max_position_embeddings=128)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory, tokenizer):
    """A GPT-2: layers with biases, stored transposed, and a tied head."""
    folder = tmp_path_factory.mktemp("gpt2")
    tiny_gpt2(vocab_size=8192, n_embd=64, n_positions=128).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
