import json
import weakref

import pytest
import torch

import adapterkit
from adapterkit import Adapter, ArtifactError, Base, SelectionError, TargetError, extract
from adapterkit.checkpoint import Checkpoint
from adapterkit.errors import BaseMismatchError
from adapterkit.testing import tiny_gpt2, tiny_llama, tiny_moe, tiny_qwen
from tests.support import make_adapter

IDS = torch.arange(1, 25).view(2, 12)


def bases(*models):
    return [Base(model) for model in models]


def far(one, other):
    return (one - other).abs().max().item()


def loaded(folder, like):
    return Base(type(like).from_pretrained(folder))


# -- two models -------------------------------------------------------------------------------------------------------

FAMILIES = {
    "llama": (tiny_llama, ("q_proj.weight", "down_proj.weight")),
    "tied": (lambda: tiny_llama(tied=True), ("q_proj.weight", "down_proj.weight")),
    "gpt2": (tiny_gpt2, ("c_attn.weight", "c_fc.weight")),
    "qwen": (tiny_qwen, ("k_proj.weight", "o_proj.weight")),
    "moe": (tiny_moe, ("o_proj.weight", "shared_expert.up_proj.weight")),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_has_the_rank_comes_out_as_it_was(family, saved, tuned):
    make, ends = FAMILIES[family]
    base, folder = saved(make(), "base"), saved(tuned(make(), *ends, rank=3), "tuned")
    adapter = extract(base, folder, rank=3)
    shared, other = loaded(base, make()), loaded(folder, make())
    assert far(shared.logits(IDS, adapter=adapter), other.logits(IDS)) < 1e-5
    assert far(shared.logits(IDS), other.logits(IDS)) > 1e-2
    touched = {site.name for site in shared.sites if f"{site.name}.weight".endswith(ends)}
    assert set(adapter.manifest.lineage["sites"]) == touched
    assert {name.rsplit(".", 2)[0] for name in adapter.tensors} == touched


@pytest.mark.parametrize("family", ["llama", "tied", "gpt2", "qwen"])
def test_the_base_is_remembered_as_when_it_is_loaded(family, saved, tuned):
    make, ends = FAMILIES[family]
    base, folder = saved(make(), "base"), saved(tuned(make(), *ends), "tuned")
    adapter = extract(base, folder, rank=1)
    assert adapter.manifest.base.fingerprint == loaded(base, make()).reference.fingerprint
    with pytest.raises(BaseMismatchError):
        Base(make(seed=1) if family != "tied" else tiny_llama(tied=True, seed=1)).load(adapter)


def test_the_base_of_a_mixture_is_remembered_by_what_is_stored_as_it_is_in_the_model(saved, tuned):
    base = saved(tiny_moe(), "base")
    adapter = extract(base, saved(tuned(tiny_moe(), "o_proj.weight"), "tuned"), rank=1)
    kept, _, rest = loaded(base, tiny_moe()).reference.fingerprint.partition(".")
    assert adapter.manifest.base.fingerprint == f"{kept}.quantized" != f"{kept}.{rest}"
    with pytest.raises(BaseMismatchError):
        Base(tiny_moe(seed=1)).load(adapter)
    with pytest.raises(BaseMismatchError):
        extract(saved(tiny_moe(seed=1), "other"), adapter)


def test_an_error_gives_each_layer_the_rank_that_it_needs(saved, tuned):
    base = saved(tiny_llama(), "base")
    model = tuned(tiny_llama(), "q_proj.weight", rank=2)
    folder = saved(tuned(model, "up_proj.weight", rank=5, seed=6), "tuned")
    adapter = extract(base, folder, max_error=1e-3)
    assert {name.rpartition(".")[2]: one["rank"] for name, one in adapter.manifest.lineage["sites"].items()} == {
        "q_proj": 2,
        "up_proj": 5,
    }
    assert adapter.manifest.lineage["error"] <= 1e-3
    assert far(loaded(base, model).logits(IDS, adapter=adapter), Base(model).logits(IDS)) < 1e-3


def test_a_lower_rank_leaves_the_error_that_it_says(saved, tuned):
    base, model = saved(tiny_llama(), "base"), tuned(tiny_llama(), "v_proj.weight")
    adapter = extract(base, saved(model, "tuned"), rank=4)
    for name, said in adapter.manifest.lineage["sites"].items():
        delta = model.get_parameter(f"{name}.weight") - tiny_llama().get_parameter(f"{name}.weight")
        s = torch.linalg.svdvals(delta.detach())
        assert said["error"] == pytest.approx(float(s[4:].norm() / s.norm()), rel=1e-3)


def test_files_in_pieces_and_in_half_precision_are_read_alike(saved, tuned):
    base, model = saved(tiny_llama(), "base"), tuned(tiny_llama(), "q_proj.weight", rank=2, size=0.5)
    whole = extract(base, saved(model, "whole"), rank=2)
    in_pieces = saved(model, "pieces", max_shard_size="20KB")
    assert (in_pieces / "model.safetensors.index.json").is_file()
    assert extract(base, in_pieces, rank=2) == whole
    half = extract(base, saved(model.bfloat16(), "half"), rank=2)  # what rounding changed elsewhere was not tuned
    assert set(half.manifest.lineage["sites"]) == set(whole.manifest.lineage["sites"])


def test_a_model_that_was_saved_without_its_head_is_read_too(saved, tuned):
    base = saved(tiny_gpt2(), "base")
    inner = tuned(
        tiny_gpt2(), "c_fc.weight", rank=2
    ).transformer  # as the first GPT-2s lie on the Hub: h.0.attn, with no prefix
    adapter = extract(base, saved(inner, "tuned"), rank=2)
    assert all(name.startswith("transformer.h.") for name in adapter.manifest.lineage["sites"])


def test_it_is_deterministic_and_saves(pair, tmp_path):
    one, same = extract(*pair, rank=2), extract(*pair, rank=2)
    assert one == same
    one.save(tmp_path / "adapter")
    again = Adapter.load(tmp_path / "adapter")
    assert again == one
    said = again.manifest.lineage
    assert (said["kind"], said["rank"], said["seed"], said["lost"]) == ("extract", 2, 0, {})
    assert said["base"]["fingerprint"] != said["tuned"]["fingerprint"]


def test_targets_are_chosen_as_for_training(pair):
    adapter = extract(*pair, rank=2, target_modules=["q_proj"], ignore_rest=True)
    assert {name.rpartition(".")[2] for name in adapter.manifest.lineage["sites"]} == {"q_proj"}
    assert [name.split(".")[-2] for name in adapter.manifest.lineage["lost"]] == ["down_proj"] * 2
    with pytest.raises(TargetError, match="did you mean 'q_proj'"):
        extract(*pair, target_modules=["q_prj"])


def test_few_weights_are_in_memory_at_once(saved, tuned, monkeypatch):
    base = saved(tiny_llama(num_hidden_layers=12), "base")
    folder = saved(tuned(tiny_llama(num_hidden_layers=12), "proj.weight"), "tuned")
    whole = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    alive, most = [0], [0]
    read = Checkpoint.read

    def watched(self, name):
        tensor = read(self, name)
        size = tensor.nbytes
        alive[0] += size
        most[0] = max(most[0], alive[0])
        weakref.finalize(tensor, lambda: alive.__setitem__(0, alive[0] - size))
        return tensor

    monkeypatch.setattr(Checkpoint, "read", watched)
    extract(base, folder, rank=2)
    assert 0 < most[0] < whole / 5


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen"])
def test_peft_reads_what_was_extracted(family, saved, tuned, tmp_path):
    peft = pytest.importorskip("peft")
    make, ends = FAMILIES[family]
    base, model = saved(make(), "base"), tuned(make(), *ends, rank=3)
    extract(base, saved(model, "tuned"), max_error=0.3).save(tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(make(), tmp_path / "adapter")(IDS).logits
    adapter = Adapter.load(tmp_path / "adapter")
    assert far(theirs, loaded(base, model).logits(IDS, adapter=adapter)) < 1e-5
    assert set(adapter.config.target_modules) == {end.removesuffix(".weight") for end in ends}
    assert adapter.config.fan_in_fan_out == (family == "gpt2")


# -- what an adapter cannot hold --------------------------------------------------------------------------------------


def test_what_is_no_target_is_refused_by_name_and_size(saved, tuned):
    base = saved(tiny_llama(), "base")
    model = tuned(tiny_llama(), "q_proj.weight", "model.norm.weight", "lm_head.weight", size=0.1)
    folder = saved(model, "tuned")
    with pytest.raises(SelectionError) as refused:
        extract(base, folder, rank=2)
    lines = str(refused.value).splitlines()
    assert lines[1].startswith("  - model.norm.weight: 32 numbers, changed by ")
    assert lines[2].startswith("  - lm_head.weight: 3,104 numbers, changed by ")
    assert len(lines) == 4
    adapter = extract(base, folder, rank=2, ignore_rest=True)
    assert list(adapter.manifest.lineage["lost"]) == ["model.norm.weight", "lm_head.weight"]
    assert adapter.manifest.lineage["lost"]["model.norm.weight"]["change"] == pytest.approx(0.1, rel=0.3)


def test_biases_are_refused(saved, tuned):
    base = saved(tiny_qwen(), "base")
    with pytest.raises(SelectionError, match=r"layers.0.self_attn.q_proj.bias: 32 numbers"):
        extract(base, saved(tuned(tiny_qwen(), "q_proj.bias"), "tuned"))


def test_experts_that_the_files_hold_one_by_one_are_refused(saved, tuned):
    base = saved(tiny_moe(), "base")
    with pytest.raises(SelectionError, match=r"layers.0.mlp.experts.0.down_proj.weight: 768 numbers"):
        extract(base, saved(tuned(tiny_moe(), "experts.down_proj"), "tuned"))


def test_embeddings_and_heads_are_held_where_they_are_targets(saved, tuned):
    base = saved(tiny_llama(), "base")
    model = tuned(tiny_llama(), "embed_tokens.weight", "lm_head.weight", rank=2)
    adapter = extract(base, saved(model, "tuned"), rank=2, target_modules=["embed_tokens", "lm_head"])
    assert far(loaded(base, model).logits(IDS, adapter=adapter), Base(model).logits(IDS)) < 1e-5


def test_a_weight_at_two_places_is_held_at_both_or_refused(saved, tuned):
    base = saved(tiny_llama(tied=True), "base")
    model = tuned(tiny_llama(tied=True), "embed_tokens.weight", rank=2)
    folder = saved(model, "tuned")
    with pytest.raises(SelectionError) as refused:
        extract(base, folder)
    assert "lm_head" not in str(refused.value)  # it is the embedding, and named once
    with pytest.raises(SelectionError, match=r"lm_head.weight: 3,104 numbers"):
        extract(base, folder, target_modules=["embed_tokens"])
    adapter = extract(base, folder, rank=2, target_modules=["embed_tokens", "lm_head"])
    assert far(loaded(base, model).logits(IDS, adapter=adapter), Base(model).logits(IDS)) < 1e-5


def test_another_setting_is_refused_by_name(pair):
    base, folder = pair
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3, "use_cache": False}))
    with pytest.raises(SelectionError) as refused:
        extract(base, folder)
    assert "config.json: rms_norm_eps: 1e-06, and 0.001 in what was tuned" in str(refused.value)
    assert "use_cache" not in str(refused.value)


