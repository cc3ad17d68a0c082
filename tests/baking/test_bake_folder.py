"""What a baked model's folder holds beside its weights, and what its report says of them."""

import json
import math
from types import SimpleNamespace

import attrs
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterkit import Adapter, Base, BaseLoadError, Blend, ConfigError, SelectionError
from adapterkit.artifact.card import render_model
from adapterkit.artifact.manifest import BaseReference, Manifest
from adapterkit.baking import Baked, BakedLayer
from adapterkit.baking.shards import Stored, headers, plan_shards, write_shard
from adapterkit.errors import ArtifactError
from adapterkit.sizes import parse_size
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE, make_adapter

NO_TOKENIZER = SimpleNamespace(save_pretrained=lambda folder: None)
Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def base():
    return Base(EXAMPLE_BASE)


def lora(base, scale=0.05, **options):
    return make_adapter(base, rank=4, scale=scale, **options)


def plain(folder, dtype=torch.float32, **changes):
    """A base on disk with a card, a licence, a checkpoint of pickles and code beside its weights."""
    tiny_llama(**changes).to(dtype).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: llama3.1\ntags:\n- x\n---\n# Mine\n")
    (folder / "LICENSE").write_text("All of it.")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (folder / "modeling_mine.py").write_text("raise SystemExit")
    return folder


def rewrite(file, **changes):
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, **changes}))


# -- files ------------------------------------------------------------------------------------------------------------


def test_everything_that_makes_a_model_is_kept_to_the_byte(base, tmp_path):
    made = base.bake(lora(base), tmp_path / "whole")
    names = {path.name for path in EXAMPLE_BASE.iterdir()}
    assert {path.name for path in made.folder.iterdir()} == names | {"adapterkit-bake.json"}
    for name in names - {"README.md", "model.safetensors"}:
        assert (made / name).read_bytes() == (EXAMPLE_BASE / name).read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(made.folder)
    turns = [{"role": "user", "content": "Hello"}]
    want = base.tokenizer.apply_chat_template(turns, tokenize=False)
    assert tokenizer.apply_chat_template(turns, tokenize=False) == want


def test_neither_code_nor_pickles_go_along_and_the_licence_does(tmp_path):
    folder = plain(tmp_path / "base")
    rewrite(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    base = Base(folder, registry=None)
    made = base.bake(lora(Base(tiny_llama())), tmp_path / "whole")
    names = {path.name for path in made.folder.iterdir()}
    assert names == {
        "LICENSE",
        "README.md",
        "adapterkit-bake.json",
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    assert "auto_map" not in json.loads((made / "config.json").read_text())
    head = yaml.safe_load((made / "README.md").read_text().split("---\n")[1])
    assert head["license"] == "llama3.1"
    assert "base_model" not in head


@pytest.mark.parametrize(
    "name", ["LICENSE", "special_tokens_map.json", "additional_chat_templates/x.jinja", "README.md"]
)
def test_no_file_from_elsewhere_gets_into_what_is_published(name, tmp_path):
    folder = plain(tmp_path / "base")
    secret = tmp_path / "secret"
    secret.write_text("---\nlicense: secret\n---\n")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    with pytest.raises(BaseLoadError, match=rf"base' is refused: '{name}' leads out of the folder"):
        Base(folder, tokenizer=NO_TOKENIZER).bake(lora(Base(tiny_llama())), tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_the_links_of_the_hubs_cache_are_followed(tmp_path):
    cached, snapshot = (
        plain(tmp_path / "models--me--mine" / "blobs"),
        tmp_path / "models--me--mine" / "snapshots" / "abc",
    )
    (cached / "template").write_text("{{ messages }}")
    (snapshot / "additional_chat_templates").mkdir(parents=True)
    (snapshot / "additional_chat_templates" / "x.jinja").symlink_to("../../../blobs/template")
    for name in ("LICENSE", "README.md", "config.json", "model.safetensors"):
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    made = Base(snapshot, tokenizer=NO_TOKENIZER).bake(lora(Base(tiny_llama())), tmp_path / "whole")
    assert (made / "LICENSE").read_text() == "All of it."
    assert (made / "additional_chat_templates" / "x.jinja").read_text() == "{{ messages }}"
    assert not any(path.is_symlink() for path in made.folder.rglob("*"))


def test_code_on_the_hub_is_not_named_however_it_is_written(tmp_path):
    folder = plain(tmp_path / "base")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("{", '{"auto\\u005fmap": {"AutoModel": "me/mine--my.Model"},', 1))
    made = Base(folder, tokenizer=NO_TOKENIZER).bake(lora(Base(tiny_llama())), tmp_path / "whole")
    assert json.loads((made / "config.json").read_text()) == json.loads(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("generation_config.json", '{"auto_map": '),
        ("tokenizer_config.json", "[" * 100_000),
        ("README.md", "---\nlicense: mit\nday: 2001-99-99\n---\n"),
        ("README.md", "---\nlicense: " + "[" * 3000 + "\n---\n"),
        ("README.md", "---\nlicense: {\n---\n"),
    ],
)
def test_a_broken_file_is_refused_by_name_before_anything_is_written(name, text, tmp_path, monkeypatch):
    folder = plain(tmp_path / "base")
    (folder / name).write_text(text)
    monkeypatch.setattr("adapterkit.baking.streaming.write_shard", None)
    with pytest.raises(BaseLoadError, match=rf"base/{name}' .*cannot be read: ") as refused:
        Base(folder, tokenizer=NO_TOKENIZER).bake(lora(Base(tiny_llama())), tmp_path / "whole")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_dtype_that_is_asked_for_is_what_is_written(dtype, tmp_path):
    wanted = getattr(torch, dtype)
    folder = plain(tmp_path / "base", torch.bfloat16)
    rewrite(folder / "config.json", other={"dtype": "bfloat16"}, torch_dtype="bfloat16")
    adapter = lora(Base(tiny_llama().to(torch.bfloat16)))
    made = Base(folder, dtype=dtype).bake(adapter, tmp_path / "whole")
    assert {one.dtype for one in load_file(made / "model.safetensors").values()} == {wanted}
    config = json.loads((made / "config.json").read_text())
    assert (config["dtype"], config["other"], config.get("torch_dtype")) == (dtype, {"dtype": dtype}, None)
    assert AutoModelForCausalLM.from_pretrained(made.folder).dtype == wanted
    assert made.dtype == dtype


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("1.5 kb", 1500), ("2MiB", 2 << 20), (1000, 1000), ("7", 7), ("1TB", 10**12)]
)
def test_sizes_are_read_as_transformers_reads_them(text, size):
    assert parse_size(text, "max_shard_size") == size


