"""The algebra without a base: what `effects` says is what `lower` says, and `express` takes it back."""

import attrs
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterkit import INPUT, Adapter, Base, Bias, Dense, LowRank, PrefixKV, Rows, Scale, SelectionError, Tokens
from adapterkit.registry import default_registry
from adapterkit.resident import effects_of
from adapterkit.testing import tiny_gpt2, tiny_llama
from adapterkit.testing.comparing import changes
from tests.support import make_adapter

REGISTRY = default_registry()
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
MODELS = {"llama": tiny_llama, "gpt2": lambda: tiny_gpt2(tie_word_embeddings=False)}
BASES = {family: Base(model()) for family, model in MODELS.items()}
LLAMA, GPT2 = BASES["llama"], BASES["gpt2"]
TARGETS = {
    "llama": ["q_proj", "k_proj", "o_proj", "down_proj", "embed_tokens", "lm_head", "layers.1.self_attn.v_proj"],
    "gpt2": ["c_attn", "c_fc", "wte", "h.0.mlp.c_proj", "h.1.attn.c_proj"],
}
IDS = torch.randint(1, 97, (2, 9), generator=torch.Generator().manual_seed(3))


def effects(adapter):
    return REGISTRY.method(adapter.method).effects(adapter.config, adapter.tensors)


def expressed(method, given, like=None):
    """The adapter of a method that does this, for the base of ``like``; None where there is none."""
    made = REGISTRY.method(method).express(given)
    return None if made is None else Adapter(method, *made, like.manifest if like else LLAMA_MANIFEST)


LLAMA_MANIFEST = make_adapter(LLAMA, rank=1).manifest


def require_same(one, other):
    mine, theirs = changes(one), changes(other)
    assert set(mine) == set(theirs)
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-6, rtol=1e-5, msg=name)


@st.composite
def lora_options(draw):
    """A family, and options of LoRA that fit it."""
    family = draw(st.sampled_from(sorted(BASES)))
    targets = draw(st.lists(st.sampled_from(TARGETS[family]), min_size=1, max_size=4, unique=True))
    some = st.dictionaries(st.sampled_from([*targets, r".*\.1\..*", "attn.*"]), st.integers(1, 9), max_size=3)
    return family, {
        "target_modules": tuple(targets),
        "rank": draw(st.integers(1, 9)),
        "alpha": draw(st.none() | st.floats(0.01, 100.0)),
        "use_rslora": draw(st.booleans()),
        "rank_pattern": draw(some),
        "alpha_pattern": draw(st.dictionaries(st.sampled_from(targets), st.floats(0.01, 100.0), max_size=2)),
    }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(options=lora_options(), seed=st.integers(0, 3))
def test_lora_is_its_effects_whatever_its_ranks_targets_and_scales(options, seed):
    family, told = options
    base = BASES[family]
    adapter = make_adapter(base, seed=seed, scale=0.1, **told)
    said = effects(adapter)
    require_same(said, effects_of(REGISTRY, adapter, base.sites))
    again = expressed("lora", said, adapter)
    require_same(effects(again), said)
    assert {name: tensor.shape for name, tensor in again.tensors.items()} == {
        name: tensor.shape for name, tensor in adapter.tensors.items()
    }
    got, want = base.logits(IDS, adapter=again), base.logits(IDS, adapter=adapter)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    twice = expressed("lora", effects(again), again)
    assert twice == again, "expressing again changes something"
    for one in {adapter, again}:
        base.unload(one)


@settings(max_examples=15, deadline=None)
@given(options=lora_options())
def test_full_says_the_same_multiplied_out(options):
    family, told = options
    base = BASES[family]
    adapter = make_adapter(base, scale=0.1, **told)
    dense = expressed("full", effects(adapter), adapter)
    require_same(effects(dense), effects(adapter))
    got, want = base.logits(IDS, adapter=dense), base.logits(IDS, adapter=adapter)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    for one in (dense, adapter):
        base.unload(one)


