import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from adapterkit import (
    Adapter,
    ArtifactError,
    Base,
    Blend,
    ConfigError,
    Exporter,
    Registry,
    SelectionError,
    Stack,
    TargetError,
    UnknownNameError,
    export,
    hookimpl,
)
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.support import make_adapter

IDS = torch.arange(1, 25).view(2, 12)
UNEVEN = {"rank": 6, "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"k_proj": 5.0}, "use_rslora": True}


@pytest.fixture(scope="module")
def base():
    return Base(tiny_llama())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The base on disk: its configuration alone, since no more is read."""
    path = tmp_path_factory.mktemp("base")
    tiny_llama().config.save_pretrained(path)
    return path


def far(one, other):
    return (one - other).abs().max().item()


# -- portable ---------------------------------------------------------------------------------------------------------


def test_patterns_and_rslora_are_folded_away_and_nothing_is_lost(base, tmp_path):
    adapter = make_adapter(base, **UNEVEN)
    written = adapter.export(tmp_path / "out")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(written.files)
    fields = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (fields["r"], fields["lora_alpha"]) == (6, 6)
    assert type(fields["lora_alpha"]) is int
    assert isinstance(fields["target_modules"], list)
    assert not any(
        fields[name] for name in ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "modules_to_save")
    )
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {min(tensor.shape) for tensor in tensors.values()} == {6}
    plain = Adapter.load(tmp_path / "out")
    assert far(base.logits(IDS, adapter=plain), base.logits(IDS, adapter=adapter)) < 1e-5
    assert plain.manifest.lineage["parents"][0]["digest"] == adapter.digest


def test_the_factors_are_the_definition(base, tmp_path):
    adapter = make_adapter(base, **UNEVEN)
    adapter.export(tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    for site, rank, alpha in (("q_proj", 3, 12.0), ("k_proj", 6, 5.0), ("v_proj", 6, 12.0)):
        name = f"model.layers.1.self_attn.{site}"
        down, up = (adapter.tensors[f"{name}.lora_{one}.weight"].double() for one in "AB")
        plain = [tensors[f"base_model.model.{name}.lora_{one}.weight"].double() for one in "AB"]
        torch.testing.assert_close(plain[1] @ plain[0], alpha / math.sqrt(rank) * up @ down, atol=1e-5, rtol=1e-5)


def test_peft_reads_it_and_answers_as_we_do(base, tmp_path):
    peft = pytest.importorskip("peft")
    adapter = make_adapter(base, **UNEVEN)
    adapter.export(tmp_path / "out")
    theirs = peft.PeftModel.from_pretrained(tiny_llama(), tmp_path / "out")
    assert far(theirs(IDS).logits, base.logits(IDS, adapter=adapter)) < 1e-5


@pytest.mark.parametrize("make", [Stack, lambda a, b: Blend({a: 0.7, b: -0.3})])
def test_several_adapters_become_one(make, base, tmp_path):
    acting = make(make_adapter(base, **UNEVEN), make_adapter(base, rank=2, seed=1, target_modules=["q_proj"]))
    export(acting, tmp_path / "out")
    plain = Adapter.load(tmp_path / "out")
    assert far(base.logits(IDS, adapter=plain), base.logits(IDS, adapter=acting)) < 1e-5
    parents = [(one["digest"], one["weight"]) for one in plain.manifest.lineage["parents"]]
    assert parents == [(one.digest, weight) for one, weight in acting.parts]


def test_names_are_short_where_the_base_says_that_they_suffice(base, folder, tmp_path):
    adapter = make_adapter(base, target_modules=["q_proj", "layers.0.self_attn.k_proj"])
    assert export(adapter, tmp_path / "out", base=folder)
    fields = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert fields["target_modules"] == ["model.layers.0.self_attn.k_proj", "q_proj"]
    with pytest.raises(TargetError, match=r"no target module 'transformer.h.0"):
        export(make_adapter(Base(tiny_gpt2())), tmp_path / "other", base=folder)


def test_the_same_adapter_gives_the_same_bytes(base, tmp_path):
    adapter = make_adapter(base, **UNEVEN)
    for name in ("one", "two"):
        adapter.export(tmp_path / name)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two


# -- what plain LoRA cannot hold --------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["portable", "vllm", "mlx"])
@pytest.mark.parametrize(
    ("method", "options", "why"),
    [
        ("lora", {"use_dora": True}, "depends on the base's weights"),
        ("lora", {"bias": "all"}, "depends on the base's weights"),
        ("lora", {"target_modules": ["embed_tokens"]}, "changes the embedding 'model.embed_tokens'"),
        ("lora", {"trainable_token_indices": [3]}, "has a Rows at 'model.embed_tokens'"),
        (
            "prompt_tuning",
            {"tokens": 3},
            r"the prompt_tuning adapter [0-9a-f]{12} is a soft prompt.*adapterkit and PEFT read it",
        ),
        ("prefix_tuning", {"tokens": 3}, "the prefix_tuning adapter [0-9a-f]{12} is a soft prompt"),
        ("p_tuning", {"tokens": 3}, "the p_tuning adapter [0-9a-f]{12} is a soft prompt"),
        ("full", {"target_modules": ["q_proj"]}, "has a Dense at .*bring it to a low rank with extract"),
        ("peft:ia3", {}, "the peft:ia3 adapter .* has a Scale at"),
    ],
)
def test_what_it_cannot_hold_is_refused_by_name(to, method, options, why, base, folder, tmp_path):
    adapter = make_adapter(base, method=method, **options)
    with pytest.raises(SelectionError, match=why):
        export(adapter, tmp_path / "out", to, base=folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "options", "why"),
    [
        ("prompt_tuning", {"tokens": 3}, "is a soft prompt"),
        ("lora", {"use_dora": True}, "depends on the base's weights, which plain LoRA cannot hold; bake"),
        ("peft:ia3", {}, "has a Scale at"),
    ],
)
def test_of_several_the_one_that_no_lora_holds_is_named(method, options, why, base, tmp_path):
    other = make_adapter(base, method=method, **options)
    with pytest.raises(SelectionError, match=f"the {method} adapter {other.digest[:12]} .*{why}") as refused:
        export(Stack(make_adapter(base), other), tmp_path / "out")
    assert "base=" not in str(refused.value)  # only its configuration would be read
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_gives_way_to_an_adapter_alone(base, folder, tmp_path):
    made = make_adapter(base, seed=1).save(tmp_path / "out")
    with pytest.raises(SelectionError, match="holds an adapter, which 'mlx' does not replace"):
        make_adapter(base, rank=4).export(made, "mlx", base=folder)
    assert Adapter.load(made) == make_adapter(base, seed=1)
    make_adapter(base, rank=4).export(made)
    assert Adapter.load(made).config.rank == 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("output", [".", "inside", ".."])
def test_the_base_is_not_written_over(output, base, tmp_path):
    tiny_llama().config.save_pretrained(tmp_path / "around" / "base")
    before = (tmp_path / "around" / "base" / "config.json").read_bytes()
    with pytest.raises(SelectionError, match=r"the input .*base': give another folder"):
        make_adapter(base).export(tmp_path / "around" / "base" / output, base=tmp_path / "around" / "base")
    assert (tmp_path / "around" / "base" / "config.json").read_bytes() == before


def test_a_folder_that_holds_something_is_left_alone(base, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="something that is no adapter"):
        make_adapter(base).export(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_unknown_form_is_refused(base, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'portable'"):
        make_adapter(base).export(tmp_path / "out", "portabel")


@pytest.mark.parametrize(
    ("word", "form"), [("ggml", "gguf"), ("Ollama", "gguf"), ("llama.cpp", "gguf"), ("PEFT", "portable")]
)
def test_a_form_is_found_by_who_reads_it(word, form, base, tmp_path):
    with pytest.raises(UnknownNameError, match=f"no exporter '{word}': did you mean '{form}', "):
        make_adapter(base).export(tmp_path / "out", word)


def test_a_word_of_several_forms_leads_to_none_of_them(base, tmp_path):
    with pytest.raises(UnknownNameError, match="Available: gguf, mlx, portable, vllm"):
        make_adapter(base).export(tmp_path / "out", "lora")


# -- vLLM -------------------------------------------------------------------------------------------------------------


def test_vllm_is_told_a_rank_that_it_takes(base, tmp_path):
    written = make_adapter(base, rank=12).export(tmp_path / "out", "vllm")
    assert "--max-lora-rank 16 " in written.use
    from adapterkit.artifact.engines import judge

    fields = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert judge(fields, load_file(tmp_path / "out" / "adapter_model.safetensors"))["vllm"]["fits"] == "yes"


def test_what_vllm_would_refuse_is_refused_before(base, tmp_path):
    with pytest.raises(SelectionError, match="rank is 513, and vLLM's limit is 512"):
        make_adapter(base, rank=513, target_modules=["q_proj"]).export(tmp_path / "out", "vllm")
    with pytest.raises(SelectionError, match="changes 'lm_head'"):
        make_adapter(base, target_modules=["lm_head"]).export(tmp_path / "out", "vllm")


# -- MLX --------------------------------------------------------------------------------------------------------------


def test_mlx_gets_both_factors_transposed(base, folder, tmp_path):
    adapter = make_adapter(base, rank=4, alpha=8.0, target_modules=["down_proj"], layers_to_transform=[1])
    adapter.export(tmp_path / "out", "mlx", base=folder)
    tensors = load_file(tmp_path / "out" / "adapters.safetensors")
    name = "model.layers.1.mlp.down_proj"
    assert set(tensors) == {f"{name}.lora_a", f"{name}.lora_b"}
    assert tensors[f"{name}.lora_a"].shape == (48, 4)
    assert torch.equal(tensors[f"{name}.lora_a"], adapter.tensors[f"{name}.lora_A.weight"].T)
    assert torch.equal(tensors[f"{name}.lora_b"], 2 * adapter.tensors[f"{name}.lora_B.weight"].T)
    said = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert said == {
        "fine_tune_type": "lora",
        "num_layers": 1,
        "lora_parameters": {"rank": 4, "scale": 1.0, "dropout": 0.0, "keys": ["mlp.down_proj"]},
    }
    with safe_open(tmp_path / "out" / "adapters.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "mlx"}


def test_mlx_needs_a_base_whose_names_it_shares(base, tmp_path):
    with pytest.raises(ConfigError, match="base: this form needs the folder of the base"):
        make_adapter(base).export(tmp_path / "out", "mlx")
    with pytest.raises(SelectionError, match=r"changes 'transformer.h.0.attn.c_attn'"):
        make_adapter(Base(tiny_gpt2())).export(tmp_path / "out", "mlx", base=tmp_path / "none")


# -- GGUF -------------------------------------------------------------------------------------------------------------


def read_gguf(file):
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(file)
    return (
        {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")},
        {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors},
    )


def test_a_gguf_says_what_llama_cpp_reads(base, folder, tmp_path):
    pytest.importorskip("gguf")
    adapter = make_adapter(base, rank=6, alpha=9.0, target_modules=["q_proj", "k_proj", "down_proj"])
    written = adapter.export(tmp_path / "out", "gguf", base=folder)
    assert written.files == ("adapter.gguf",)
    fields, tensors = read_gguf(tmp_path / "out" / "adapter.gguf")
    assert fields == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 6.0,
    }
    assert set(tensors) == {
        f"blk.{block}.{name}.weight.lora_{one}"
        for block in (0, 1)
        for name in ("attn_q", "attn_k", "ffn_down")
        for one in "ab"
    }
    ours = adapter.tensors["model.layers.1.mlp.down_proj.lora_B.weight"] * 1.5
    torch.testing.assert_close(tensors["blk.1.ffn_down.weight.lora_b"], ours)
    ours = adapter.tensors["model.layers.1.mlp.down_proj.lora_A.weight"]
    assert torch.equal(tensors["blk.1.ffn_down.weight.lora_a"], ours)


def test_rows_of_queries_and_keys_lie_as_llama_cpp_rotates_them(base, folder, tmp_path):
    pytest.importorskip("gguf")
    adapter = make_adapter(base, rank=2, alpha=2.0, target_modules=["q_proj", "k_proj"])
    adapter.export(tmp_path / "out", "gguf", base=folder)
    _, tensors = read_gguf(tmp_path / "out" / "adapter.gguf")
    for name, heads in (("q", 4), ("k", 2)):
        ours = adapter.tensors[f"model.layers.0.self_attn.{name}_proj.lora_B.weight"]
        theirs = tensors[f"blk.0.attn_{name}.weight.lora_b"]
        for head in range(heads):
            for pair in range(4):  # a head has 8 rows here
                assert torch.equal(theirs[8 * head + 2 * pair], ours[8 * head + pair])
                assert torch.equal(theirs[8 * head + 2 * pair + 1], ours[8 * head + 4 + pair])


def test_architectures_that_are_not_known_are_refused_by_name(base, tmp_path):
    pytest.importorskip("gguf")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "falcon"}))
    with pytest.raises(SelectionError, match=r"of a falcon is not known here, but of gemma"):
        make_adapter(base).export(tmp_path / "out", "gguf", base=tmp_path / "base")


def test_a_head_that_is_the_embedding_is_refused(base, tmp_path):
    pytest.importorskip("gguf")
    tiny_llama(tied=True).config.save_pretrained(tmp_path / "base")
    with pytest.raises(SelectionError, match="'lm_head' is the embedding"):
        make_adapter(base, target_modules=["lm_head"]).export(tmp_path / "out", "gguf", base=tmp_path / "base")


# -- a plugin's -------------------------------------------------------------------------------------------------------


class Ranks:
    @hookimpl
    def adapterkit_exporters(self):
        def write(job):
            ranks = {site: one.rank for site, one in job.factors().items()}
            (job.folder / "ranks.json").write_text(json.dumps(ranks))
            return "read it"

        yield Exporter(name="ranks", export=write)
        yield Exporter(name="needy", export=write, requires="no_such_package")


def test_a_plugin_may_add_one(base, tmp_path):
    registry = Registry()
    registry.add(Ranks())
    written = make_adapter(base, rank=3).export(tmp_path / "out", "ranks", registry=registry)
    assert (written.files, written.use) == (("ranks.json",), "read it")
    with pytest.raises(ConfigError, match="needs no_such_package: try `pip install no_such_package`"):
        make_adapter(base).export(tmp_path / "other", "needy", registry=registry)
    assert {"portable", "vllm", "gguf", "mlx", "ranks"} <= {one.name for one in registry.exporters()}
