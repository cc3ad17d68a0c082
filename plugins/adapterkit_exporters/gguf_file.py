"""A GGUF file for llama.cpp: the tensors and the metadata that its own convert_lora_to_gguf.py writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit import SelectionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from adapterkit import Export

__all__ = ["ARCHITECTURES", "FILE", "write_gguf"]

FILE = "adapter.gguf"
ARCHITECTURES: Mapping[str, str] = {
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "llama",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
"""What llama.cpp calls an architecture, by transformers' name: those whose linear layers it keeps as they are, but for what
:func:`_as_stored` says. Others are refused: an update of a weight that it splits, joins or turns would be wrong, and no error."""


def write_gguf(job: Export) -> str:
    """One file. The scale is in B, and alpha equal to the rank, so that llama.cpp multiplies by 1.

    Raises:
        SelectionError: llama.cpp has another layout of this architecture's weights, or no such weight.
    """
    import gguf

    config, factors = job.base_config(), job.factors()
    text = config.get_text_config()
    name = ARCHITECTURES.get(text.model_type)
    if name is None:
        raise SelectionError(
            f"how llama.cpp stores the weights of a {text.model_type} is not known here, but of {', '.join(ARCHITECTURES)}: export "
            "it as portable, and use llama.cpp's convert_lora_to_gguf.py"
        )
    architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    names = gguf.get_tensor_name_map(architecture, text.num_hidden_layers)
    writer = gguf.GGUFWriter(job.folder / FILE, name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(next(iter(factors.values())).rank))
    for site, update in factors.items():
        stored = _name(names, site, text)
        writer.add_tensor(f"{stored}.weight.lora_a", update.down.contiguous().numpy())
        writer.add_tensor(f"{stored}.weight.lora_b", _as_stored(update.up, site, text).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return f"llama-server -m BASE.gguf --lora {FILE}; in an Ollama Modelfile: ADAPTER ./{FILE}"


def _name(names: Any, site: str, config: Any) -> str:
    """What llama.cpp calls a layer."""
    found: str | None = names.get_name(site)
    if found is None:
        raise SelectionError(f"llama.cpp has no weight {site!r} in a {config.model_type}")
    if found == "output" and config.tie_word_embeddings:
        raise SelectionError(f"{site!r} is the embedding in this base, which llama.cpp has no update of the head for")
    return found


def _as_stored(up: Tensor, site: str, config: Any) -> Tensor:
    """B with its rows in the order in which llama.cpp has the weight's.

    In models of Llama's kind it rotates neighbouring rows of queries and keys, where transformers rotates a row of the first half
    of each head with one of the second; its converter puts them beside each other.
    """
    if config.model_type not in ("llama", "mistral"):
        return up
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(site.rpartition(".")[2])
    if heads is None:
        return up
    return up.reshape(heads, 2, -1, up.shape[1]).transpose(1, 2).reshape(up.shape)