# -- LoRA -------------------------------------------------------------------------------------------------------------


def test_one_scale_is_kept_and_the_factors_with_it():
    adapter = make_adapter(LLAMA, rank=4, alpha=10.0)
    again = expressed("lora", effects(adapter))
    assert (again.config.rank, again.config.alpha, again.config.rank_pattern) == (4, 10.0, {})
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in adapter.tensors.items())


def test_the_usual_rank_is_the_most_common_one_and_others_are_patterns():
    adapter = make_adapter(LLAMA, rank=4, rank_pattern={"q_proj": 8, "layers.0.self_attn.k_proj": 2}, use_rslora=True)
    config = expressed("lora", effects(adapter)).config
    assert (config.rank, config.alpha, config.use_rslora) == (4, 4.0, False)
    assert config.rank_pattern == {"q_proj": 8, "model.layers.0.self_attn.k_proj": 2}
    assert config.alpha_pattern == {"q_proj": 8.0, "model.layers.0.self_attn.k_proj": 2.0}
    assert config.target_modules == tuple(sorted(site for site in effects(adapter)))


def test_a_site_whose_name_is_the_end_of_another_has_its_own_rank():
    ranks = {"proj": 2, "a.proj": 3, "z.proj": 4, "z.a.proj": 5, "z.b.proj": 4}
    said = {site: (LowRank(torch.randn(rank, 8), torch.randn(8, rank), 0.5),) for site, rank in ranks.items()}
    again = expressed("lora", said)
    require_same(effects(again), said)
    for wanted in (0.5, 2.0):
        scaled = {site: (attrs.evolve(one, scale=wanted if site == "proj" else 1.0),) for site, (one,) in said.items()}
        require_same(effects(expressed("lora", scaled)), scaled)


@pytest.mark.parametrize("scale", [0.0, -2.0, 1e7, 1e-9])
def test_a_scale_that_no_alpha_says_is_in_the_factors(scale):
    site = "model.layers.0.self_attn.q_proj"
    one = LowRank(torch.randn(2, 32), torch.randn(32, 2), scale)
    again = expressed("lora", {site: (one,)})
    want = changes({site: (one,)})[f"weight at {site}"]
    torch.testing.assert_close(changes(effects(again))[f"weight at {site}"], want, atol=1e-6 * abs(scale), rtol=1e-6)


def test_several_updates_of_one_weight_are_one():
    site = "model.layers.0.mlp.down_proj"
    updates = tuple(
        LowRank(torch.randn(rank, 48), torch.randn(32, rank), scale) for rank, scale in ((2, 0.5), (3, -1.0))
    )
    again = expressed("lora", {site: updates})
    require_same(effects(again), {site: updates})
    assert again.config.rank == 5


