"""LoRA: what it changes, where it acts, and that PEFT and we mean the same by it."""

import json
import warnings

import attrs
import peft
import pytest
import torch

from adapterkit import Adapter, ArtifactError, Base, ConfigError, TargetError
from adapterkit.registry import default_registry
from adapterkit.resident import build_layers
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.support import FAMILIES, make_adapter

CLOSE = {"atol": 1e-5, "rtol": 0}
ROWS = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn", "c_proj"]}


def configured(base, **options):
    method = default_registry().method("lora")
    return default_registry().call("configure", method, config=method.config(**options), sites=base.sites)


def test_a_fresh_adapter_changes_nothing(base, ids):
    method = default_registry().method("lora")
    layers = build_layers(default_registry(), method, configured(base, rank=4, dropout=0.5), base.sites)
    bare = base.logits(ids)
    with base.runtime.override(dict(layers.items())), torch.no_grad():
        assert torch.equal(base.model(ids).logits, bare)


def test_the_update_is_alpha_over_rank_times_b_times_a(llama):
    adapter = make_adapter(llama, rank=4, alpha=6.0, target_modules=["q_proj"])
    site = next(site for site in llama.sites if site.kind == "linear")
    x = torch.randn(3, site.in_features)
    down, up = adapter.tensors[f"{site.name}.lora_A.weight"], adapter.tensors[f"{site.name}.lora_B.weight"]
    with llama.using(adapter):
        got = site.module(x)
    want = x.double() @ (site.weight.double() + 6.0 / 4 * up.double() @ down.double()).T
    torch.testing.assert_close(got.double(), want, **CLOSE)


def test_all_linear_is_every_linear_layer_but_the_head(base):
    names = configured(base).target_modules
    assert "lm_head" not in names
    assert "wte" not in names
    linears = {
        site.name.rpartition(".")[2] for site in base.sites if site.kind in ("linear", "conv1d") and not site.is_head
    }
    assert set(names) == linears


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["q_proj"], 2),
        ("q_proj", 2),
        (r"model\.layers\.1\..*_proj", 7),
        (["model.layers.0.self_attn.q_proj", "lm_head"], 2),
        (["layers.0.self_attn.q_proj"], 1),
    ],
)
def test_targets_are_names_ends_of_names_or_a_pattern(llama, targets, count):
    adapter = make_adapter(llama, rank=1, target_modules=targets)
    assert len({name.rsplit(".", 2)[0] for name in adapter.tensors}) == count


def test_a_target_that_does_not_exist_names_what_does(llama):
    with pytest.raises(
        TargetError, match=r"no target module 'q_porj'; did you mean 'q_proj'\? Available: all-linear, down_proj"
    ):
        configured(llama, target_modules=("q_porj",))


def test_a_pattern_that_takes_for_ever_is_stopped():
    base = Base(tiny_llama())
    with pytest.raises(ConfigError, match="timed out"):
        configured(base, target_modules=r"(.|..|...)+\d")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": 10**6}, "rank"),
        ({"alpha": 1e9}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"dropout": 1.0}, "dropout"),
        ({"rank_pattern": {"q_proj": 10**6}}, "rank_pattern"),
    ],
)
def test_numbers_out_of_bounds_are_refused(llama, options, said):
    with pytest.raises((ConfigError, ValueError), match=said):
        make_adapter(llama, **options)


# -- with PEFT --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 4},
        {"rank": 4, "alpha": 3.0, "use_rslora": True},
        {"rank": 4, "rank_pattern": {"{0}": 2}, "alpha_pattern": {"{1}": 5.0}},
        {"rank": 3, "target_modules": ["{0}", "lm_head"]},
    ],
    ids=["plain", "rslora", "patterns", "head"],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_what_we_save_and_says_the_same(family, options, ids, tmp_path):
    options = json.loads(json.dumps(options).replace("{0}", ROWS[family][0]).replace("{1}", ROWS[family][1]))
    base = Base(FAMILIES[family]())
    adapter = make_adapter(base, **options)
    ours = base.logits(ids, adapter=adapter)
    adapter.save(tmp_path / "adapter")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected|not found).*")
        model = peft.PeftModel.from_pretrained(FAMILIES[family](), tmp_path / "adapter").eval()
    torch.testing.assert_close(model(ids).logits, ours, **CLOSE)
    loaded = peft.load_peft_weights(str(tmp_path / "adapter"))
    result = peft.set_peft_model_state_dict(model, loaded)
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if "lora_" in key]
    assert not torch.allclose(ours, base.logits(ids), atol=1e-2), "the adapter does nothing: the test is blind"


