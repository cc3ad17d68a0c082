"""Files of strangers, looked at without a base: what is not exactly the method's is refused before anything is merged."""

import attrs
import pytest
import torch

from adapterkit import Adapter, ArtifactError, Base
from adapterkit.registry import default_registry
from adapterkit.resident import effects_of
from adapterkit.testing import tiny_llama
from tests.support import make_adapter

REGISTRY = default_registry()
LLAMA = Base(tiny_llama())
SITE = "model.layers.0.self_attn.q_proj"
LORA = {"rank": 2, "target_modules": ("q_proj", "embed_tokens")}


def tampered(adapter, changes):
    """The same with other tensors; None takes one away."""
    tensors = {name: one for name, one in {**adapter.tensors, **changes}.items() if one is not None}
    return attrs.evolve(adapter, tensors=tensors)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({f"{SITE}.lora_B.weight": None}, "lora_B.weight' is missing"),
        ({f"{SITE}.lora_A.weight": None}, "lora_A.weight' is missing"),
        ({"model.embed_tokens.lora_embedding_B": None}, "lora_embedding_B' is missing"),
        ({f"{SITE}.lora_A.weight": torch.ones(3, 32), f"{SITE}.lora_B.weight": torch.ones(32, 3)}, "not of rank 2"),
        ({f"{SITE}.lora_B.weight": torch.ones(32, 3)}, "not of rank 2"),
        ({f"{SITE}.lora_A.weight": torch.ones(64)}, "not of rank 2"),
        ({f"{SITE}.weight": torch.ones(32, 32)}, "is no tensor of LoRA"),
        ({f"{SITE}.base_layer.weight": torch.ones(32, 32)}, "is no tensor of LoRA"),
        ({f"{SITE}.lora_magnitude_vector": torch.ones(32)}, "is no tensor of LoRA"),
        (
            {f"{SITE}.lora_embedding_A": torch.ones(2, 32), f"{SITE}.lora_embedding_B": torch.ones(32, 2)},
            "is trained in two ways",
        ),
        (
            {"lm_head.lora_A.weight": torch.ones(2, 32), "lm_head.lora_B.weight": torch.ones(97, 2)},
            "'lm_head' is none of its target modules",
        ),
        (
            {"lm_head.token_adapter.trainable_tokens_delta": torch.ones(1, 32)},
            r"rows at 'lm_head' are \(1, 32\), for 0",
        ),
    ],
)
def test_what_is_no_lora_is_refused(changes, said):
    adapter = tampered(make_adapter(LLAMA, **LORA), changes)
    with pytest.raises(ArtifactError, match=f"does not hold what its method writes: .*{said}"):
        effects_of(REGISTRY, adapter)
    with pytest.raises(ArtifactError, match="does not fit this base"):
        LLAMA.load(adapter)


@pytest.mark.parametrize(
    ("method", "options", "changes", "said"),
    [
        ("full", {}, {f"{SITE}.weight": torch.ones(32, 32)}, "is no difference of a parameter"),
        ("full", {}, {"delta_weight": torch.ones(32, 32)}, "is no difference of a parameter"),
        ("full", {}, {"model.embed_tokens.embedding_delta": torch.ones(97)}, "is no difference of a parameter"),
        ("prompt_tuning", {}, {"input.prompt_embeddings": torch.ones(7, 32)}, r"instead of a table \(20, 32\)"),
        ("prompt_tuning", {}, {f"{SITE}.lora_A.weight": torch.ones(7, 32)}, "instead of a table"),
        ("prefix_tuning", {}, {"input.prompt_embeddings": torch.ones(20, 32)}, r"instead of a table \(20, 64\)"),
        ("peft:ia3", {}, {"model.layers.0.mlp.down_proj.ia3_l": torch.ones(48, 1)}, "instead of"),
        ("peft:ia3", {}, {"model.layers.0.mlp.down_proj.ia3_l": torch.ones(48)}, r"is \(48,\)"),
        ("peft:ia3", {}, {f"{SITE}.other": torch.ones(48)}, "instead of None"),
        ("peft:loha", {}, {f"{SITE}.hada_w1_a": None}, "does not hold"),
        ("peft:loha", {}, {f"{SITE}.hada_w2_a": torch.ones(31, 8)}, "hada_w2_a is .* instead of"),
        ("peft:lora", {}, {f"{SITE}.lora_B.weight": torch.ones(32, 3)}, "lora_B.weight is .* instead of"),
    ],
)
def test_what_is_not_of_the_method_is_refused(method, options, changes, said):
    adapter = tampered(make_adapter(LLAMA, method=method, **options), changes)
    with pytest.raises(ArtifactError, match=said):
        effects_of(REGISTRY, adapter)


def test_a_prompt_of_peft_has_its_configurations_size():
    method = REGISTRY.method("peft:prompt_tuning")
    config = method.config(num_virtual_tokens=4, token_dim=32, inference_mode=True)
    whole = Adapter(method.name, config, {"input.prompt_embeddings": torch.ones(4, 32)})
    assert effects_of(REGISTRY, whole)
    with pytest.raises(ArtifactError, match="instead of"):
        effects_of(REGISTRY, tampered(whole, {"input.prompt_embeddings": torch.ones(3, 32)}))


def test_a_pattern_of_a_stranger_cannot_take_long():
    adapter = make_adapter(LLAMA, rank=2, target_modules=("q_proj",))
    slow = attrs.evolve(adapter, config=attrs.evolve(adapter.config, target_modules="(.*a)*(.*a)*(.*a)*(.*a)*$x"))
    with pytest.raises(ValueError, match=r"takes too long|target module"):
        effects_of(REGISTRY, slow)
