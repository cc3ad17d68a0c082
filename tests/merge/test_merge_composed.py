"""Merging what composes is composing it: over ranks, weights, targets and methods."""

import json

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from adapterkit import (
    Base,
    Blend,
    merge,
)
from adapterkit.effects import Dense
from adapterkit.resident import effects_of
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.merge.asking import EXACT, IDS, gap
from tests.support import make_adapter

WEIGHTS = st.floats(-2.0, 2.0).filter(lambda one: abs(one) > 0.05)
PLACES = {"gpt2": ("c_attn", "c_fc", "wte"), "llama": ("q_proj", "down_proj", "embed_tokens")}
KINDS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "tokens": {"trainable_token_indices": (3, 9)},
    "biases": {"bias": "all"},
    "full": {"method": "full"},
}


@pytest.fixture(scope="module")
def untied():
    """Where a head shares its embedding's weight, some sums are no single adapter's: see above."""
    return {"llama": Base(tiny_llama()), "gpt2": Base(tiny_gpt2(tie_word_embeddings=False))}


@st.composite
def parent(draw):
    kind = draw(st.sampled_from(sorted(KINDS)))
    where = draw(st.sets(st.integers(0, 1 if kind in ("dora", "tokens") else 2), min_size=1))
    return kind, draw(st.integers(1, 6)), draw(st.sampled_from([0.5, 2.0, 7.0])), where, draw(WEIGHTS)


def made(base, family, number, kind, rank, alpha, where):
    if kind == "full":
        return make_adapter(base, method="full", seed=number, scale=0.01)
    targets = tuple(PLACES[family][place] for place in sorted(where))
    return make_adapter(base, seed=number, rank=rank, alpha=alpha, target_modules=targets, scale=0.1, **KINDS[kind])


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.sampled_from(sorted(PLACES)), st.sampled_from(EXACT), st.lists(parent(), min_size=1, max_size=3))
def test_merging_what_composes_is_composing_it(untied, family, strategy, parents):
    here = untied[family]
    some = {made(here, family, number, *one[:-1]): one[-1] for number, one in enumerate(parents)}
    blend = Blend(some)
    merged = merge(blend, strategy=strategy, base=here)
    right, mine = (here.logits(IDS, adapter=one) for one in (blend, merged))
    assert float((mine - right).abs().max()) < 1e-5 * max(1.0, float(right.abs().max()))
    for one in {*some, merged}:
        here.unload(one)


def test_json_holds_the_lineage(pair):
    json.dumps(merge(pair, strategy="dare_ties").manifest.lineage, allow_nan=False)


def test_effects_are_what_the_kinds_are(llama, pair):
    full = make_adapter(llama, method="full", seed=1, scale=0.02)
    made = effects_of(llama.registry, merge([pair[0], full]))
    assert all(isinstance(one, Dense) for here in made.values() for one in here)


def test_a_small_gpt2_alone(pair):
    here = Base(tiny_gpt2())
    full = make_adapter(here, method="full", seed=3, scale=0.02)
    assert gap(here, merge(full, [0.5]), Blend({full: 0.5})) < 1e-5