@pytest.mark.parametrize(
    "options",
    [
        {"r": 4, "lora_alpha": 8},
        {"r": 4, "use_rslora": True},
        {"r": 4, "rank_pattern": {"{0}": 2}, "alpha_pattern": {r".*\.1\..*{0}": 3}},
        {"r": 2, "init_lora_weights": "gaussian", "lora_dropout": 0.1},
        {"r": 2, "target_modules": r".*\.0\..*({0}|{1})"},
    ],
    ids=["plain", "rslora", "patterns", "gaussian", "regex"],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_we_load_what_peft_saves_and_say_the_same(family, options, ids, tmp_path):
    options = json.loads(json.dumps(options).replace("{0}", ROWS[family][0]).replace("{1}", ROWS[family][1]))
    options.setdefault("target_modules", ROWS[family])
    model = peft.get_peft_model(FAMILIES[family](), peft.LoraConfig(task_type="CAUSAL_LM", **options)).eval()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "adapter")
    base = Base(FAMILIES[family]())
    adapter = base.load(tmp_path / "adapter")
    torch.testing.assert_close(base.logits(ids, adapter=adapter), model(ids).logits, **CLOSE)
    assert not torch.allclose(base.logits(ids), model(ids).logits, atol=1e-2), (
        "the adapter does nothing: the test is blind"
    )
    # and once more through our own files
    adapter.save(tmp_path / "again")
    again = base.load(tmp_path / "again")
    torch.testing.assert_close(base.logits(ids, adapter=again), model(ids).logits, **CLOSE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bias", "some"),
        ("init_lora_weights", "pissa"),
        ("layers_pattern", "layers"),
        ("layer_replication", [[0, 1]]),
        ("lora_bias", True),
        ("use_qalora", True),
        ("a_field_of_tomorrow", "yes"),
    ],
)
def test_a_peft_file_that_asks_for_more_than_lora_is_refused_by_name(llama, tmp_path, field, value):
    folder = make_adapter(llama, rank=2).save(tmp_path / "adapter")
    (folder / "adapterkit.json").unlink()
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(ArtifactError, match=field):
        Adapter.load(folder)


def test_an_embedding_can_be_a_target(ids):
    for family, name in ((tiny_llama, "embed_tokens"), (tiny_gpt2, "wte")):
        base = Base(family())
        adapter = make_adapter(base, rank=3, target_modules=[name])
        site = next(site for site in base.sites if site.name.endswith(name))
        update = (
            adapter.tensors[f"{site.name}.lora_embedding_B"] @ adapter.tensors[f"{site.name}.lora_embedding_A"] * 2.0
        )
        with base.using(adapter):
            got = site.module(ids)
        torch.testing.assert_close(got, torch.nn.functional.embedding(ids, site.module.weight + update.T), **CLOSE)
        mixed = base.logits(ids, adapter=[None, adapter, None, None])
        torch.testing.assert_close(mixed[1:2], base.logits(ids[1:2], adapter=adapter), **CLOSE)


def test_a_config_does_not_change(llama):
    config = configured(llama, rank=4)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.rank = 8


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (0, 5)])
def test_the_fast_update_is_the_formula_in_value_and_gradient(shape):
    from adapterkit_lora.update import formula, update

    stream = torch.Generator().manual_seed(len(shape))
    inputs = [
        torch.randn(size, generator=stream, dtype=torch.float64, requires_grad=True)
        for size in (shape, (*shape[:-1], 7), (4, 5), (7, 4))
    ]
    got, want = (function(*inputs, 1.7) for function in (update, formula))
    torch.testing.assert_close(got, want)
    weight = torch.randn(got.shape, generator=stream, dtype=torch.float64)
    gradients = [torch.autograd.grad((out * weight).sum(), inputs) for out in (got, want)]
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, reference)
    assert type(got.grad_fn).__name__ == "_UpdateBackward", "the fast path was not taken: the test is blind"


def test_the_fast_update_of_a_half_precision_base_keeps_no_copy_in_float32():
    from adapterkit_lora.update import formula, update

    x, y = (torch.randn(6, size, dtype=torch.bfloat16, requires_grad=True) for size in (64, 48))
    down, up = torch.randn(4, 64, requires_grad=True), torch.randn(48, 4, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: saved.append(one) or one, lambda one: one):
        got, want = (function(x, y, down, up, 0.5) for function in (update, formula))
    assert not [one for one in saved if one.dtype == torch.float32 and one.shape not in (down.shape, up.shape)]
    torch.testing.assert_close(got, want, rtol=2e-2, atol=5e-2)
    gradients = [torch.autograd.grad(out.float().square().sum(), (x, y, down, up)) for out in (got, want)]
    assert [one.dtype for one in gradients[0]] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    for mine, reference in zip(*gradients, strict=True):
        assert (mine - reference).norm() < 2e-2 * reference.norm()


def test_an_embedding_that_scales_its_rows_scales_the_update_as_peft_does(ids, tmp_path):
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    def gemma():
        torch.manual_seed(0)
        sizes = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "head_dim": 8,
        }
        return Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=97, num_key_value_heads=2, pad_token_id=0, **sizes)).eval()

    config = peft.LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "embed_tokens"])
    model = peft.get_peft_model(gemma(), config).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    base = Base(gemma())
    adapter = base.load(tmp_path / "adapter")
    torch.testing.assert_close(base.logits(ids, adapter=adapter), model(ids).logits, **CLOSE)


def test_a_peft_file_may_name_modules_of_other_architectures(ids, tmp_path):
    config = peft.LoraConfig(
        r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "query_key_value"], exclude_modules=["vision"]
    )
    model = peft.get_peft_model(tiny_llama(), config).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "adapter")
    base = Base(tiny_llama())
    adapter = base.load(tmp_path / "adapter")
    torch.testing.assert_close(base.logits(ids, adapter=adapter), model(ids).logits, **CLOSE)
