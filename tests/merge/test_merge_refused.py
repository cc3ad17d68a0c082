"""What cannot be merged, and is refused by a message that names what is wrong."""

import re
from pathlib import Path

import attrs
import numpy as np
import pytest

from adapterkit import (
    Adapter,
    ArtifactError,
    Base,
    Blend,
    ConfigError,
    SelectionError,
    merge,
)
from adapterkit.artifact.manifest import BaseReference, Manifest
from adapterkit.registry import default_registry
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.merge.asking import gap
from tests.support import make_adapter


def test_everything_that_is_wrong_is_said_at_once(llama, pair):
    other = make_adapter(Base(tiny_llama(seed=7)), rank=2, seed=1)
    with pytest.raises(ConfigError) as caught:
        merge([*pair, other], [1.0, 2.0, 3.0], "tise", rank=0, seed=1.5, space="up")
    said = str(caught.value)
    for part in ("another base", "rank: must be", "seed: must be", "space: must be", "did you mean 'ties'"):
        assert part in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "there are none to merge"),
        (({},), "a list of adapters, or Blend"),
        ((7,), "an Adapter, a Stack or a Blend acts, not 7"),
        ((["cards"],), "not 'cards'; it may lie there: Adapter.load"),
        (([Path("out/cards")],), "it may lie there: Adapter.load"),
        (("pair", 0.5), "1 for 2 adapters"),
        (("pair", [0.0, -0.0]), "all are 0"),
        (("pair", [1.0]), "1 for 2 adapters"),
        (("pair", [1.0, float("nan")]), "nan is no finite number"),
        (("pair", [float("inf"), 1.0]), "inf is no finite number"),
        (("pair", [True, 1.0]), "True is no finite number"),
        (("twice",), "is there twice"),
    ],
)
def test_adapters_and_weights_that_make_no_sense(pair, arguments, message):
    known = {"pair": pair, "twice": [pair[0], pair[0]]}
    first = known[arguments[0]] if isinstance(arguments[0], str) else arguments[0]
    with pytest.raises(ConfigError, match=message):
        merge(first, *arguments[1:])


def test_adapters_go_into_a_list(pair):
    with pytest.raises(ConfigError, match=r"go into a list: merge\(\[cards, tone\]\)"):
        merge(*pair)


def test_a_path_alone_is_one_path():
    with pytest.raises(ConfigError) as caught:
        merge("out/cards")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, "density.*above 0"),
        ({"density": 1.5}, "density"),
        ({"density": "half"}, "density: must be a number, not 'half'"),
        ({"densty": 0.5}, "densty: strategy 'ties' has no such option; did you mean 'density'"),
        ({"gamma": 0.1}, "gamma: strategy 'ties' has no such option; it is one of breadcrumbs, breadcrumbs_ties"),
        ({"majority_sign_method": "most"}, "majority_sign_method"),
        ({"space": "factor"}, "space: must be 'weights' or 'factors'"),
    ],
)
def test_options_that_make_no_sense(pair, options, message):
    with pytest.raises(ConfigError, match=message):
        merge(pair, strategy="ties", **options)


def test_a_rank_over_the_limit_names_the_sites(pair):
    with pytest.raises(
        SelectionError, match=r"'model.layers.0.self_attn.k_proj'.*rank=20 is over its limit.*\(16, 32\) has 16"
    ):
        merge(pair, rank=20)


def test_other_shapes_at_a_site(llama, pair):
    other = make_adapter(Base(tiny_llama(intermediate_size=40)), rank=2, seed=1)
    unknown = attrs.evolve(other, manifest=Manifest())
    with pytest.raises(
        SelectionError, match=r"up_proj.*changes a weight \(48, 32\).*one \(40, 32\): their bases differ"
    ):
        merge([pair[0], unknown])


