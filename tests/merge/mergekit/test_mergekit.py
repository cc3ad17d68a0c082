"""What strategies make of changes is what mergekit makes of whole models: LGPL software that is run here, not read in."""

import inspect

import attrs
import pytest
import torch
from safetensors import safe_open

from adapterkit import LowRank
from adapterkit.registry import default_registry
from tests.merge.mergekit.cases import CASES, NEGATIVE, SEED, VERSION, WEIGHTS
from tests.merge.mergekit.make import FIXTURE, NoIndexError, merged

NAMES = [case.name for case in CASES]


@pytest.fixture(scope="module")
def theirs():
    with safe_open(FIXTURE, "pt") as file:
        assert file.metadata()["mergekit"] == VERSION
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict


def ours(case, weights):
    """The merged weight, of the base's and the fine-tunes' own, by name."""
    deltas = [weights[model] - weights["base"] for model in case.models]
    strategy = default_registry().merge_strategy(case.strategy)
    given = list(inspect.signature(strategy.merge).parameters)
    filled = {"base": weights["base"], "generator": torch.Generator().manual_seed(SEED)}
    options = case.options | {name: filled[name] for name in given if name in filled}
    if given[0] == "updates":
        merged = strategy.merge([LowRank(one, torch.eye(len(one)), 1.0) for one in deltas], case.weights, **options)
        return weights["base"] + merged.delta()
    return weights["base"] + strategy.merge(deltas, case.weights, **options)


def of(tensors, weight):
    return {model: tensors[f"{model}/{weight}"] for model in ("base", "a", "b", "c")}


def assert_alike(tensors, case):
    for weight in WEIGHTS:
        made, wanted = ours(case, of(tensors, weight)), tensors[f"{case.name}/{weight}"]
        assert not torch.allclose(wanted, tensors[f"base/{weight}"], atol=1e-3)
        torch.testing.assert_close(made, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_strategy_makes_what_mergekit_makes(theirs, case):
    assert_alike(theirs, case)


@pytest.mark.parametrize("strategy", ["ties", "dare_linear", "dare_ties", "breadcrumbs_ties", "della", "della_linear"])
def test_where_defaults_differ_from_mergekit_s_the_difference_is_seen(theirs, strategy):
    """Guards the test above: it would not pass with whatever options."""
    case = next(one for one in CASES if one.name == strategy)
    others = {"ties": {"normalize": "count"}, "breadcrumbs_ties": {"normalize": "weights"}}
    moved = attrs.evolve(case, options=case.options | others.get(strategy, {"rescale": "probability"}))
    with pytest.raises(AssertionError):
        assert_alike(theirs, moved)


def test_mergekit_adds_what_a_negative_weight_should_take_away(theirs):
    """Where of two changes but the one with the weight -0.5 has a value left, mergekit divides -0.5 times it by -0.5."""
    for weight in WEIGHTS:
        weights = of(theirs, weight)
        first, second = (weights[model] - weights["base"] for model in "ab")
        kept = {
            name: one.abs() >= one.abs().flatten().topk(int(0.4 * one.numel())).values[-1]
            for name, one in (("a", first), ("b", second))
        }
        alone = kept["b"] & ~kept["a"]
        assert alone.any()
        torch.testing.assert_close(
            theirs[f"{NEGATIVE.name}/{weight}"][alone], (weights["base"] + second)[alone], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(ours(NEGATIVE, weights)[alone], (weights["base"] - second)[alone], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_mergekit_still_makes_what_the_fixture_holds(theirs, tmp_path):
    try:
        made, versions = merged(tmp_path)
    except NoIndexError as error:
        pytest.skip(f"mergekit {VERSION} cannot be installed: {error}")
    assert versions["mergekit"] == VERSION
    assert made.keys() == theirs.keys()
    for name, tensor in made.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-6, rtol=0)