@pytest.mark.parametrize(
    "options",
    [
        {"max_shard_size": "big"},
        {"max_shard_size": 0},
        {"max_shard_size": "9" * 400 + "GB"},
        {"min_survived": 1.5},
        {"min_survived": "1"},
    ],
)
def test_options_that_do_not_fit_are_refused(base, options, tmp_path):
    with pytest.raises(ConfigError, match=f"options( of bake)? do not fit.*\n.*{next(iter(options))}"):
        base.bake(lora(base), tmp_path / "whole", **options)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("given", ["out/adapter", None, []])
def test_what_is_no_adapter_is_refused(base, given, tmp_path):
    with pytest.raises(SelectionError, match=r"what is baked is an Adapter.*Base.load\(folder\) gives one"):
        base.bake(given, tmp_path / "whole")


@pytest.mark.parametrize(("output", "how"), [("base", "is"), ("base/whole", "lies in"), (".", "holds")])
def test_the_base_is_not_written_over(output, how, tmp_path):
    base = Base(plain(tmp_path / "base"))
    before = sorted(path.name for path in (tmp_path / "base").iterdir())
    with pytest.raises(SelectionError, match=f"{how} the input .*base': give another folder"):
        base.bake(lora(Base(tiny_llama())), tmp_path / output)
    assert sorted(path.name for path in (tmp_path / "base").iterdir()) == before


def test_a_name_that_no_folder_can_have_is_refused(base):
    with pytest.raises(SelectionError, match="is no path: embedded null byte"):
        base.bake(lora(base), "whole\0")


def test_numbers_of_several_types_begin_where_they_can_be_read(tmp_path):
    numbers = {
        "a": torch.ones(3, dtype=torch.bfloat16),
        "b": torch.tensor(2.0),
        "c": torch.ones(5, dtype=torch.uint8),
        "d": torch.ones(1, 3, dtype=torch.float64),
    }
    names = {torch.bfloat16: "BF16", torch.float32: "F32", torch.uint8: "U8", torch.float64: "F64"}
    described = {key: Stored(names[one.dtype], tuple(one.shape), one.nbytes) for key, one in numbers.items()}
    (shard,) = plan_shards(described, 10**6)
    write_shard(tmp_path / "x.safetensors", shard, (numbers[key] for key in shard.tensors))
    raw = (tmp_path / "x.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert all(header[key]["data_offsets"][0] % one.itemsize == 0 for key, one in numbers.items())
    found = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(found[key], one) for key, one in numbers.items())
    assert headers(dict.fromkeys(numbers, tmp_path / "x.safetensors")) == described


