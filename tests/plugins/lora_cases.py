"""The options of LoRA that the tests go through, for each family, and what PEFT makes of them."""

import json
import warnings

import peft
import torch

from adapterkit.testing import tiny_gpt2, tiny_llama

FAMILIES = {
    "llama": tiny_llama,
    "tied": lambda: tiny_llama(tied=True),
    "gpt2": tiny_gpt2,
    "biased": lambda: tiny_llama(attention_bias=True, mlp_bias=True),
}
NAMES = {
    "llama": {"in": "q_proj", "out": "down_proj", "table": "embed_tokens", "norm": "model.norm", "block": "layers"},
    "gpt2": {"in": "c_attn", "out": "c_proj", "table": "wte", "norm": "ln_f", "block": "h"},
}
OPTIONS = {
    "plain": {},
    "dora": {"use_dora": True},
    "dora and rslora": {"use_dora": True, "use_rslora": True, "rank_pattern": {"{out}": 2}},
    "dora on the embedding and the head": {"use_dora": True, "target_modules": ["{in}", "{table}", "lm_head"]},
    "one layer": {"layers_to_transform": 1},
    "layers of a list": {"layers_to_transform": [0], "layers_pattern": "{block}"},
    "excluded by a pattern": {"target_modules": ["{in}", "{out}"], "exclude_modules": r".*\.0\..*{in}"},
    "all biases": {"bias": "all"},
    "biases of the targets": {"bias": "lora_only"},
    "dora and biases": {"use_dora": True, "bias": "all"},
    "the embedding": {"target_modules": ["{in}", "{table}"]},
    "the head": {"target_modules": ["{in}", "lm_head"]},
    "the embedding and the head": {"target_modules": ["{table}", "lm_head"]},
    "the head as a whole": {"modules_to_save": ["lm_head"]},
    "the embedding and the head as wholes": {"modules_to_save": ["{table}", "lm_head"]},
    "a norm as a whole": {"modules_to_save": ["{norm}"]},
    "a block as a whole": {"target_modules": ["{in}"], "modules_to_save": ["mlp"]},
    "tokens": {"trainable_token_indices": [5, 3, 90]},
    "tokens of a table": {"trainable_token_indices": {"{table}": [7, 2]}},
}
TYING = {
    "the embedding": {"target_modules": ["{in}", "{table}"]},
    "the head": {"target_modules": ["{in}", "lm_head"]},
    "both": {"target_modules": ["{table}", "lm_head"]},
    "the embedding as a whole": {"modules_to_save": ["{table}"]},
    "the head as a whole": {"modules_to_save": ["lm_head"]},
    "tokens": {"trainable_token_indices": [5, 3, 90]},
}


def options_for(family, options):
    """The options with the family's own names in them, and targets where there are none."""
    names = NAMES["gpt2" if family == "gpt2" else "llama"]
    text = json.dumps({"target_modules": ["{in}", "{out}"], **options})
    for part, name in names.items():
        text = text.replace("{" + part + "}", name)
    return json.loads(text)


def peft_model(family, options, *, rank=4, noise=0.2):
    """A model with PEFT's adapter, everything that is trained moved away from where it started."""
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=6, **options_for(family, options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return moved(peft.get_peft_model(FAMILIES[family](), config).eval(), noise)


def moved(model, noise=0.2):
    """The model with everything that is trained away from where it started."""
    stream, seen = torch.Generator().manual_seed(0), set()
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.data_ptr() not in seen:
            parameter.data.add_(noise * torch.randn(parameter.shape, generator=stream))
            seen.add(parameter.data_ptr())
    return model


def saved_by_peft(model, folder):
    """The folder that PEFT writes of a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    return folder


def loaded_by_peft(family, folder):
    """A model with the adapter in a folder, as PEFT loads it; every key must find its place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(FAMILIES[family](), folder).eval()
        found = peft.set_peft_model_state_dict(model, peft.load_peft_weights(str(folder)))
    assert not found.unexpected_keys
    parts = ("lora_", "modules_to_save", "trainable_tokens_delta")
    missing = [key for key in found.missing_keys if any(part in key for part in parts)]
    assert not [key for key in missing if "lm_head.token_adapter" not in key]  # a second name of the embedding's own
    return model