def test_bases_that_nobody_has_proven_to_be_one(llama, pair):
    gpt2 = Base(tiny_gpt2())

    def said(adapter, name):
        return attrs.evolve(adapter, manifest=Manifest(base=BaseReference(name=name)))

    mine, other = said(pair[0], "meta/llama"), said(make_adapter(gpt2, rank=2, seed=1), "openai/gpt2")
    with pytest.raises(
        ConfigError, match=r"'meta/llama' and .* 'openai/gpt2', and they have no layer in common.*give base="
    ):
        merge([mine, other])
    merge([mine, said(pair[1], "models/other")])  # the same layers: a copy of the base, as far as anybody knows
    elsewhere = make_adapter(llama, rank=2, seed=3, target_modules=("up_proj",))
    attention = make_adapter(llama, rank=2, seed=4, target_modules=("q_proj",))
    merge([said(attention, "meta/llama"), said(elsewhere, "/models/llama")])
    with pytest.raises(ConfigError, match="no layer in common"):
        merge([said(attention, "meta/llama"), said(elsewhere, "here")])
    merge([said(attention, "meta/llama"), said(elsewhere, "here")], base=llama)


@pytest.mark.parametrize("strategy", [one.name for one in default_registry().merge_strategies()])
def test_numbers_that_are_not_finite_or_too_large_are_refused(pair, strategy):
    name = next(iter(pair[0].tensors))

    def altered(change):
        return attrs.evolve(pair[0], tensors={**pair[0].tensors, name: change(pair[0].tensors[name])})

    for wrong in (altered(lambda one: one * float("nan")), altered(lambda one: one + float("inf"))):
        with pytest.raises(SelectionError, match="not finite or too large"):
            merge([wrong, pair[1]], strategy=strategy)
    overflows = attrs.evolve(pair[0], tensors={key: one * 1e30 for key, one in pair[0].tensors.items()})
    with pytest.raises(SelectionError, match="not finite or too large"):
        merge([overflows, pair[1]], strategy=strategy)
    with pytest.raises(SelectionError, match=r"with the weight 1e\+30, holds numbers that are not finite or too large"):
        merge(
            [attrs.evolve(pair[0], tensors={key: one * 1e5 for key, one in pair[0].tensors.items()}), pair[1]],
            [1e30, 1.0],
        )
    with pytest.raises(ConfigError, match=r"weights: 1e\+300 is more than 1e\+30"):
        merge(pair, [1e300, 1.0], strategy)


def test_numbers_of_numpy_are_weights(pair):
    assert merge(pair, np.float32([0.5, 2.0])) == merge(pair, [0.5, 2.0])
    with pytest.raises(ConfigError, match="is no finite number"):
        merge(pair, [10**400, 1])


def test_a_base_is_loaded_before_it_is_given(pair):
    with pytest.raises(ConfigError, match=r"base: a loaded one: Base\('some/folder'\)"):
        merge(pair, base="some/folder")


def test_a_result_of_another_method_is_said(llama, caplog):
    dora = [make_adapter(llama, rank=2, seed=seed, use_dora=True, target_modules=("q_proj",)) for seed in (1, 2)]
    assert merge(dora, base=llama).method == "full"
    assert "of method 'full', which no parent is of; a rank= may keep it low-rank" in caplog.text
    caplog.clear()
    assert merge(dora, base=llama, rank=8).method == "lora"
    assert "which no parent is of" not in caplog.text


def test_what_was_cut_off_is_said_where_it_is_much(pair, caplog):
    merge(pair, strategy="dare_linear", density=0.2)
    (said,) = [one.getMessage() for one in caplog.records]
    assert re.fullmatch(r"\d\d% of what strategy 'dare_linear' made .* a higher rank= keeps more", said)
    caplog.clear()
    merge(pair, strategy="svd")
    assert not caplog.records


def test_another_base_than_the_one_that_is_given(pair):
    with pytest.raises(ConfigError, match="another base than the base that is given"):
        merge(pair, base=Base(tiny_llama(seed=7)))


def test_an_adapter_that_knows_no_base_is_taken_and_gets_the_others(llama, pair):
    unknown = attrs.evolve(pair[1], manifest=Manifest(base=BaseReference(name="somewhere")))
    assert merge([unknown, pair[0]]).manifest.base == llama.reference


NEED_BASE = {
    "dora": {"rank": 2, "use_dora": True},
    "a copy": {"rank": 2, "modules_to_save": ("lm_head",)},
    "ia3": {"method": "peft:ia3"},
}


