"""Several adapters as one: exactly what they do together."""

import importlib
import subprocess
import sys

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import adapterkit
from adapterkit import (
    Adapter,
    Base,
    Blend,
    SelectionError,
    Stack,
    merge,
)
from adapterkit.artifact.manifest import Manifest
from adapterkit.effects import Bias, Dense, LowRank
from adapterkit.merging import acting
from adapterkit.merging.changes import read
from adapterkit.merging.joining import join
from adapterkit.merging.reducing import cut_dense, distance, norm
from adapterkit.merging.strategy import prepare
from adapterkit.registry import default_registry
from adapterkit.resident import effects_of, lower
from adapterkit.shared import SharedModel
from adapterkit.testing import tiny_llama, tiny_moe, tiny_qwen
from tests.merge.asking import EXACT, IDS, gap
from tests.support import FAMILIES, make_adapter


@pytest.fixture(scope="module")
def bases():
    return {family: Base(make()) for family, make in FAMILIES.items()}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def base(request, bases):
    return bases[request.param]


def on_disk(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# -- exact ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", EXACT)
def test_an_exact_strategy_does_what_the_blend_does(base, strategy):
    targets = ["q_proj", "up_proj"] if base.sites[1].name.startswith("model") else ["attn.c_attn", "mlp.c_fc"]
    some = [
        make_adapter(base, rank=4, alpha=3.0, seed=1),
        make_adapter(base, rank=2, alpha=5.0, use_rslora=True, seed=2, target_modules=tuple(targets)),
        make_adapter(base, rank=3, rank_pattern={targets[0]: 5}, alpha_pattern={targets[1]: 1.0}, seed=3),
    ]
    merged = merge(some, [0.7, -0.4, 1.5], strategy)
    assert merged.method == "lora"
    assert gap(base, merged, Blend(dict(zip(some, [0.7, -0.4, 1.5], strict=True)))) < 1e-5
    assert merged.manifest.lineage["lost"] == {"overall": 0.0, "largest": 0.0, "site": ""}


def test_without_weights_it_is_the_stack(llama, pair):
    assert gap(llama, merge(pair), Stack(*pair)) < 1e-5


def test_a_blend_is_its_parts_with_weights_multiplied(llama, pair):
    third = make_adapter(llama, rank=3, seed=3)
    merged = merge([Blend({pair[0]: 0.5, pair[1]: -0.2}), third], [2.0, 0.3])
    assert merged == merge([*pair, third], [1.0, -0.4, 0.3])
    assert merge(Blend({pair[0]: 0.5, pair[1]: -0.2})) == merge(pair, [0.5, -0.2])


def test_soup_is_the_mean_over_all_also_where_an_adapter_leaves_a_site_alone(llama):
    some = [make_adapter(llama, rank=2, seed=1), make_adapter(llama, rank=2, seed=2, target_modules=("q_proj",))]
    assert gap(llama, merge(some, strategy="soup"), Blend(dict.fromkeys(some, 0.5))) < 1e-5


@pytest.mark.parametrize(
    ("strategy", "options", "share"), [("soup", {}, 0.5), ("task_arithmetic", {"scaling": 0.3}, 0.3)]
)
def test_weights_that_a_strategy_makes_hold_for_whole_changes_and_scales_too(llama, pair, strategy, options, share):
    full = make_adapter(llama, method="full", seed=2, scale=0.02)
    ia3 = [make_adapter(llama, method="peft:ia3", seed=seed) for seed in (1, 2)]
    for some in ([pair[0], full], ia3):
        merged = merge(some, strategy=strategy, **options)
        assert gap(llama, merged, Blend(dict.fromkeys(some, share))) < 1e-5


MIXED = {
    "full": {"method": "full", "scale": 0.02},
    "dora": {"rank": 2, "use_dora": True},
    "biases": {"rank": 2, "bias": "all"},
    "a copy": {"rank": 2, "modules_to_save": ("lm_head",)},
    "tokens": {"rank": 2, "trainable_token_indices": (3, 7)},
    "an embedding": {"rank": 2, "target_modules": ("embed_tokens", "v_proj")},
    "ia3": {"method": "peft:ia3"},
    "loha": {"method": "peft:loha"},
    "boft": {"method": "peft:boft"},
    "ln_tuning": {"method": "peft:ln_tuning"},
}


@pytest.mark.parametrize("options", MIXED.values(), ids=MIXED)
def test_methods_mix_on_a_base(llama, pair, options):
    other = make_adapter(llama, seed=5, **options)
    assert gap(llama, merge([pair[0], other], [0.8, -0.6], base=llama), Blend({pair[0]: 0.8, other: -0.6})) < 1e-5


def test_lora_and_a_full_delta_need_no_base(base):
    lora, full = make_adapter(base, rank=3, seed=1), make_adapter(base, method="full", seed=2, scale=0.02)
    merged = merge([lora, full], [0.8, -0.6])
    assert merged.method == "full"
    assert gap(base, merged, Blend({lora: 0.8, full: -0.6})) < 1e-5


def test_biases_that_a_base_has_and_experts(llama):
    for model in (tiny_qwen(), tiny_moe()):
        here = Base(model)
        some = [make_adapter(here, method="full", seed=seed, scale=0.02) for seed in (1, 2)]
        assert gap(here, merge(some, [0.5, 0.5]), Blend(dict.fromkeys(some, 0.5))) < 1e-5


def test_dora_scales_its_base_and_not_the_other_adapters(llama):
    """In float64, from the definition: m / |W + s B A| (W + s B A) - W is what one DoRA adapter changes."""
    dora, lora = make_adapter(llama, rank=2, use_dora=True, seed=1), make_adapter(llama, rank=2, seed=2)
    merged = effects_of(llama.registry, merge([dora, lora], [0.5, 2.0], base=llama))
    site = next(one for one in llama.sites if one.name.endswith("0.mlp.up_proj"))
    part = {name.removeprefix(f"{site.name}."): one.double() for name, one in dora.tensors.items() if site.name in name}
    weight = site.weight.detach().double()
    changed = weight + 2.0 * part["lora_B.weight"] @ part["lora_A.weight"]
    magnitude = part["lora_magnitude_vector"] / changed.norm(dim=1)
    other = {
        name.removeprefix(f"{site.name}."): one.double() for name, one in lora.tensors.items() if site.name in name
    }
    right = 0.5 * (magnitude[:, None] * changed - weight) + 2.0 * 2.0 * other["lora_B.weight"] @ other["lora_A.weight"]
    torch.testing.assert_close(merged[site.name][0].delta.double(), right, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"rank": 2, "use_dora": True}, {"method": "peft:ia3"}], ids=["dora", "ia3"])
