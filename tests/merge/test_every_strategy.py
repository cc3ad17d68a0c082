"""What holds for every merge strategy: what it leaves alone, what it refuses, and how it is asked."""

import inspect
import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings

from adapterkit import Base, ConfigError
from adapterkit.merging import merge
from adapterkit.registry import default_registry
from adapterkit.testing import tiny_llama
from adapterkit_merges import consensus, products, pruning, sce
from tests.merge.asking import NAMES, RANDOM, SIGNED, WHOLE, ask, changes, close, fitting, low_rank, parameters, random
from tests.support import make_adapter


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(RANDOM) - {"slerp"}))
@given(given=changes(least=2))
@settings(deadline=None, max_examples=15)
def test_the_order_of_adapters_does_not_matter(name, given):
    deltas = [delta + 0.001 * random(*delta.shape, seed=number) for number, delta in enumerate(given[0])]
    assume(name != "karcher" or deltas[0].numel() > 1)  # of one number there are two directions, straight opposite
    weights = [1.0] * len(deltas) if name in ("model_stock", "sce") else [1.0 + number for number in range(len(deltas))]
    wanted = ask(name, deltas, weights)
    close(ask(name, deltas[::-1], weights[::-1]), wanted, 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_weights_count_by_their_proportion_or_by_their_size(name):
    deltas = [random(4, 6), random(4, 6, seed=1)]
    once, twice = ask(name, deltas, [0.5, 0.5]), ask(name, deltas, [1.0, 1.0])
    means = {"soup", "slerp", "karcher", "model_stock", "sce", "knots", "core_space", *SIGNED}
    close(twice, once if name in means else 2 * once, 1e-5)
    if name in {*SIGNED, "knots", "core_space"}:
        close(
            ask(name, deltas, [1.0, 1.0], normalize="none"), 2 * ask(name, deltas, [0.5, 0.5], normalize="none"), 1e-5
        )


@pytest.mark.parametrize(
    "name",
    sorted({*SIGNED, "magnitude_prune", "breadcrumbs", "dare_linear", "della_linear", "knots", "core_space", "sce"}),
)
def test_one_adapter_of_which_nothing_is_pruned_is_itself(name):
    delta = random(4, 6)
    close(ask(name, [delta], **fitting(name, WHOLE)), delta)
    if name != "sce":
        close(ask(name, [delta], [-1.0], **fitting(name, WHOLE)), -delta)


@pytest.mark.parametrize("name", ["soup", "slerp", "karcher", "model_stock", "sce", "knots", "core_space", *SIGNED])
def test_adapters_that_are_the_same_merge_into_themselves(name):
    delta = random(4, 6)
    close(ask(name, [delta, delta.clone()], **fitting(name, WHOLE)), delta)


@pytest.mark.parametrize("name", ["dare_linear", "della_linear"])
def test_what_is_dropped_by_chance_is_made_up_for_in_the_mean(name):
    stream = torch.Generator().manual_seed(0)
    function = default_registry().merge_strategy(name).merge
    delta, rounds = random(3, 4), 4000
    drawn = torch.stack([function([delta], [1.0], generator=stream, density=0.4) for _ in range(rounds)])
    error = delta.abs() / 0.25**0.5 / rounds**0.5  # of the mean, where a chance is 0.25 at least
    assert bool(((drawn.mean(dim=0) - delta).abs() < 5 * error).all())
    close(function([delta], [1.0], generator=stream, density=0.4, rescale="l1").abs().sum(), delta.abs().sum())


@pytest.mark.parametrize("name", RANDOM)
def test_the_seed_decides_what_is_dropped(name):
    deltas = [random(8, 8), random(8, 8, seed=1)]
    assert torch.equal(ask(name, deltas, seed=1), ask(name, deltas, seed=1))
    assert not torch.equal(ask(name, deltas, seed=1), ask(name, deltas, seed=2))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ask(name, deltas)
    assert torch.equal(torch.get_rng_state(), before)


HARD = {
    "zeros": lambda: [torch.zeros(4, 6), torch.zeros(4, 6)],
    "one zero": lambda: [random(4, 6), torch.zeros(4, 6)],
    "same": lambda: [random(4, 6), random(4, 6)],
    "opposite": lambda: [random(4, 6), -random(4, 6)],
    "orthogonal": lambda: [torch.eye(4, 6), torch.eye(4, 6).roll(2, dims=1)],
    "tiny": lambda: [1e-20 * random(4, 6), 1e-20 * random(4, 6, seed=1)],
    "one column": lambda: [random(4, 1), random(4, 1, seed=1)],
    "one value": lambda: [random(1, 1), random(1, 1, seed=1)],
    "all alike": lambda: [torch.ones(4, 6), -torch.ones(4, 6)],
}
SHAPES = {"bias": (6,), "experts": (3, 4, 5), "empty": (0, 4)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hard", HARD)
def test_nothing_makes_numbers_that_are_none(name, hard):
    deltas = HARD[hard]()
    for weights in ([1.0, 1.0], [0.5, 0.5]):
        merged = ask(name, deltas, weights)
        assert merged.shape == deltas[0].shape
        assert bool(torch.isfinite(merged).all())
        assert bool((merged == 0).all()) or hard != "zeros"


@pytest.mark.parametrize("name", [name for name in NAMES if parameters(name)[0] == "deltas"])
@pytest.mark.parametrize("shape", SHAPES)
def test_whole_changes_may_have_any_shape(name, shape):
    deltas = [random(*SHAPES[shape]), random(*SHAPES[shape], seed=1)]
    merged = ask(name, deltas, **fitting(name, {"filter_wise": True}))
    assert merged.shape == deltas[0].shape
    assert bool(torch.isfinite(merged).all())


@pytest.mark.parametrize("name", NAMES)
def test_parents_stay_as_they_were(name):
    deltas = [random(4, 6), random(4, 6, seed=1)]
    before = [delta.clone() for delta in deltas]
    for options in ({}, WHOLE):
        ask(name, deltas, **fitting(name, options))
    assert all(map(torch.equal, deltas, before))


@pytest.mark.parametrize("name", NAMES)
def test_large_weights_are_merged_part_by_part(monkeypatch, name):
    deltas, base = [random(7, 11), random(7, 11, seed=1)], random(7, 11, seed=2)
    asked = [{}, *([{"filter_wise": True}] if name == "model_stock" else [])]
    asked += [{"of": "weights", "base": base}] if "of" in parameters(name) else []
    asked += [{"select_topk": 0.5}] if name == "sce" else []
    whole = [ask(name, deltas, **options) for options in asked]
    for module in (consensus, products, pruning, sce):
        monkeypatch.setattr(module, "AT_ONCE", 22)
    for options, wanted in zip(asked, whole, strict=True):
        close(ask(name, deltas, **options), wanted)


# -- what is refused --------------------------------------------------------------------------------------------------------

WRONG = [
    *((name, {"density": value}, "density: must be above 0") for name in NAMES for value in (0.0, -1.0, 1.5, math.nan)),
    *(
        (name, {"scaling": value}, "scaling: must be a number of at most")
        for name in NAMES
        for value in (math.nan, math.inf)
    ),
    *(
        (name, {option: "most"}, f"{option}: must be '")
        for name in NAMES
        for option in ("majority_sign_method", "vote", "normalize", "rescale", "inside", "of")
    ),
    *((name, {"gamma": value}, "gamma: must be at least 0") for name in NAMES for value in (-0.1, 1.0)),
    *(
        (name, {"density": 0.95, "gamma": 0.2}, "gamma: with a density of 0.95 no more than 0.05")
        for name in ("breadcrumbs", "breadcrumbs_ties")
    ),
    *(
        (name, {"density": density, "epsilon": epsilon}, "epsilon: with a density")
        for name in ("della", "della_linear")
        for density, epsilon in ((0.1, 0.1), (0.9, 0.2))
    ),
    *((name, {"epsilon": -0.1}, "epsilon: must be at least 0") for name in ("della", "della_linear")),
    ("slerp", {"t": 1.5}, "t: must be at least 0 and at most 1"),
    *((name, {"of": "weights"}, "of: 'weights' needs the base") for name in ("slerp", "karcher")),
    ("sce", {"select_topk": 0.0}, "select_topk: must be above 0"),
    ("karcher", {"iterations": 0}, "iterations: must be at least 1"),
]


@pytest.mark.parametrize(
    ("name", "options", "message"), [one for one in WRONG if set(one[1]) <= set(parameters(one[0]))]
)
def test_an_option_that_does_not_fit_is_refused_by_name(name, options, message):
    with pytest.raises(ConfigError, match=f"(?s){name!r} do not fit.*{message}"):
        ask(name, [random(4, 6), random(4, 6, seed=1)], **options)


@pytest.mark.parametrize(
    ("name", "number", "weights", "options", "message"),
    [
        ("slerp", 3, [1.0, 1.0, 1.0], {}, "exactly two, not 3"),
        ("slerp", 1, [1.0], {}, "exactly two, not 1"),
        ("slerp", 2, [0.7, 0.3], {"t": 0.3}, "t: says how much each counts, and so do the weights"),
        ("slerp", 2, [2.0, -1.0], {}, "weights: must not be negative"),
        ("slerp", 2, [1.0, -1.0], {}, "weights: a mean needs"),
        ("karcher", 2, [2.0, -1.0], {}, "weights: must not be negative"),
        ("model_stock", 1, [1.0], {}, "an angle needs two or more"),
        ("model_stock", 2, [0.7, 0.3], {}, "weights: angles say how much each counts"),
        ("model_stock", 2, [-1.0, -1.0], {}, "weights: angles say"),
        ("sce", 2, [0.7, 0.3], {}, "weights: sizes say how much each counts"),
        ("soup", 2, [1.0, -1.0], {}, "weights: a mean needs weights whose sum is not 0"),
    ],
)
def test_adapters_and_weights_that_do_not_fit_are_refused(name, number, weights, options, message):
    with pytest.raises(ConfigError, match=message):
        ask(name, [random(4, 6, seed=seed) for seed in range(number)], weights, **options)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        ask("ties", [random(4, 6)], density=0.0, vote="most", scaling=math.inf)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["density", "scaling", "vote"]


# -- as plugins -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    base = Base(tiny_llama())
    return base, [
        make_adapter(base, seed=seed, rank=rank, target_modules=["q_proj", "down_proj"])
        for seed, rank in ((1, 2), (2, 3))
    ]


@pytest.mark.parametrize("name", NAMES)
def test_adapters_are_merged_by_it(pair, name):
    _, adapters = pair
    merged = merge(adapters, strategy=name)
    assert merged.manifest.lineage["strategy"] == name
    assert all(bool(torch.isfinite(one).all()) for one in merged.tensors.values())
    assert merged == merge(adapters, strategy=name)


def test_whole_weights_are_turned_with_the_base(pair):
    base, adapters = pair
    assert merge(adapters, strategy="slerp", base=base, of="weights").digest != merge(adapters, strategy="slerp").digest
    with pytest.raises(ConfigError, match="needs the base"):
        merge(adapters, strategy="slerp", of="weights")


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_says_what_it_does(name):
    record = default_registry().merge_strategy(name)
    assert 20 <= len(record.summary) <= 110
    assert record.summary[-1] not in ".:"
    documented = inspect.getdoc(record.merge)
    for option in parameters(name):
        assert name in ("cat", "svd", "linear") or f"\n    {option}: " in documented


def test_no_two_strategies_are_the_same():
    updates = [low_rank(0, 3), low_rank(10, 2)]
    deltas = [update.delta() for update in updates]
    made = {name: ask(name, updates if parameters(name)[0] == "updates" else deltas) for name in NAMES}
    sums = {"cat", "linear", "svd", "task_arithmetic"}
    for one, other in itertools.combinations(NAMES, 2):
        assert torch.allclose(made[one], made[other], atol=1e-4) == ({one, other} <= sums), (one, other)
