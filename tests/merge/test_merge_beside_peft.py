"""Merges beside PEFT's ``add_weighted_adapter``: equal where PEFT does what it says, and right where it does not."""

import typing

import pytest
import torch

from adapterkit import Base, merge
from adapterkit.effects import LowRank
from adapterkit.resident import effects_of
from adapterkit.testing import tiny_llama
from tests.support import make_adapter

peft = pytest.importorskip("peft")

WEIGHTS = [0.7, 0.4]
RANK = 5
DENSITY = 0.5
AS_PEFT = {"vote": "equal", "normalize": "count"}

# PEFT's name, and what it is here: strategy and options
EQUAL = {
    "cat": ("cat", {}),
    "svd": ("svd", {"rank": RANK}),
    "linear": ("linear", {"space": "factors"}),
    "ties": ("ties", {"space": "factors", "density": DENSITY, **AS_PEFT}),
    "ties_svd": ("ties", {"rank": RANK, "density": DENSITY, **AS_PEFT}),
    "dare_linear": ("dare_linear", {"space": "factors", "density": DENSITY}),
    "dare_linear_svd": ("dare_linear", {"rank": RANK, "density": DENSITY}),
    "dare_ties": ("dare_ties", {"space": "factors", "density": DENSITY, **AS_PEFT}),
    "dare_ties_svd": ("dare_ties", {"rank": RANK, "density": DENSITY, **AS_PEFT}),
    "magnitude_prune": ("magnitude_prune", {"space": "factors", "density": DENSITY}),
    "magnitude_prune_svd": ("magnitude_prune", {"rank": RANK, "density": DENSITY}),
}


@pytest.fixture(scope="module")
def base():
    return Base(tiny_llama())


class Beside:
    """Two adapters of ours, and the same in PEFT on a copy of the model."""

    def __init__(self, base, folder, **options):
        targets = ("q_proj", "up_proj")
        self.base = base
        self.ours = [make_adapter(base, rank=4, seed=seed, target_modules=targets, **options) for seed in (1, 2)]
        folders = [one.save(folder / str(number)) for number, one in enumerate(self.ours)]
        self.peft = peft.PeftModel.from_pretrained(tiny_llama(), folders[0], adapter_name="0")
        self.peft.load_adapter(folders[1], adapter_name="1")

    def theirs(self, combination, weights=WEIGHTS):
        """What PEFT's merged adapter changes of each weight: what its layer adds to the base's answer to the identity."""
        svd = {"svd_rank": RANK} if combination.endswith("svd") else {}
        options = svd if combination in ("cat", "svd", "linear") else svd | {"density": DENSITY}
        self.peft.add_weighted_adapter(["0", "1"], weights, "merged", combination_type=combination, **options)
        self.peft.set_adapter("merged")
        self.peft.eval()
        found = {}
        for name, layer in self.peft.base_model.model.named_modules():
            if isinstance(layer, peft.tuners.lora.LoraLayer):
                rows = torch.eye(layer.in_features)
                found[name] = (layer(rows) - layer.base_layer(rows)).detach().T.double()
        return found

    def mine(self, strategy, weights=WEIGHTS, **options):
        """What our merged adapter changes of each weight."""
        effects = effects_of(self.base.registry, merge(self.ours, weights, strategy, **options))
        return {
            site: (one.delta() if isinstance(one, LowRank) else one.delta).double() for site, (one,) in effects.items()
        }

    def right(self, weights=WEIGHTS):
        """The definition in float64: the weighted sum of what each adapter changes of the base's weight."""
        sums = {}
        for adapter, weight in zip(self.ours, weights, strict=True):
            scale = 2.0 * adapter.config.rank / (adapter.config.rank ** (0.5 if adapter.config.use_rslora else 1.0))
            for name, down in adapter.tensors.items():
                if not name.endswith("lora_A.weight"):
                    continue
                site = name.removesuffix(".lora_A.weight")
                change = scale * adapter.tensors[f"{site}.lora_B.weight"].double() @ down.double()
                if adapter.config.use_dora:
                    own = next(one for one in self.base.sites if one.name == site).weight.detach().double()
                    magnitude = adapter.tensors[f"{site}.lora_magnitude_vector"].double()
                    change = magnitude[:, None] * (own + change) / (own + change).norm(dim=1)[:, None] - own
                sums[site] = sums.get(site, 0.0) + weight * change
        return sums