# -- an adapter -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "tied"])
def test_a_full_adapter_becomes_what_it_does(family, saved):
    make, _ = FAMILIES[family]
    folder, base = saved(make(), "base"), Base(make())
    blocks = [site.name for site in base.sites if site.kind in ("linear", "conv1d") and not site.is_head]
    full = make_adapter(base, method="full", scale=0.02, target_modules=blocks)
    adapter = extract(folder, full, rank=32, ignore_rest=family == "gpt2")
    if family == "gpt2":
        assert all(name.endswith(".bias") for name in adapter.manifest.lineage["lost"])
        full = Adapter(
            "full", full.config, {k: v * 0 if k.endswith("bias") else v for k, v in full.tensors.items()}, full.manifest
        )
    assert adapter.manifest.lineage["tuned"]["method"] == "full"
    assert far(base.logits(IDS, adapter=adapter), base.logits(IDS, adapter=full)) < 1e-4
    assert far(base.logits(IDS), base.logits(IDS, adapter=full)) > 1e-2


def test_a_full_adapter_may_lie_in_a_folder_and_its_norms_are_refused(saved, tmp_path):
    folder, base = saved(tiny_llama(), "base"), Base(tiny_llama())
    full = make_adapter(base, method="full", scale=0.02, target_modules=["layers.0"])
    full.save(tmp_path / "full")
    with pytest.raises(SelectionError, match=r"layers.0.input_layernorm.weight: 32 numbers"):
        extract(folder, tmp_path / "full")
    adapter = extract(folder, tmp_path / "full", rank=2, ignore_rest=True)
    assert adapter.manifest.lineage["tuned"]["digest"] == full.digest


