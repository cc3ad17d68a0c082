import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterkit.lowrank import of_rank, within_error


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def with_spectrum(values, rows, columns, seed=0):
    generator = stream(seed)
    u = torch.linalg.qr(torch.randn(rows, len(values), generator=generator)).Q
    v = torch.linalg.qr(torch.randn(columns, len(values), generator=generator)).Q
    return (u * values) @ v.T


def optimal_error(matrix, rank):
    squares = torch.linalg.svdvals(matrix.double()).square()
    return math.sqrt(float(squares[rank:].sum() / squares.sum()))


def error(matrix, factors):
    left = matrix.double() - factors.up.double() @ factors.down.double()
    return float(left.norm() / matrix.double().norm())


SPECTRA = {
    "flat": torch.ones,
    "slow": lambda n: torch.arange(1.0, n + 1) ** -0.5,
    "fast": lambda n: 0.9 ** torch.arange(float(n)),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("shape", [(400, 400), (600, 300), (300, 600)])
def test_a_rank_is_within_half_a_percent_of_the_optimum(spectrum, shape):
    matrix = with_spectrum(SPECTRA[spectrum](min(shape)), *shape)
    found = of_rank(matrix, 16, stream())
    assert found.rank == 16
    assert error(matrix, found) <= 1.005 * optimal_error(matrix, 16)


def test_noise_too_is_within_half_a_percent():
    matrix = torch.randn(500, 700, generator=stream(1))
    assert error(matrix, of_rank(matrix, 16, stream())) <= 1.005 * optimal_error(matrix, 16)


@given(rank=st.integers(1, 12), rows=st.integers(13, 150), columns=st.integers(13, 150), seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_what_has_the_rank_is_met_exactly(rank, rows, columns, seed):
    generator = stream(seed)
    matrix = torch.randn(rows, rank, generator=generator) @ torch.randn(rank, columns, generator=generator)
    found = of_rank(matrix, rank, stream())
    assert error(matrix, found) < 1e-5
    assert found.error < 1e-5


@given(bound=st.floats(0.02, 0.9), name=st.sampled_from(["slow", "fast"]), seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_an_error_takes_the_smallest_rank_and_is_told_truly(bound, name, seed):
    matrix = with_spectrum(SPECTRA[name](240), 240, 260, seed)
    found = within_error(matrix, bound, stream())
    assert found.error <= bound
    assert found.error == pytest.approx(error(matrix, found), rel=1e-3, abs=1e-6)
    left = torch.linalg.svdvals(matrix.double()).square().flip(0).cumsum(0).flip(0)
    smallest = int((left > bound**2 * left[0]).sum())
    assert smallest <= found.rank <= smallest + 1 + smallest // 100


def test_an_error_that_takes_every_direction_is_met():
    matrix = torch.randn(60, 60, generator=stream(2))
    found = within_error(matrix, 1e-5, stream())
    assert found.rank == 60
    assert error(matrix, found) < 1e-5


def test_a_rank_over_what_there_is_is_all_there_is():
    matrix = torch.randn(5, 40, generator=stream(3))
    found = of_rank(matrix, 16, stream())
    assert found.rank == 5
    assert error(matrix, found) < 1e-6


def test_the_same_seed_gives_the_same_factors_and_another_gives_others():
    matrix = torch.randn(300, 300, generator=stream(4))
    one, same, other = (of_rank(matrix, 8, stream(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.up, same.up)
    assert torch.equal(one.down, same.down)
    assert not torch.equal(one.up, other.up)


def test_both_factors_are_as_large():
    found = of_rank(torch.randn(300, 200, generator=stream(5)), 8, stream())
    assert torch.allclose(found.up.norm(dim=0), found.down.norm(dim=1), rtol=1e-3)
