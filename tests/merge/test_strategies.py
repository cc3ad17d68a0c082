"""Every merge strategy against its definition."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapterkit import ConfigError, LowRank
from adapterkit.registry import default_registry
from tests.merge import plain
from tests.merge.asking import ask, changes, close, low_rank, quietly, random

densities = st.sampled_from([0.05, 0.2, 0.5, 0.9, 1.0])
scalings = st.sampled_from([1.0, 0.5, -2.0])
agreeing = st.fixed_dictionaries(
    {
        "majority_sign_method": st.sampled_from(["total", "frequency"]),
        "vote": st.sampled_from(["weighted", "equal"]),
        "normalize": st.sampled_from(["weights", "count", "none"]),
        "scaling": scalings,
    }
)
rescales = st.sampled_from(["probability", "l1", "none"])


@given(changes(), scalings)
@quietly
def test_task_arithmetic_is_the_sum(given, scaling):
    deltas, weights = given
    close(ask("task_arithmetic", deltas, weights, scaling=scaling), plain.total(deltas, weights, scaling))


@given(changes())
@quietly
def test_a_soup_is_the_mean(given):
    deltas, weights = given
    if sum(weights) == 0:
        with pytest.raises(ConfigError, match="weights: a mean needs"):
            ask("soup", deltas, weights)
    else:
        close(ask("soup", deltas, weights), plain.total(deltas, weights) / sum(weights))


@given(changes(), densities, scalings)
@quietly
def test_magnitude_prune_is_the_sum_of_the_largest(given, density, scaling):
    deltas, weights = given
    wanted = plain.total([plain.trim(delta, density) for delta in deltas], weights, scaling)
    close(ask("magnitude_prune", deltas, weights, density=density, scaling=scaling), wanted)


@given(changes(), densities, agreeing)
@quietly
def test_ties_is_trim_elect_and_mean(given, density, options):
    deltas, weights = given
    wanted = plain.agree([plain.trim(delta, density) for delta in deltas], weights, **options)
    close(ask("ties", deltas, weights, density=density, **options), wanted)


@given(changes(), st.sampled_from([(0.2, 0.1), (0.5, 0.5), (0.9, 0.01), (1.0, 0.0), (0.05, 0.3)]), agreeing)
@quietly
def test_breadcrumbs_drops_at_both_ends(given, parts, options):
    deltas, weights = given
    density, gamma = parts
    kept = [plain.trim_both(delta, density, gamma) for delta in deltas]
    scaling = options["scaling"]
    close(
        ask("breadcrumbs", deltas, weights, density=density, gamma=gamma, scaling=scaling),
        plain.total(kept, weights, scaling),
    )
    close(
        ask("breadcrumbs_ties", deltas, weights, density=density, gamma=gamma, **options),
        plain.agree(kept, weights, **options),
    )


@given(changes(repeated=False), densities, rescales, agreeing, st.integers(0, 3))
@quietly
def test_dare_drops_by_chance(given, density, rescale, options, seed):
    deltas, weights = given
    stream = torch.Generator().manual_seed(seed)
    kept = [plain.drop(delta, density, rescale, stream) for delta in deltas]
    asked = {"density": density, "rescale": rescale, "seed": seed}
    close(
        ask("dare_linear", deltas, weights, **asked, scaling=options["scaling"]),
        plain.total(kept, weights, options["scaling"]),
    )
    close(ask("dare_ties", deltas, weights, **asked, **options), plain.agree(kept, weights, **options))


@given(
    changes(repeated=False),
    st.sampled_from([(0.5, 0.15), (0.6, 0.4), (0.3, 0.0), (1.0, 0.15)]),
    rescales,
    agreeing,
    st.integers(0, 3),
)
@quietly
def test_della_drops_small_values_more_often(given, chance, rescale, options, seed):
    deltas, weights = given
    density, epsilon = chance
    stream = torch.Generator().manual_seed(seed)
    kept = [plain.drop(delta, plain.chances(delta, density, epsilon), rescale, stream) for delta in deltas]
    asked = {"density": density, "epsilon": epsilon, "rescale": rescale, "seed": seed}
    close(
        ask("della_linear", deltas, weights, **asked, scaling=options["scaling"]),
        plain.total(kept, weights, options["scaling"]),
    )
    close(ask("della", deltas, weights, **asked, **options), plain.agree(kept, weights, **options))


@given(st.integers(0, 999), st.floats(0, 1))
@quietly
def test_slerp_turns_from_one_to_the_other(seed, t):
    one, other = random(4, 5, seed=seed).double(), 3 * random(4, 5, seed=seed + 1).double()
    close(ask("slerp", [one, other], t=t), plain.slerp(one, other, t), 1e-9)
    close(ask("slerp", [one, other], [1 - t, t]), plain.slerp(one, other, t), 1e-9)
    base = random(4, 5, seed=seed + 2).double()
    whole = plain.slerp(base + one, base + other, t)
    close(base + ask("slerp", [one, other], t=t, of="weights", base=base), whole, 1e-9)


def test_slerp_turns_by_the_smallest_angles():
    one, other = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.999, math.sqrt(1 - 0.999**2)]]).double()
    close(ask("slerp", [one, other], t=0.25), plain.slerp(one, other, 0.25), 1e-9)
    assert float(ask("slerp", [one, other], t=0.25).norm()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("scale", [1.0, -1.0, 0.0])
def test_slerp_goes_straight_where_there_is_no_plane_to_turn_in(scale):
    one = random(4, 5)
    close(ask("slerp", [one, scale * one], t=0.25), 0.75 * one + 0.25 * scale * one)


def test_slerp_of_whole_weights_is_a_plain_mean_where_changes_are_small():
    base, one, other = random(64, 64), 1e-3 * random(64, 64, seed=1), 1e-3 * random(64, 64, seed=2)
    close(ask("slerp", [one, other], t=0.5, of="weights", base=base), (one + other) / 2, 1e-8)
    turned = ask("slerp", [one, other], t=0.5)
    assert float(turned.norm() / one.norm()) == pytest.approx(1.0, abs=0.02)  # and not 0.71


@given(changes(least=2), st.booleans())
@quietly
def test_model_stock_goes_as_far_as_angles_say(given, by_row):
    deltas = [delta + 0.01 * (number + 1) for number, delta in enumerate(given[0])]
    if by_row:
        rows = [[delta[number : number + 1].double() for delta in deltas] for number in range(deltas[0].shape[0])]
        wanted = torch.cat([plain.model_stock(row) for row in rows])
    else:
        wanted = plain.model_stock([delta.double() for delta in deltas])
    close(ask("model_stock", deltas, filter_wise=by_row), wanted)


def test_model_stock_does_not_pass_the_base():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[-0.5, math.sqrt(0.75)]])
    assert math.cos(plain.angle(one, other)) == pytest.approx(-0.5)
    assert ask("model_stock", [one, other]).count_nonzero() == 0


@given(changes(), st.sampled_from([0.1, 0.5, 1.0]), scalings)
@quietly
def test_sce_selects_calculates_and_erases(given, select_topk, scaling):
    deltas, _ = given
    close(ask("sce", deltas, select_topk=select_topk, scaling=scaling), plain.sce(deltas, select_topk, scaling))


@given(st.integers(0, 999), st.lists(st.sampled_from([1.0, 0.5, 3.0]), min_size=2, max_size=4))
@quietly
def test_karcher_is_where_all_pull_alike(seed, weights):
    deltas = [(1 + number) * random(3, 4, seed=seed + number).double() + 0.5 for number in range(len(weights))]
    mean = ask("karcher", deltas, weights)
    length = sum(weight * float(delta.norm()) for weight, delta in zip(weights, deltas, strict=True)) / sum(weights)
    assert float(mean.norm()) == pytest.approx(length)
    unit = mean / mean.norm()
    pulls = torch.zeros_like(unit)
    for delta, weight in zip(deltas, weights, strict=True):
        turn = plain.angle(delta, unit)
        away = delta / delta.norm() - math.cos(turn) * unit
        pulls += weight * turn * away / away.norm()
    assert float(pulls.norm()) < 1e-6


def test_karcher_of_two_points_where_slerp_does():
    deltas = [random(3, 4).double(), random(3, 4, seed=1).double()]
    units = [delta / delta.norm() for delta in deltas]
    made = ask("karcher", deltas, [1.0, 3.0])
    close(made / made.norm(), plain.slerp(*units, 0.75), 1e-9)
    assert float(ask("karcher", [deltas[0], -deltas[0]]).norm()) == pytest.approx(float(deltas[0].norm()))


@pytest.mark.parametrize("inside", ["ties", "dare_ties", "linear"])
@pytest.mark.parametrize("ranks", [(2, 2), (1, 3, 2), (2, 0, 2), (5, 4, 3)])
def test_knots_and_core_space_merge_in_shared_axes(ranks, inside):
    """The axes are those of the whole changes side by side, and of the stacked, balanced factors; a sign is theirs to choose."""
    updates = [low_rank(10 * number, rank) for number, rank in enumerate(ranks)]
    weights = [1.0, 0.5, 2.0][: len(ranks)]
    deltas = [update.delta().double() for update in updates]
    outer = plain.axes(torch.cat(deltas, dim=1))
    written = plain.axes(torch.cat([update.cut().up for update in updates], dim=1))
    read = plain.axes(torch.cat([update.cut().down for update in updates]).T)
    options = {"density": 0.4, "normalize": "count", "scaling": 0.5}
    for name, left, right in (("knots", outer, torch.eye(9, dtype=torch.float64)), ("core_space", written, read)):
        aligned = [left.T @ delta @ right for delta in deltas]
        if inside == "linear":
            wanted = sum(0.5 * weight * delta for weight, delta in zip(weights, deltas, strict=True))
        else:
            stream = {} if inside == "ties" else {"generator": torch.Generator().manual_seed(3)}
            merged = default_registry().merge_strategy(inside).merge(aligned, weights, **options, **stream)
            wanted = left @ merged @ right.T
        close(ask(name, updates, weights, inside=inside, seed=3, **options), wanted, 1e-4)


@pytest.mark.parametrize("name", ["knots", "core_space"])
def test_alignment_keeps_the_rank_and_sees_through_other_factors(name):
    updates = [low_rank(0, 2), low_rank(10, 3)]
    merged = default_registry().merge_strategy(name).merge(updates, [1.0, 1.0], generator=torch.Generator())
    assert merged.rank <= 5 or name == "knots"
    assert merged.up.shape[1] == merged.rank <= 5
    turn = torch.linalg.qr(random(2, 2, seed=5)).Q
    same = [LowRank(turn.T @ updates[0].down, updates[0].up @ turn, updates[0].scale), updates[1]]
    close(ask(name, same), ask(name, updates), 1e-4)


@pytest.mark.parametrize("method", ["total", "frequency"])
def test_peft_s_definitions_are_among_ours(monkeypatch, method):
    """Its functions on whole changes, with its random numbers replaced by ours; weights may be uneven, and below zero."""
    peft = pytest.importorskip("peft.utils.merge_utils")
    deltas, weights, stream = [random(6, 8, seed=seed) for seed in range(3)], [1.0, 0.5, -0.7], torch.Generator()
    monkeypatch.setattr(
        torch, "bernoulli", lambda chances: (torch.rand(chances.shape, generator=stream) < chances).float()
    )
    given, mean = torch.tensor(weights), {"majority_sign_method": method, "vote": "equal", "normalize": "count"}
    close(ask("task_arithmetic", deltas, weights), peft.task_arithmetic(deltas, given))
    close(ask("magnitude_prune", deltas, weights, density=0.3), peft.magnitude_prune(deltas, given, 0.3))
    close(ask("ties", deltas, weights, density=0.3, **mean), peft.ties(deltas, given, 0.3, method))
    stream.manual_seed(5)
    close(ask("dare_linear", deltas, weights, density=0.3, seed=5), peft.dare_linear(deltas, given, 0.3))
    stream.manual_seed(5)
    close(ask("dare_ties", deltas, weights, density=0.3, seed=5, **mean), peft.dare_ties(deltas, given, 0.3, method))
