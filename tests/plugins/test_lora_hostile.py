"""What a stranger's folder says of the base's own weights, and of whole layers, is held to the base."""

import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapterkit import ArtifactError, Base
from tests.plugins.lora_cases import FAMILIES, peft_model, saved_by_peft
from tests.support import state_digest

COPY = "base_model.model.model.embed_tokens.base_layer.weight"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What PEFT saves of each of these, made once."""
    cases = {
        "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
        "head": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        "saved": {"modules_to_save": ["lm_head"]},
        "tokens": {"trainable_token_indices": [4, 8]},
        "dora": {"use_dora": True},
    }
    root = tmp_path_factory.mktemp("peft")
    return {name: saved_by_peft(peft_model("llama", options), root / name) for name, options in cases.items()}


@pytest.fixture
def edited(folders, tmp_path):
    """A case's folder with its tensors changed."""

    def edit(case, change):
        folder = shutil.copytree(folders[case], tmp_path / case)
        file = folder / "adapter_model.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file({name: one.clone() for name, one in tensors.items()}, file, metadata={"format": "pt"})
        return folder

    return edit


def flip_one_bit(name):
    def change(tensors):
        tensors[name].view(torch.int32)[3, 5] ^= 1

    return change


def test_a_copy_that_is_the_bases_own_weight_is_dropped(folders, edited):
    base = Base(FAMILIES["llama"]())
    with_copy, without = base.load(folders["embedding"]), base.load(edited("embedding", lambda one: one.pop(COPY)))
    assert COPY in load_file(folders["embedding"] / "adapter_model.safetensors")
    assert with_copy == without
    assert not [name for name in with_copy.tensors if "base_layer" in name]


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {}),
        ("tied", {}),
        ("gpt2", {}),
        ("llama", {"trainable_token_indices": [4, 8]}),
        ("llama", {"modules_to_save": ["lm_head"]}),
        ("tied", {"modules_to_save": ["{table}"], "ensure_weight_tying": True}),
    ],
)
def test_tables_that_peft_was_told_to_save_are_dropped(ids, tmp_path, family, options):
    model = peft_model(family, options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path / "with", save_embedding_layers=True)
        model.save_pretrained(tmp_path / "without", save_embedding_layers=False)
    base = Base(FAMILIES[family]())
    with_tables, without = (base.load(tmp_path / name) for name in ("with", "without"))
    assert with_tables == without
    torch.testing.assert_close(base.logits(ids, adapter=with_tables), model(ids).logits, atol=1e-5, rtol=0)


def test_a_table_that_is_not_the_bases_is_refused(tmp_path):
    model = peft_model("llama", {})
    model.get_input_embeddings().weight.data[5] += 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path / "theirs", save_embedding_layers=True)
    with pytest.raises(ArtifactError, match=r"embed_tokens\.weight \(one of the base's own weights\) is not what"):
        Base(FAMILIES["llama"]()).load(tmp_path / "theirs")


@pytest.mark.parametrize("case", ["embedding", "head"])
def test_a_copy_that_differs_in_one_bit_is_refused(edited, case):
    base = Base(FAMILIES["llama"]())
    before = state_digest(base.model)
    with pytest.raises(ArtifactError, match=r"embed_tokens\.base_layer\.weight \(one of the base's own weights\)"):
        base.load(edited(case, flip_one_bit(COPY)))
    assert state_digest(base.model) == before
    assert base.resident == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_copy_is_compared_in_the_coarser_of_two_precisions(edited, folders, dtype):
    def round_copy(tensors):
        tensors[COPY] = tensors[COPY].to(dtype)

    assert Base(FAMILIES["llama"]()).load(edited("embedding", round_copy))
    assert Base(FAMILIES["llama"]().to(dtype)).load(folders["embedding"])


@pytest.mark.parametrize(
    ("case", "change", "said"),
    [
        ("embedding", lambda one: one.update({COPY: one[COPY][1:]}), "one of the base's own weights"),
        (
            "embedding",
            lambda one: one.update({COPY.replace("embed_tokens", "nothing"): one[COPY]}),
            "nothing.base_layer",
        ),
        (
            "saved",
            lambda one: one.update({"base_model.model.lm_head.weight": torch.ones(96, 32)}),
            r"lm_head\.weight \(96, 32\) instead of \(97, 32\)",
        ),
        ("saved", lambda one: one.pop("base_model.model.lm_head.weight"), r"1 missing: lm_head\.weight"),
        ("saved", lambda one: one.update({"base_model.model.model.norm.weight": torch.ones(32)}), r"norm\.weight"),
        (
            "tokens",
            lambda one: one.update(
                {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(3, 32)}
            ),
            r"\(3, 32\) instead of \(2, 32\)",
        ),
        (
            "dora",
            lambda one: [one.pop(name) for name in list(one) if "magnitude" in name],
            r"missing: .*lora_magnitude_vector",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(edited, case, change, said):
    base = Base(FAMILIES["llama"]())
    before = state_digest(base.model)
    with pytest.raises(ArtifactError, match=said):
        base.load(edited(case, change))
    assert state_digest(base.model) == before