def test_an_adapter_of_another_base_is_refused(saved):
    folder = saved(tiny_llama(), "base")
    with pytest.raises(BaseMismatchError):
        extract(folder, make_adapter(Base(tiny_llama(seed=1)), method="full"))


def test_an_adapter_that_does_not_fit_is_refused_though_it_names_no_base(saved):
    folder = saved(tiny_llama(), "base")
    other = make_adapter(Base(tiny_llama(hidden_size=64)), method="full", target_modules=["q_proj"])
    with pytest.raises(ArtifactError, match="does not fit this base"):
        extract(folder, Adapter("full", other.config, other.tensors))


def test_a_lora_is_brought_to_a_lower_rank(saved):
    folder, base = saved(tiny_llama(), "base"), Base(tiny_llama())
    adapter = extract(folder, make_adapter(base, rank=8), rank=2)
    assert {one["rank"] for one in adapter.manifest.lineage["sites"].values()} == {2}


CURE = r"depends on the base's weights: merge it alone with a rank and base=Base\(folder\), or bake it"


@pytest.mark.parametrize(
    ("method", "options", "why"),
    [
        ("prompt_tuning", {"tokens": 3}, "Tokens"),
        ("lora", {"use_dora": True}, f"the lora adapter .* {CURE}"),
        ("peft:oft", {}, f"the peft:oft adapter .* {CURE}"),
        ("peft:ia3", {}, f"the peft:ia3 adapter has a Scale at .* {CURE}"),
    ],
)
def test_what_is_no_sum_with_weights_is_refused(method, options, why, saved):
    folder = saved(tiny_llama(), "base")
    with pytest.raises(SelectionError, match=why):
        extract(folder, make_adapter(Base(tiny_llama()), method=method, **options))