def test_a_base_from_the_hub_is_named_with_its_commit(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "models--org--tiny" / "snapshots" / commit
    folder.mkdir(parents=True)
    plain(folder)
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    adapters = [lora(Base(tiny_llama()), seed=seed) for seed in (0, 1)]
    one = Base("org/tiny").bake(adapters[0], tmp_path / "one")
    both = Base("org/tiny").bake(Blend({adapters[0]: 0.5, adapters[1]: 0.5}), tmp_path / "both")
    assert one.base == BaseReference(
        name="org/tiny", revision=commit, fingerprint=Base(tiny_llama()).reference.fingerprint
    )
    for made, relation in ((one, "finetune"), (both, "merge")):
        head = yaml.safe_load((made / "README.md").read_text().split("---\n")[1])
        assert (head["base_model"], head["base_model_relation"]) == ("org/tiny", relation)
        assert (head["license"], head["library_name"]) == ("llama3.1", "transformers")


def test_a_model_object_is_baked_as_it_is(tmp_path, base):
    model = tiny_llama().to(torch.bfloat16)
    mine = Base(model, tokenizer=base.tokenizer)
    made = mine.bake(lora(mine), tmp_path / "whole")
    assert made.whole == "the base is a model object"
    assert (made.dtype, (made / "tokenizer.json").is_file()) == ("bfloat16", True)
    assert AutoModelForCausalLM.from_pretrained(made.folder).dtype == torch.bfloat16


# -- what a base is stored in -----------------------------------------------------------------------------------------


def test_a_base_that_is_quantized_in_memory_is_baked_as_it_is_stored(base, tmp_path):
    pytest.importorskip("bitsandbytes")
    adapter = lora(base)
    small = Base(EXAMPLE_BASE, quantize="nf4")
    trained = Adapter("lora", adapter.config, adapter.tensors, attrs.evolve(adapter.manifest, base=small.reference))
    assert small.reference.fingerprint.endswith(".quantized")
    made = small.bake(trained, tmp_path / "small")
    same = base.bake(adapter, tmp_path / "same")
    assert (made / "model.safetensors").read_bytes() == (same / "model.safetensors").read_bytes()
    assert {one.dtype for one in load_file(made / "model.safetensors").values()} == {torch.bfloat16}


def test_a_base_that_is_stored_quantized_is_refused_with_the_cure(base, tmp_path):
    folder = plain(tmp_path / "base")
    rewrite(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(BaseLoadError, match="is stored in gptq: give the model that it was made of"):
        Base(folder).bake(lora(Base(tiny_llama())), tmp_path / "whole")
    model = Base(Base(EXAMPLE_BASE, quantize="nf4")._loaded.model, tokenizer=base.tokenizer)
    with pytest.raises(SelectionError, match=r"quantized.*bake onto Base\(folder\)"):
        model.bake(lora(base), tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_weights_of_eight_bits_are_refused_where_an_adapter_acts_and_copied_elsewhere(tmp_path):
    folder = plain(tmp_path / "base")
    adapter = lora(Base(tiny_llama()), target_modules=["k_proj"])
    nameless = Adapter("lora", adapter.config, adapter.tensors, Manifest())
    tensors = load_file(folder / "model.safetensors")
    eight = {**tensors, Q + ".weight": tensors[Q + ".weight"].to(torch.float8_e4m3fn)}
    save_file(eight, folder / "model.safetensors")
    made = Base(folder).bake(nameless, tmp_path / "whole")
    assert torch.equal(
        load_file(made / "model.safetensors")[Q + ".weight"].view(torch.uint8), eight[Q + ".weight"].view(torch.uint8)
    )
    both = lora(Base(tiny_llama()), target_modules=["q_proj"])
    with pytest.raises(SelectionError, match="is stored in F8_E4M3"):
        Base(folder).bake(Adapter("lora", both.config, both.tensors, Manifest()), tmp_path / "other")


# -- the report -------------------------------------------------------------------------------------------------------


def test_the_report_says_of_each_layer_what_survived(tmp_path):
    folder = plain(tmp_path / "base", torch.bfloat16)
    base = Base(folder, tokenizer=NO_TOKENIZER)
    adapter = lora(base, target_modules=["q_proj", "up_proj"], scale=0.004)
    made = base.bake(Blend({adapter: 0.5}), tmp_path / "whole", min_survived=0)
    before, after = load_file(folder / "model.safetensors"), load_file(made / "model.safetensors")
    assert [layer.name for layer in made.layers] == sorted(layer.name for layer in made.layers)
    moved = square = 0.0
    for layer in made.layers:
        site = layer.name.removesuffix(".weight")
        down, up = (adapter.tensors[f"{site}.lora_{one}.weight"].double() for one in "AB")
        update = 0.5 * 2.0 * up @ down
        own, new = before[layer.name].double(), after[layer.name].double()
        assert layer.update == pytest.approx(float(update.norm() / own.norm()), rel=1e-4)
        share = float(((new - own) * update).sum() / update.square().sum())
        assert layer.survived == pytest.approx(min(1.0, share), rel=1e-3)
        assert layer.error == pytest.approx(float((new - own - update).norm() / update.norm()), rel=1e-3)
        moved, square = moved + ((new - own) * update).sum(), square + update.square().sum()
    assert made.survived == pytest.approx(float(moved / square), rel=1e-3)
    assert 0.1 < made.survived < 0.95
    said = json.loads((made / "adapterkit-bake.json").read_text())
    assert said == json.loads(json.dumps(made.to_json()))
    assert said["adapters"] == [{"method": "lora", "digest": adapter.digest, "weight": 0.5}]
    assert said["base"]["fingerprint"] == base.reference.fingerprint
    assert said["streamed"]


def test_all_of_an_update_survives_in_float32(base, tmp_path):
    made = Base(EXAMPLE_BASE, dtype="float32").bake(lora(base), tmp_path / "whole")
    assert made.survived == pytest.approx(1.0, abs=1e-5)
    assert max(layer.error for layer in made.layers) < 1e-4


def test_an_update_that_is_rounded_away_is_refused_unless_told(tmp_path):
    folder = plain(tmp_path / "base", torch.bfloat16)
    base = Base(folder)
    adapter = lora(Base(tiny_llama().to(torch.bfloat16)), scale=0.0005)
    with pytest.raises(
        SelectionError, match=r"% of the update survives the cast to bfloat16, and 50% are asked.*float32"
    ):
        base.bake(adapter, tmp_path / "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
    assert base.bake(adapter, tmp_path / "whole", min_survived=0).survived < 0.1
    assert Base(folder, dtype="float32").bake(adapter, tmp_path / "wide").survived > 0.999


def test_an_adapter_that_changes_nothing_is_baked(base, tmp_path):
    adapter = lora(base, scale=0.0)
    made = base.bake(adapter, tmp_path / "whole")
    assert (made.survived, made.layers[0].update, made.layers[0].error) == (1.0, 0.0, 0.0)


def test_numbers_that_are_too_large_for_the_dtype_are_refused(base, tmp_path):
    with pytest.raises(ArtifactError, match="no number in float16: the sums are too large for it"):
        Base(EXAMPLE_BASE, dtype="float16").bake(lora(base, scale=300.0), tmp_path / "whole")
    broken = lora(base)
    next(iter(broken.tensors.values()))[0, 0] = math.nan
    with pytest.raises(ArtifactError, match="or the adapter is broken"):
        base.bake(broken, tmp_path / "whole")
    assert not any(tmp_path.iterdir())


def test_weights_in_double_precision_keep_it(tmp_path):
    folder = plain(tmp_path / "base", torch.float64)
    adapter = lora(Base(tiny_llama()), target_modules=["q_proj"])
    made = Base(folder).bake(Adapter("lora", adapter.config, adapter.tensors, Manifest()), tmp_path / "whole")
    down, up = (adapter.tensors[f"{Q}.lora_{one}.weight"].double() for one in "AB")
    want = load_file(folder / "model.safetensors")[Q + ".weight"] + 2.0 * up @ down
    torch.testing.assert_close(load_file(made / "model.safetensors")[Q + ".weight"], want, atol=1e-15, rtol=1e-13)


def test_a_card_is_made_of_texts_that_stay_texts():
    name = "<script>alert(1)</script>"
    layers = (BakedLayer(name=name, update=math.inf, survived=0.5, error=0.1),)
    parts = ({"method": "lora", "digest": "0" * 64, "weight": -0.5},)
    made = Baked(folder="", layers=layers, survived=0.5, dtype="bfloat16", base=BaseReference(name=name), parts=parts)
    card = render_model(made.to_json(), {"license": 'a"\nb: c'})
    assert "<script>" not in card
    assert yaml.safe_load(card.split("---\n")[1])["license"] == 'a"\nb: c'
    assert made.to_json()["layers"][0]["update"] is None
