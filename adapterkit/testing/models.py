"""Models of a few thousand weights, of real architectures, with nothing to download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FAMILIES", "tiny_gpt2", "tiny_llama", "tiny_moe", "tiny_qwen"]

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def tiny_llama(*, seed: int = 0, tied: bool = False, **changes: Any) -> Any:
    """A Llama with two layers of width 32 and random weights, in float32 and evaluation mode."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return _seeded(LlamaForCausalLM, LlamaConfig(**{**SIZES, "tie_word_embeddings": tied, **changes}), seed)


def tiny_qwen(*, seed: int = 0, **changes: Any) -> Any:
    """A Qwen2, whose projections of query, key and value have biases that are not zero."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    model = _seeded(Qwen2ForCausalLM, Qwen2Config(**{**SIZES, **changes}), seed)
    return _with_biases(model, seed)


def tiny_moe(*, seed: int = 0, **changes: Any) -> Any:
    """A mixture of four experts in one module (Qwen2-MoE), beside a shared expert whose layers see tokens without their rows."""
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    experts = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24,
    }
    return _with_biases(_seeded(Qwen2MoeForCausalLM, Qwen2MoeConfig(**{**SIZES, **experts, **changes}), seed), seed)


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


FAMILIES: Mapping[str, Callable[[], Any]] = {
    "llama": tiny_llama,
    "gpt2": tiny_gpt2,
    "qwen": tiny_qwen,
    "moe": tiny_moe,
    "tied": lambda: tiny_llama(tied=True),
}
"""The bases that the kit tries a method on, by what it calls them."""


def _seeded(cls: Any, config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(config).eval()


def _with_biases(model: Any, seed: int) -> Any:
    """Transformers starts biases at zero, where nobody would see that one is forgotten."""
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=stream) * 0.1)
    return model
