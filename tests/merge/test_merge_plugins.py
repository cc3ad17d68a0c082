"""Strategies that others write."""

import re
import types

import pytest
import torch

from adapterkit import (
    ConfigError,
    MergeStrategy,
    PluginError,
    hookimpl,
    merge,
)
from adapterkit.registry import Registry
from tests.support import make_adapter


def with_strategy(function, **about):
    registry = Registry()
    plugin = types.ModuleType("mine")

    @hookimpl
    def adapterkit_merge_strategies():
        yield MergeStrategy(name="mine", merge=function, **about)

    plugin.adapterkit_merge_strategies = adapterkit_merge_strategies
    registry.add(plugin)
    return registry


def test_a_typed_function_is_a_strategy(llama, pair):
    def middle(deltas: list[torch.Tensor], weights: list[float], *, power: float = 1.0) -> torch.Tensor:
        return torch.stack([weight**power * one for weight, one in zip(weights, deltas, strict=True)]).median(0).values

    full = [make_adapter(llama, method="full", seed=seed, scale=0.02) for seed in (1, 2, 3)]
    merged = merge(full, [1.0, 2.0, 3.0], "mine", power=2, registry=with_strategy(middle))
    name = "lm_head.delta_weight"
    right = (
        torch.stack([weight**2 * one.tensors[name] for weight, one in zip((1, 2, 3), full, strict=True)])
        .median(0)
        .values
    )
    torch.testing.assert_close(merged.tensors[name], right)
    assert merged.manifest.lineage["options"] == {"power": 2.0}


def test_a_strategy_is_given_what_it_asks_for(llama, pair):
    seen = []

    def curious(
        deltas: list[torch.Tensor],
        weights: list[float],
        *,
        base: torch.Tensor,
        rank: int | None,
        generator: torch.Generator,
        floor: int,
    ) -> torch.Tensor:
        seen.append((tuple(base.shape), float(base.norm()), rank, floor, generator.initial_seed()))
        return deltas[0]

    registry = with_strategy(curious)
    with pytest.raises(ConfigError, match=r"(?s)floor: is required|give base="):
        merge(pair, strategy="mine", registry=registry)
    with pytest.raises(ConfigError, match="compares with the base's own weights: give base="):
        merge(pair, strategy="mine", registry=registry, floor=1)
    merge(pair, strategy="mine", registry=registry, base=llama, floor=1, rank=3)
    sites = [site for site in llama.sites if f"{site.name}.lora_A.weight" in pair[0].tensors]
    assert [one[0] for one in seen] == [tuple(site.weight.shape) for site in sites]
    assert [one[1] for one in seen] == pytest.approx([float(site.weight.detach().norm()) for site in sites])
    assert {one[2:4] for one in seen} == {(3, 1)}
    assert len({one[4] for one in seen}) == len(sites)  # each weight draws its own numbers


def wrong_shape(deltas: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    return deltas[0].T


def untyped(deltas, weights):
    return deltas[0]


def takes_seed(deltas: list[torch.Tensor], weights: list[float], *, seed: int = 0) -> torch.Tensor:
    return deltas[0]


def unreadable(deltas: "list[Tensro]", weights: "list[float]") -> "Tensor":  # noqa: F821
    return deltas[0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (wrong_shape, r"returned a tensor \(\d+, \d+\) at 'model.layers.0.mlp.down_proj.weight'"),
        (untyped, "must be a function of"),
        (takes_seed, r"\['seed'\].*words of merge itself"),
        (unreadable, "cannot be read.*Tensro"),
    ],
)
def test_a_strategy_that_breaks_its_contract_is_named(pair, function, message):
    with pytest.raises(PluginError, match=message):
        merge(pair, strategy="mine", registry=with_strategy(function))


def test_what_a_strategy_refuses_is_an_error_of_its_options(pair):
    def picky(deltas: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
        raise ValueError("weights: must add up to 1")

    with pytest.raises(ConfigError, match=re.escape("weights: must add up to 1")):
        merge(pair, strategy="mine", registry=with_strategy(picky))
