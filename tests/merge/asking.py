"""How tests ask strategies: by name, with changes as matrices or as factors."""

import inspect

import torch
from hypothesis import settings
from hypothesis import strategies as st

from adapterkit import LowRank
from adapterkit.registry import default_registry

IDS = torch.arange(1, 25).view(2, 12)
NAMES = [record.name for record in default_registry().merge_strategies()]
EXACT = ["cat", "svd", "linear", "task_arithmetic"]
RANDOM = ["dare_linear", "dare_ties", "della", "della_linear"]
SIGNED = ["ties", "dare_ties", "breadcrumbs_ties", "della"]
WHOLE = {"density": 1.0, "gamma": 0.0}
"""Options with which nothing is pruned."""


def parameters(name):
    return list(inspect.signature(default_registry().merge_strategy(name).merge).parameters)


def ask(name, changes, weights=None, *, seed=0, **options):
    """What a strategy makes of changes, as one change; of factors, where it takes them."""
    given = parameters(name)
    if "generator" in given:
        options["generator"] = torch.Generator().manual_seed(seed)
    if given[0] == "updates" and not isinstance(changes[0], LowRank):
        changes = [LowRank(torch.eye(change.shape[1]), change, 1.0) for change in changes]
    merged = default_registry().merge_strategy(name).merge(changes, weights or [1.0] * len(changes), **options)
    return merged.delta() if isinstance(merged, LowRank) else merged


def fitting(name, options):
    """Those of some options that a strategy has."""
    return {option: value for option, value in options.items() if option in parameters(name)}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(made, wanted, tolerance=2e-5):
    torch.testing.assert_close(made.double(), wanted.double(), atol=tolerance, rtol=1e-5)


def low_rank(seed, rank, shape=(7, 9)):
    return LowRank(random(rank, shape[1], seed=seed), random(shape[0], rank, seed=seed + 1), 0.5 + seed)


quietly = settings(deadline=None, max_examples=60)
"""The first example waits for torch."""


@st.composite
def changes(draw, least=1, most=4, *, repeated=True):
    """Changes of one shape, of normal numbers or of few that come again and again, and weights."""
    number, rows, columns = draw(st.integers(least, most)), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    stream = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    if not repeated or draw(st.booleans()):
        deltas = [torch.randn(rows, columns, generator=stream) for _ in range(number)]
    else:
        deltas = [torch.randint(-2, 3, (rows, columns), generator=stream) / 2 for _ in range(number)]
    return deltas, draw(st.lists(st.sampled_from([1.0, 0.5, 2.0, -1.0, -0.25, 0.0]), min_size=number, max_size=number))


def gap(base, one, other):
    """The largest difference of logits, beside how far the first moves them at all."""
    mine, theirs, alone = (base.logits(IDS, adapter=acting) for acting in (one, other, None))
    assert (mine - alone).abs().max() > 1e-3  # else anything would be equal
    return float((mine - theirs).abs().max())