def test_half_precision_factors_are_folded_in_float32():
    site, other = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"
    down, up = torch.randn(2, 32).bfloat16(), torch.randn(32, 2).bfloat16()
    given = {site: (LowRank(down, up, 1 / 3),), other: (LowRank(down, up, 0.1),)}
    again = expressed("lora", given)
    require_same(effects(again), given)
    assert again.tensors[f"{site}.lora_A.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("family", sorted(BASES))
@pytest.mark.parametrize(
    "options",
    [
        {"rank": 3},
        {"rank": 3, "use_rslora": True, "alpha": 7.0, "rank_pattern": {"c_attn": 2, "q_proj": 2}},
        {"target_modules": ("wte", "embed_tokens", "c_fc", "q_proj"), "rank": 2},
        {"rank": 3, "trainable_token_indices": (5, 3)},
    ],
)
def test_peft_answers_the_same_with_what_is_expressed(family, options, tmp_path):
    peft = pytest.importorskip("peft")
    base = BASES[family]
    if "target_modules" in options:
        names = {site.name.rpartition(".")[2] for site in base.sites}
        options = {**options, "target_modules": tuple(name for name in options["target_modules"] if name in names)}
    adapter = make_adapter(base, scale=0.1, **options)
    folder = expressed("lora", effects(adapter), adapter).save(tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(MODELS[family](), folder)
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, base.logits(IDS, adapter=adapter), **CLOSE)
    assert effects(Adapter.load(folder)).keys() == effects(adapter).keys()


def test_tokens_go_with_their_rows():
    adapter = make_adapter(LLAMA, rank=2, trainable_token_indices={"embed_tokens": (9, 4), "lm_head": (1,)})
    said = effects(adapter)
    (rows,) = said["model.embed_tokens"]
    assert rows.index.tolist() == [9, 4]
    again = expressed("lora", said)
    assert again.config.trainable_token_indices == {"model.embed_tokens": (9, 4), "lm_head": (1,)}
    require_same(effects(again), said)


def test_on_tied_weights_the_owner_alone_is_said_and_both_act():
    base = Base(tiny_llama(tied=True))
    for adapter in (
        make_adapter(base, rank=2, trainable_token_indices=(5, 17)),
        make_adapter(base, method="full", scale=0.05, target_modules=("embed_tokens", "norm")),
    ):
        said = effects(adapter)
        assert "lm_head" not in said
        require_same(said, effects_of(REGISTRY, adapter, base.sites))
        again = expressed(adapter.method, said, adapter)
        torch.testing.assert_close(base.logits(IDS, adapter=again), base.logits(IDS, adapter=adapter), **CLOSE)


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ("norm",)},
    ],
)
def test_what_needs_the_base_is_not_said_without(options):
    adapter = make_adapter(LLAMA, **options)
    assert effects(adapter) is None
    with pytest.raises(
        SelectionError, match="depends on the base's weights, or cannot be said without them: give base="
    ):
        effects_of(REGISTRY, adapter)
    assert effects_of(REGISTRY, adapter, LLAMA.sites)


SITE = "model.layers.0.self_attn.q_proj"
UPDATE = LowRank(torch.randn(2, 32), torch.randn(32, 2), 1.0)
OTHER_THAN_LORA = {
    "a dense change": {SITE: (UPDATE, Dense(torch.randn(32, 32)))},
    "a factor": {SITE: (UPDATE, Scale(torch.randn(32)))},
    "a bias": {SITE: (Bias(torch.randn(32)),)},
    "tokens": {SITE: (UPDATE,), INPUT: (Tokens(torch.randn(3, 32)),)},
    "rows beside an update": {"model.embed_tokens": (UPDATE, Rows(torch.tensor([1]), torch.randn(1, 32)))},
    "rows alone": {"model.embed_tokens": (Rows(torch.tensor([1]), torch.randn(1, 32)),)},
    "no direction": {SITE: (LowRank(torch.randn(0, 32), torch.randn(32, 0), 1.0),)},
    "nothing": {},
}


@pytest.mark.parametrize("said", OTHER_THAN_LORA.values(), ids=OTHER_THAN_LORA)
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_what_lora_cannot_do_is_not_expressed(method, said):
    assert expressed(method, said) is None


def test_qlora_expresses_as_lora_does():
    adapter = make_adapter(LLAMA, method="qlora", rank=3)
    again = expressed("qlora", effects(adapter), adapter)
    assert type(again.config) is type(adapter.config)
    require_same(effects(again), effects(adapter))
    require_same(effects(expressed("lora", effects(adapter), adapter)), effects(adapter))


# -- other methods ----------------------------------------------------------------------------------------------------


def test_full_adds_up_whatever_adds():
    site = "transformer.h.0.attn.c_attn"
    low, dense, bias = LowRank(torch.randn(2, 32), torch.randn(96, 2), 0.5), torch.randn(96, 32), torch.randn(96)
    said = {site: (low, Dense(dense), Bias(bias), Dense(bias, "bias")), "transformer.ln_f": (Dense(torch.ones(32)),)}
    again = expressed("full", said, make_adapter(GPT2))
    assert again.config.target_modules == (f"{site}.bias", f"{site}.weight", "transformer.ln_f.weight")
    require_same(effects(again), said)
    torch.testing.assert_close(again.tensors[f"{site}.delta_weight"], dense + low.delta())
    torch.testing.assert_close(again.tensors[f"{site}.delta_bias"], 2 * bias)
    assert GPT2.logits(IDS, adapter=again).isfinite().all()


