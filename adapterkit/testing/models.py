"""Models of a few thousand weights, of real architectures, with nothing to download."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["tiny_gpt2", "tiny_llama"]


def tiny_llama(*, seed: int = 0, tied: bool = False, **changes: Any) -> Any:
    """A Llama with two layers of width 32 and random weights, in float32 and evaluation mode."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **{
            "vocab_size": 97,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "tie_word_embeddings": tied,
            "pad_token_id": 0,
            **changes,
        }
    )
    return _seeded(LlamaForCausalLM, config, seed)


def tiny_gpt2(*, seed: int = 0, **changes: Any) -> Any:
    """A GPT-2 with two layers of width 32, whose linear layers are ``Conv1D``, one of them for query, key and value at once."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        **{
            "vocab_size": 97,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 0,
            "eos_token_id": 0,
            **changes,
        }
    )
    return _seeded(GPT2LMHeadModel, config, seed)


def _seeded(cls: Any, config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(config).eval()