def test_a_bias_is_scaled_by_ia3_and_not_by_dora(options):
    here = Base(tiny_qwen())
    some = {make_adapter(here, seed=seed, **options): weight for seed, weight in ((1, 0.5), (2, -0.7))}
    assert gap(here, merge(Blend(some), base=here), Blend(some)) < 1e-5


def test_what_is_added_to_an_output_becomes_a_change_of_the_bias_where_there_is_one():
    exact = prepare(
        default_registry().merge_strategy("cat"), {}, weights=[2.0, 1.0], rank=None, seed=0, in_factors=False
    )
    added, changed = read([Bias(torch.ones(3))]), read([Dense(torch.ones(3), "bias")])
    (both,) = join("place", [added, changed], exact, lambda _: None).effects
    (alone,) = join("place", [added, None], exact, lambda _: None).effects
    assert isinstance(both, Dense)
    assert both.delta.tolist() == [3.0] * 3
    assert isinstance(alone, Bias)
    assert alone.vector.tolist() == [2.0] * 3


@pytest.mark.parametrize("on_base", [False, True])
def test_ia3_is_a_scale_alone_and_a_change_of_weights_on_its_base(llama, on_base):
    some = {make_adapter(llama, method="peft:ia3", seed=seed): weight for seed, weight in ((1, 0.5), (2, -0.7))}
    merged = merge(Blend(some), base=llama if on_base else None)
    assert merged.method == ("full" if on_base else "peft:ia3")
    assert gap(llama, merged, Blend(some)) < 1e-5


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning"])
def test_virtual_tokens_stand_one_after_another(llama, method):
    first, second = (make_adapter(llama, method=method, tokens=count, seed=count, scale=1.0) for count in (3, 2))
    merged = merge([first, second])
    assert gap(llama, merged, Stack(first, second)) < 1e-5
    assert merged != merge([second, first])


def test_linear_adds_up_equally_many_virtual_tokens(llama):
    first, second = (make_adapter(llama, method="prompt_tuning", tokens=3, seed=seed) for seed in (1, 2))
    merged = merge([first, second], [0.25, 0.75], "linear")
    (one,), (other,), (made,) = (adapter.tensors.values() for adapter in (first, second, merged))
    torch.testing.assert_close(made, 0.25 * one + 0.75 * other)


def test_rows_of_different_tokens_stand_beside_each_other(llama):
    first, second = (
        make_adapter(llama, rank=2, trainable_token_indices=tokens, seed=tokens[0]) for tokens in ((3, 5), (1, 9, 11))
    )
    assert gap(llama, merge([first, second]), Stack(first, second)) < 1e-5


# -- where a head shares the weight of its embedding ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def tied():
    return Base(tiny_llama(tied=True))


