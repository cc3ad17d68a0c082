"""Writes tiny models as llama.cpp's converter would: names, metadata and, for Llama, the order of the rows of queries and keys."""

import gguf
import numpy as np

TURNED = ("q_proj", "k_proj")


def write_base(model, file):
    config = model.config
    kind = {"mistral": "llama", "gemma3_text": "gemma3"}.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(file, kind)
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    layers = config.num_hidden_layers
    names = gguf.get_tensor_name_map(architecture, layers)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(layers)
    writer.add_head_count(config.num_attention_heads)
    if kind == "gpt2":
        writer.add_feed_forward_length(4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        writer.add_rope_dimension_count(size)
        writer.add_key_length(size)
        writer.add_value_length(size)
        rope = config.rope_parameters.get("full_attention", config.rope_parameters)
        writer.add_rope_freq_base(rope["rope_theta"])
        if kind in ("gemma2", "gemma3"):
            writer.add_sliding_window(config.sliding_window)
        if kind == "gemma2":
            writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
            writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_tokenizer_model("no_vocab")
    for name, tensor in model.state_dict().items():
        site, _, parameter = name.rpartition(".")
        stored = names.get_name(site)
        if stored is None or (name == "lm_head.weight" and config.tie_word_embeddings):
            continue
        values = tensor.float().numpy()
        if kind == "gpt2" and ".h." in name and values.ndim == 2:
            values = values.T
        if kind.startswith("gemma") and site.endswith("norm"):
            values = values + 1  # where transformers adds it when it runs
        if kind == "llama" and site.endswith(TURNED):
            heads = config.num_attention_heads if site.endswith("q_proj") else config.num_key_value_heads
            values = values[_neighbours(len(values), heads)]
        writer.add_tensor(f"{stored}.{parameter}", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _neighbours(rows, heads):
    """Which row of transformers' stands where: of each head, rows i and i + half beside each other."""
    size = rows // heads
    return [head * size + i + half * (size // 2) for head in range(heads) for i in range(size // 2) for half in (0, 1)]