def apart(one, other):
    """The relative Frobenius error of the first, over all weights."""
    assert one.keys() == other.keys()
    pairs = [(one[site], other[site]) for site in sorted(other)]
    wrong, size = (
        sum(float(part.square().sum()) for part in parts)
        for parts in ([a - b for a, b in pairs], [b for _, b in pairs])
    )
    return (wrong / size) ** 0.5


def largest_gap(one, other):
    assert one.keys() == other.keys()
    return max(float((one[site] - other[site]).abs().max()) for site in one)


@pytest.fixture
def same_masks(monkeypatch):
    """What is dropped by chance here is dropped in PEFT too: it finds each of our masks by the norm of the tensor."""
    from peft.utils import merge_utils

    from adapterkit_merges import pruning

    drawn, draw = [], pruning._kept

    def record(delta, chances, generator):
        mask = draw(delta, chances, generator)
        drawn.append((delta.norm(), mask))
        return mask

    def find(tensor, density, rescale):
        fitting = [(norm, mask) for norm, mask in drawn if mask.shape == tensor.shape]
        norm, mask = min(fitting, key=lambda pair: abs(pair[0] - tensor.norm()))
        torch.testing.assert_close(norm, tensor.norm(), rtol=1e-5, atol=0.0)
        assert rescale
        return tensor * mask / density

    monkeypatch.setattr(pruning, "_kept", record)
    monkeypatch.setattr(merge_utils, "random_pruning", find)
    return drawn


@pytest.mark.parametrize("combination", sorted(EQUAL))
def test_equal_where_peft_is_right(base, tmp_path, same_masks, combination):
    beside = Beside(base, tmp_path)
    strategy, options = EQUAL[combination]
    mine = beside.mine(strategy, **options)
    assert largest_gap(mine, beside.theirs(combination)) < 1e-5
    assert bool(same_masks) == combination.startswith("dare")


def test_every_combination_of_pefts_is_here():
    hints = typing.get_type_hints(peft.LoraModel.add_weighted_adapter)
    assert set(EQUAL) == set(typing.get_args(hints["combination_type"]))


@pytest.mark.parametrize("combination", ["cat", "svd"])
def test_rslora_comes_out_too_large_in_peft(base, tmp_path, combination):
    """It keeps the scale alpha / sqrt(rank) and sets alpha to the new rank: sqrt(rank) times too much, peft#3761."""
    beside = Beside(base, tmp_path, use_rslora=True)
    rank = 8 if combination == "cat" else RANK
    right = beside.right() if combination == "cat" else beside.mine("svd", rank=RANK)
    assert apart(beside.mine(combination, rank=rank), right) < 1e-6
    assert apart(beside.theirs(combination), right) == pytest.approx(rank**0.5 - 1.0, rel=1e-3)
    assert apart(beside.mine("svd"), beside.right()) < 1e-6


def test_dora_loses_its_magnitude_in_peft(base, tmp_path):
    beside = Beside(base, tmp_path, use_dora=True)
    right = beside.right()
    assert apart(beside.mine("cat", base=base), right) < 1e-6
    assert apart(beside.theirs("cat"), right) > 0.5


@pytest.mark.parametrize("weights", [[0.7, 0.4], [1.0, -1.0], [0.5, -0.8]])
def test_linear_multiplies_sums_of_factors_in_peft(base, tmp_path, weights):
    """The sum of A times the sum of B has cross terms: no subtraction of a skill."""
    beside = Beside(base, tmp_path)
    right, theirs = beside.right(weights), beside.theirs("linear", weights)
    assert apart(beside.mine("linear", weights), right) < 1e-6
    assert apart(theirs, right) > 0.5
    assert largest_gap(beside.mine("linear", weights, space="factors"), theirs) < 1e-5


def test_negative_weights_in_cat_and_svd_are_right_in_both(base, tmp_path):
    beside = Beside(base, tmp_path)
    right = beside.right([0.5, -0.8])
    assert apart(beside.mine("cat", [0.5, -0.8]), right) < 1e-6
    assert apart(beside.theirs("cat", [0.5, -0.8]), right) < 1e-6