def test_two_full_deltas_of_tied_weights(tied):
    some = {make_adapter(tied, method="full", seed=seed, scale=0.02): 0.5 for seed in (1, 2)}
    for here in (None, tied):
        merged = merge(Blend(some), base=here)
        assert gap(tied, merged, Blend(some)) < 1e-5
        assert not any(name.startswith("lm_head") for name in merged.tensors)


def test_tied_weights_that_are_changed_in_one_place_by_one_adapter_and_in_both_by_another(tied):
    lora = make_adapter(tied, rank=2, seed=1, target_modules=("embed_tokens", "q_proj"))
    full = make_adapter(tied, method="full", seed=2, scale=0.02, target_modules=("embed_tokens", "q_proj"))
    with pytest.raises(SelectionError, match=r"whether a head shares the weight of 'model.embed_tokens'.*give base="):
        merge([lora, full])
    with pytest.raises(SelectionError, match="no method has an adapter"):
        merge([lora, full], base=tied)  # full would change the head as well
    only_rank = merge([lora, full], base=tied, rank=32)  # 32 is all that the weights have
    assert only_rank.method == "lora"
    assert gap(tied, only_rank, Stack(lora, full)) < 1e-4


def test_an_update_that_was_full_at_both_places_stays_at_both(tied):
    full = make_adapter(tied, method="full", seed=2, scale=0.02, target_modules=("embed_tokens",))
    merged = merge(full, rank=32, base=tied)
    assert {name.partition(".lora")[0] for name in merged.tensors} == {"model.embed_tokens", "lm_head"}
    assert gap(tied, merged, full) < 1e-4


# -- rank -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["cat", "svd", "linear"])
def test_a_lower_rank_is_the_best_one_and_says_what_it_lost(llama, pair, strategy):
    merged = merge(pair, [0.7, -0.3], strategy, rank=3)
    sums = [effects_of(llama.registry, one) for one in pair]
    made = effects_of(llama.registry, merged)
    lost, total, largest = 0.0, 0.0, 0.0
    for site, (update,) in made.items():
        whole = sum(w * one[site][0].delta().double() for w, one in zip([0.7, -0.3], sums, strict=True))
        values = torch.linalg.svdvals(whole)
        assert update.rank == 3
        error = torch.linalg.norm(whole - update.delta().double())
        torch.testing.assert_close(error, torch.linalg.norm(values[3:]), rtol=1e-4, atol=1e-6)
        lost, total = lost + float(error**2), total + float((values**2).sum())
        largest = max(largest, float(error / torch.linalg.norm(values)))
    said = merged.manifest.lineage["lost"]
    assert said["overall"] == pytest.approx((lost / total) ** 0.5, rel=1e-2)
    assert said["largest"] == pytest.approx(largest, rel=1e-2)
    assert said["site"] in made


def test_svd_drops_directions_that_are_there_twice(llama, pair):
    twice = merge([merge(pair), pair[0]], [1.0, 0.5], "svd")
    assert {one.rank for (one,) in effects_of(llama.registry, twice).values()} == {6}
    assert {one.rank for (one,) in effects_of(llama.registry, merge([merge(pair), pair[0]])).values()} == {10}


def test_a_result_of_low_rank_parents_is_cut_to_the_sum_of_their_ranks(llama, pair):
    merged = merge(pair, strategy="ties", density=0.5)
    assert {one.rank for (one,) in effects_of(llama.registry, merged).values()} == {6}
    assert 0.0 < merged.manifest.lineage["lost"]["overall"] < 1.0


def test_a_full_delta_becomes_lora_with_a_rank(llama):
    full = make_adapter(llama, method="full", seed=1, scale=0.02, target_modules=("layers.0.mlp",))
    merged = merge(full, rank=32)
    assert merged.method == "lora"
    assert gap(llama, merged, full) < 1e-5
    assert merge(full, rank=4).manifest.lineage["lost"]["overall"] > 0.1


def test_a_sum_of_nothing_is_an_adapter_that_does_nothing(llama, pair):
    twin = attrs.evolve(pair[0], manifest=Manifest())
    for strategy in ("cat", "svd"):
        nothing = merge([pair[0], twin], [1.0, -1.0], strategy)
        torch.testing.assert_close(llama.logits(IDS, adapter=nothing), llama.logits(IDS))


def test_the_randomised_svd_is_close_to_the_best():
    stream = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 1100, generator=stream, dtype=torch.float64)).Q for n in (1200, 1100))
    values = 1.0 / torch.arange(1, 1101).double() ** 0.5  # falls slowly, as those of real deltas do
    whole = ((left * values) @ right.T).float()
    best = float(torch.linalg.norm(values[16:]))
    assert distance(whole, cut_dense(whole, 16), norm(whole)) == pytest.approx(best, rel=2e-3)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**31))