@pytest.mark.parametrize(("method", "options"), [("lora", {"use_dora": True}), ("peft:oft", {})])
def test_the_cure_of_those_that_need_the_weights_works(method, options, saved):
    base = Base(tiny_llama())
    adapter = make_adapter(base, method=method, target_modules=["k_proj"], **options)
    low = adapterkit.merge([adapter], rank=16, base=base)
    assert far(base.logits(IDS, adapter=low), base.logits(IDS, adapter=adapter)) < 1e-4
    assert extract(saved(tiny_llama(), "base"), low, rank=2).method == low.method


def test_no_method_for_it_is_an_error(pair):
    registry = adapterkit.Registry(found=[])
    with pytest.raises(SelectionError, match="no method here has low-rank adapters"):
        extract(*pair, registry=registry)


# -- the default rank -------------------------------------------------------------------------------------------------


def test_the_default_rank_says_what_it_cuts_off_and_what_keeps_more(saved, tuned, caplog):
    base, folder = saved(tiny_llama(), "base"), saved(tuned(tiny_llama(), "q_proj.weight"), "tuned")
    lineage = extract(base, folder).manifest.lineage
    assert lineage["rank"] == 16
    said = f"rank 16, the default, cuts off {lineage['error']:.1%} of the difference: a higher rank= keeps more"
    assert caplog.messages == [said]


@pytest.mark.parametrize("options", [{"rank": 1}, {"max_error": 0.9}])
def test_what_was_asked_for_is_not_explained(options, pair, caplog):
    extract(*pair, **options)
    assert caplog.messages == []


def test_a_default_rank_that_suffices_is_not_explained(pair, caplog):
    extract(*pair)
    assert caplog.messages == []