@pytest.mark.parametrize(
    "said",
    [
        {SITE: (Scale(torch.ones(32)),)},
        {"model.embed_tokens": (Rows(torch.tensor([1]), torch.randn(1, 32)),)},
        {SITE: (UPDATE,), INPUT: (Tokens(torch.randn(3, 32)),)},
        {},
    ],
)
def test_full_expresses_nothing_but_sums(said):
    assert expressed("full", said) is None


@pytest.mark.parametrize("method", ["prompt_tuning", "p_tuning", "peft:prompt_tuning", "peft:p_tuning"])
def test_soft_prompts_are_each_other(method, tmp_path):
    prompt = make_adapter(LLAMA, method="prompt_tuning", tokens=4)
    again = expressed(method, effects(prompt), prompt)
    require_same(effects(again), effects(prompt))
    torch.testing.assert_close(LLAMA.logits(IDS, adapter=again), LLAMA.logits(IDS, adapter=prompt), **CLOSE)
    assert Adapter.load(again.save(tmp_path / "prompt")) == again


def test_a_prefix_is_taken_back():
    prefix = make_adapter(LLAMA, method="prefix_tuning", tokens=3)
    again = expressed("prefix_tuning", effects(prefix), prefix)
    assert again.config == prefix.config
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in prefix.tensors.items())


def test_two_at_the_input_are_not_one():
    two = {INPUT: (Tokens(torch.randn(3, 32)), Tokens(torch.randn(2, 32)))}
    prefix = {INPUT: (PrefixKV(torch.randn(2, 2, 3, 8), torch.randn(2, 2, 3, 8)),)}
    assert expressed("prompt_tuning", two) is None
    assert expressed("prompt_tuning", prefix) is None
    assert expressed("prompt_tuning", {INPUT: two[INPUT][:1], SITE: (UPDATE,)}) is None
    assert expressed("prompt_tuning", {INPUT: (Tokens(torch.randn(0, 32)),)}) is None
    assert expressed("prefix_tuning", two) is None


def test_a_prompt_that_a_network_is_still_to_make_is_not_said():
    assert effects(make_adapter(LLAMA, method="p_tuning", tokens=3)) is None
    assert effects(make_adapter(LLAMA, method="peft:p_tuning")) is None


def test_factors_are_ia3(tmp_path):
    adapter = make_adapter(LLAMA, method="peft:ia3", scale=1.0)
    said = effects(adapter)
    assert {one.side for (one,) in said.values()} == {"input", "output"}
    again = expressed("peft:ia3", said, adapter)
    require_same(effects(again), said)
    assert torch.equal(LLAMA.logits(IDS, adapter=again), LLAMA.logits(IDS, adapter=adapter))
    assert Adapter.load(again.save(tmp_path / "ia3")) == again
    without_bias = {SITE: (Scale(torch.ones(32), bias=False),)}
    assert expressed("peft:ia3", without_bias) is None
    assert expressed("peft:ia3", {SITE: (UPDATE,)}) is None
    assert expressed("peft:lora", {SITE: (UPDATE,)}) is None


def test_effects_say_which_sites_are_embeddings():
    adapter = make_adapter(LLAMA, rank=2, target_modules=("embed_tokens", "q_proj"))
    for said in (effects(adapter), effects_of(REGISTRY, adapter, LLAMA.sites)):
        assert {site for site, (one,) in said.items() if one.embedding} == {"model.embed_tokens"}
    unsaid = {site: (attrs.evolve(one, embedding=False),) for site, (one,) in effects(adapter).items()}
    with pytest.raises(ValueError, match=r"missing: model\.embed_tokens\.lora_embedding_A"):
        LLAMA.load(expressed("lora", unsaid))