def test_cutting_factors_is_the_svd_of_their_product(rank, wanted, seed):
    stream = torch.Generator().manual_seed(seed)
    update = LowRank(torch.randn(rank, 7, generator=stream), torch.randn(6, rank, generator=stream), -1.5)
    made = update.cut(wanted)
    values = torch.linalg.svdvals(update.delta().double())
    assert made.rank == min(rank, wanted)
    assert distance(update, made, norm(update)) == pytest.approx(float(torch.linalg.norm(values[wanted:])), abs=1e-5)
    assert norm(update) == pytest.approx(float(torch.linalg.norm(values)))


# -- lineage, bytes, memory -----------------------------------------------------------------------------------------------


def test_the_manifest_says_what_it_was_made_of(llama, pair, tmp_path):
    merged = merge(pair, [0.7, -0.3], "ties", density=0.5, seed=4, rank=3)
    folder = merged.save(tmp_path / "merged")
    said = Adapter.load(folder).manifest
    assert said.base == llama.reference
    lineage = dict(said.lineage)
    lost = lineage.pop("lost")
    assert set(lost) == {"overall", "largest", "site"}
    assert lineage.pop("options")["density"] == 0.5
    assert lineage == {
        "kind": "merge",
        "strategy": "ties",
        "weights": [0.7, -0.3],
        "rank": 3,
        "seed": 4,
        "parents": [
            {"digest": one.digest, "method": "lora", "weight": weight, "base": llama.reference.fingerprint}
            for one, weight in zip(pair, [0.7, -0.3], strict=True)
        ],
    }


AGAIN = """
import sys
from adapterkit import Adapter, merge
parents = [Adapter.load(one) for one in sys.argv[1:3]]
for strategy in ("svd", "dare_ties"):
    merge(parents, [0.7, -0.3], strategy, rank=3, seed=5).save(f"{sys.argv[3]}/{strategy}")
assert not {"transformers", "peft"} & set(sys.modules), "merging needs no model library"
"""


def test_the_same_bytes_in_two_processes_and_no_model_library(pair, tmp_path):
    folders = [one.save(tmp_path / str(number)) for number, one in enumerate(pair)]
    subprocess.run([sys.executable, "-c", AGAIN, *folders, tmp_path / "other"], check=True)
    for strategy in ("svd", "dare_ties"):
        mine = merge(pair, [0.7, -0.3], strategy, rank=3, seed=5).save(tmp_path / strategy)
        assert on_disk(mine) == on_disk(tmp_path / "other" / strategy)


def test_a_bar_is_shown_on_a_terminal_alone(pair, monkeypatch, capsys):
    merge(pair)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    merged = merge(pair)
    out, err = capsys.readouterr()
    assert (out, "merging" in err) == ("", True)
    assert merged == merge(pair)


def test_no_base_is_made(pair, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a base was made")

    monkeypatch.setattr(SharedModel, "__init__", refuse)
    merge(pair, strategy="dare_ties")


def test_a_seed_repeats_and_a_site_does_not_depend_on_the_others(llama, pair):
    few = [make_adapter(llama, rank=2, seed=seed, target_modules=("q_proj",)) for seed in (1, 2)]
    assert merge(pair, strategy="dare_linear", seed=1) == merge(pair, strategy="dare_linear", seed=1)
    assert merge(pair, strategy="dare_linear", seed=1) != merge(pair, strategy="dare_linear", seed=2)
    alone = merge(few, strategy="dare_linear", seed=1)
    more = merge(
        [*few, make_adapter(llama, rank=2, seed=3, target_modules=("v_proj",))], strategy="dare_linear", seed=1
    )
    assert alone.tensors.keys() < more.tensors.keys()
    assert all(torch.equal(one, more.tensors[name]) for name, one in alone.tensors.items())


def test_the_base_is_not_changed_and_holds_nothing_new(llama):
    some = [make_adapter(llama, rank=2, use_dora=True, seed=seed) for seed in (31, 32)]
    before, resident = {k: v.clone() for k, v in llama.model.state_dict().items()}, llama.resident
    merge(some, base=llama)
    assert llama.resident == resident
    assert all(torch.equal(one, before[name]) for name, one in llama.model.state_dict().items())


def test_one_site_at_a_time(llama, monkeypatch):
    """Lowered all at once, DoRA's changes would take as much memory as the base in float32."""
    at_once = []
    monkeypatch.setattr(acting, "lower", lambda *given: at_once.append(len(given[2])) or lower(*given))
    merge(make_adapter(llama, rank=2, use_dora=True, seed=1), base=llama)
    assert at_once == [1] * 14


def test_the_name_is_the_function_whatever_was_imported():
    importlib.import_module("adapterkit.merging.engine")
    importlib.reload(sys.modules["adapterkit.merging"])
    assert callable(adapterkit.merge)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("adapterkit.merge")