@pytest.mark.parametrize("options", NEED_BASE.values(), ids=NEED_BASE)
def test_what_depends_on_the_base_asks_for_it(llama, pair, options):
    with pytest.raises(SelectionError, match="give base="):
        merge([pair[0], make_adapter(llama, seed=5, **options)])


def test_all_that_depend_on_the_base_are_named(llama):
    some = [make_adapter(llama, rank=2, use_dora=True, seed=seed) for seed in (1, 2)]
    with pytest.raises(SelectionError) as caught:
        merge(some)
    assert all(one.digest[:12] in str(caught.value) for one in some)


@pytest.mark.parametrize("model", [tiny_llama(intermediate_size=40), tiny_gpt2()], ids=["other shapes", "other names"])
def test_an_adapter_that_does_not_fit_the_base_is_named(llama, pair, model):
    unknown = attrs.evolve(make_adapter(Base(model), rank=2, seed=1), manifest=Manifest())
    with pytest.raises(ArtifactError, match=f"the lora adapter {unknown.digest[:12]} does not fit the base"):
        merge([pair[0], unknown], base=llama)


def test_rows_of_the_same_token_or_weighted_ask_for_the_base(llama):
    some = [make_adapter(llama, rank=2, trainable_token_indices=(3, 5), seed=seed) for seed in (1, 2)]
    with pytest.raises(SelectionError, match="give base="):
        merge(some)
    with pytest.raises(SelectionError, match="give base="):
        merge(some[0], [0.5])
    assert gap(llama, merge(some, [0.5, 0.4], base=llama), Blend(dict(zip(some, [0.5, 0.4], strict=True)))) < 1e-5


def test_a_scale_needs_a_weighted_sum(llama):
    some = [make_adapter(llama, method="peft:ia3", seed=seed) for seed in (1, 2)]
    with pytest.raises(SelectionError, match=r"'ties' merges changes of weights.*Scale: give base="):
        merge(some, strategy="ties")


@pytest.mark.parametrize(
    ("kinds", "weights", "strategy", "message"),
    [
        (("prompt_tuning", "lora"), None, "cat", "what 'prompt_tuning' trains stands before the sequence.*Stack"),
        (("prompt_tuning", "prefix_tuning"), None, "cat", "PrefixKV and Tokens do not go together.*Stack"),
        (("prompt_tuning", "prompt_tuning"), [0.5, 1.0], "cat", "their weight is 1, and not 0.5"),
        (("prompt_tuning", "prompt_tuning"), None, "linear", "equally many of each: use them together as a Stack"),
        (("prompt_tuning", "prompt_tuning"), None, "ties", "acts by Tokens: use them together as a Stack"),
    ],
)
def test_virtual_tokens_that_do_not_merge(llama, kinds, weights, strategy, message):
    options = [{"tokens": 3 - place} if kind != "lora" else {"rank": 2} for place, kind in enumerate(kinds)]
    some = [
        make_adapter(llama, method=kind, seed=place, **own)
        for place, (kind, own) in enumerate(zip(kinds, options, strict=True))
    ]
    with pytest.raises(SelectionError, match=message):
        merge(some, weights, strategy)


def test_a_strategy_of_updates_refuses_whole_changes(llama, pair):
    full = make_adapter(llama, method="full", seed=1, scale=0.02)
    with pytest.raises(
        SelectionError, match=r"'lm_head'.* and \d+ more: the full adapter .* 'knots' takes those alone"
    ):
        merge([pair[0], full], strategy="knots")


def test_a_tampered_parent_is_refused_before_it_is_merged(pair, tmp_path):
    folder = pair[0].save(tmp_path / "parent")
    file = folder / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError):
        Adapter.load(folder)


def test_space_factors_needs_equal_ranks_and_a_strategy_of_whole_changes(llama, pair):
    with pytest.raises(SelectionError, match="space='factors' is for equal ranks"):
        merge(pair, strategy="linear", space="factors")
    with pytest.raises(ConfigError, match="takes both factors together"):
        merge(pair, strategy="cat", space="factors")
    full = make_adapter(llama, method="full", seed=1, scale=0.02)
    with pytest.raises(SelectionError, match="all of low rank"):
        merge([pair[0], full], strategy="linear", space="factors")
